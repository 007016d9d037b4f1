"""The way to the centre, whatever it is made of."""

from collections.abc import Sequence
from datetime import date
from typing import Protocol

from sync.records import Batch, DayDigest, Greeting, HeldCall, Receipt, Welcome


class Uplink(Protocol):
    """Takes batches to the centre and asks what it holds. Several tasks may use it at once.

    Everything but `close` raises UplinkUnavailable when it is worth trying again, and UplinkRefused when a person has
    to act first.
    """

    @property
    def lanes(self) -> int:
        """How many batches may be under way together to any use."""
        ...

    async def greet(self, greeting: Greeting) -> Welcome:
        """Say who speaks for the site, and hear how the centre stands. Also raises LeaseHeld and Fenced."""
        ...

    async def send(self, batch: Batch) -> Receipt:
        """Return the centre's verdict on every record. Also raises BatchTooLarge, CentreBehind and as `greet` does."""
        ...

    async def days(self, first: date, last: date) -> Sequence[DayDigest]:
        """What the centre holds of this site from day to day, both included, at most 366."""
        ...

    async def calls(self, tenant: str, day: date, *, after: str, limit: int) -> Sequence[HeldCall]:
        """Up to `limit` calls of a tenant and day in a steady order, from behind `after`; fewer: there are no more."""
        ...

    async def close(self) -> None:
        """Let go of connections; safe to call twice."""
        ...
