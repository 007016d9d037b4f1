"""The agent on the premises: captures calls from the PBX, keeps them, and hands them to the outbox."""
