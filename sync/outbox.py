"""The outbox as the syncer sees it; `agent.store.outbox` keeps it in SQLite."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from sync.records import Batch, Receipt


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be sent: how many calls, and since when the oldest of them."""

    records: int
    oldest_at: datetime | None
    quarantined: int


class Outbox(Protocol):
    """Calls whose latest revision the centre has not confirmed. A call waits once, whatever its revisions.

    Its methods raise OutboxUnavailable when the local database cannot be read or written now.
    """

    async def next_batch(self, *, limit: int) -> Batch | None:
        """Up to `limit` waiting calls, the freshest among them even when the backlog is long; None if empty.

        Reading takes nothing away: without a `settle` the same calls come again.
        """
        ...

    async def settle(self, receipt: Receipt) -> None:
        """Durably remove what was accepted or superseded, unless a newer revision has come meanwhile, and set
        aside what was rejected with its code and reason. Records without a verdict go on waiting."""
        ...

    async def backlog(self) -> Backlog:
        """How much waits."""
        ...
