"""The way to the centre, whatever it is made of."""

from typing import Protocol

from sync.records import Batch, Receipt


class Uplink(Protocol):
    """Takes batches to the centre. Used by one task at a time."""

    async def send(self, batch: Batch) -> Receipt:
        """Return the centre's verdict on every record.

        Raises UplinkUnavailable when it is worth trying again and UplinkRefused when a person has to act first.
        """
        ...

    async def check(self) -> None:
        """Raise as `send` would, if nothing could be sent now; the centre then knows that this site is there."""
        ...

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        ...
