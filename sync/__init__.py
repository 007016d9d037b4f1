"""What both sides share: the tables, the record on the wire, the outbox, the uplinks and the centre."""
