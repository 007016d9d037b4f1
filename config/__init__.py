"""Every setting as a typed value, how they are read, and how logs are written."""
