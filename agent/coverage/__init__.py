"""Whether every call that a PBX wrote down itself is held here, and what it wrote down of the time of gaps."""
