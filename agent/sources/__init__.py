"""What a PBX writes down itself: files and tables that are read to fill what the live feed missed."""
