"""From what the PBXes say to what is kept: journal and calls in one commit, contexts in the live store."""
