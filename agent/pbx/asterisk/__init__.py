"""Asterisk, heard over its manager interface (AMI)."""
