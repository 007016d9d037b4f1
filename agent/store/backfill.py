"""The way into the database for what past records tell: it can be shut, so that what is said now has the room."""

import sqlite3
from collections.abc import Callable
from typing import TypeVar

from agent.errors import StoreUnavailable
from agent.store.engine import EdgeConnection
from agent.store.writer import CommitResult, Group, Writer

T = TypeVar("T")


class BackfillWriter(Writer):
    """A writer for those who wait and try again: their place in what they read is kept with what they write."""

    def __init__(self, connection: EdgeConnection, *, is_stopped: Callable[[], bool]) -> None:
        super().__init__(connection, last_segment_id=0)
        self._is_stopped = is_stopped

    async def commit(self, group: Group, *, also: Callable[[sqlite3.Connection], None] | None = None) -> CommitResult:
        """As `Writer.commit`."""
        self._check()
        return await super().commit(group, also=also)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `Writer.transact`."""
        self._check()
        return await super().transact(work)

    def _check(self) -> None:
        if self._is_stopped():
            raise StoreUnavailable("what past records tell waits: the room for local data is nearly used up")
