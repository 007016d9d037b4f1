"""The call model: what happened on the PBX becomes logical calls, without I/O and without a clock."""
