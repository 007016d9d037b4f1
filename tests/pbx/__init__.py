"""A real Asterisk, real SIP calls, and its own account of them: the rig that the product is measured against."""
