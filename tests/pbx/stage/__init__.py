"""Features of a PBX played by small phones of our own, many at a time, each beside the truth of its calls."""
