"""A PBX to try things out with: speaks AMI as Asterisk 22 does and tells realistic mixed calls."""
