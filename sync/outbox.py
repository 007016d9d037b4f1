"""The outbox as the syncer sees it; `agent.store.outbox` keeps it in SQLite."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from sync.records import Batch, Receipt


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be sent: how many calls, and since when the oldest of them."""

    records: int
    oldest_at: datetime | None
    quarantined: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a site remembers of its centre: which it is, the lease it gave, and its greatest receipt number."""

    centre: str | None = None
    lease: str | None = field(default=None, repr=False)
    receipts: int = 0


class Outbox(Protocol):
    """Calls whose latest revision the centre has not confirmed. A call waits once, whatever its revisions.

    Its methods raise OutboxUnavailable when the local database cannot be read or written now.
    """

    async def next_batch(self, *, limit: int, fresh_since: datetime | None = None) -> Batch | None:
        """Up to `limit` waiting calls, the freshest among them even when the backlog is long; None if there is none.
        With `fresh_since` only calls that ended since then.

        What is in a batch is in no other until that one is released. Reading takes nothing away: without a `settle`
        the same calls come again.
        """
        ...

    def release(self, batch: Batch) -> None:
        """The batch is no longer under way; what of it still waits may come again."""
        ...

    async def settle(self, receipt: Receipt) -> None:
        """Durably remove what was accepted or superseded, unless a newer revision has come meanwhile, and set
        aside what was rejected with its code and reason. Records without a verdict go on waiting.

        The receipt's number is kept beside the calls. A call of which the centre holds a newer revision than it was
        sent goes on from that one."""
        ...

    async def backlog(self) -> Backlog:
        """How much waits."""
        ...

    async def standing(self) -> Standing:
        """How this site stands with its centre; all unknown before the first greeting."""
        ...

    async def keep_standing(self, standing: Standing) -> None:
        """Remember it."""
        ...

    async def refill(self, *, after: int) -> int:
        """Have some calls wait again that were confirmed by a receipt with a number greater than `after`.

        Returns how many; 0 when there are none any more."""
        ...

    async def deleted_after(self, *, receipt: int) -> datetime | None:
        """Up to when calls began that are no longer kept here, and that only a later receipt had confirmed; None if
        there are none."""
        ...

    async def readmit(self, tenants: Sequence[str]) -> int:
        """Have some calls wait again that were set aside because the centre did not know these tenants; how many."""
        ...
