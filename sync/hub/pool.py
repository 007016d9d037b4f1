"""A bounded number of connections to the central database, and a bounded number of requests that wait for one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from sync.central.database import CentralDatabase
from sync.hub.problems import Busy


class Pool:
    """Lends a CentralDatabase to one request at a time; each connects when it is first needed and after trouble.

    The one used last is lent first, so that a quiet hub uses few connections. First come, first served.
    """

    def __init__(self, make: Callable[[], CentralDatabase], *, size: int, waiting: int, wait_seconds: float) -> None:
        self._idle = [make() for _ in range(size)]
        self._all = tuple(self._idle)
        self._places = asyncio.Semaphore(size)
        self._most_waiting = waiting
        self._wait_seconds = wait_seconds
        self.waiting = 0

    @property
    def lent(self) -> int:
        """How many are in use."""
        return len(self._all) - len(self._idle)

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[CentralDatabase]:
        """One of them; raises Busy if none came free in time."""
        await self._wait_for_a_place()
        database = self._idle.pop()
        try:
            yield database
        finally:
            self._idle.append(database)
            self._places.release()

    async def close(self) -> None:
        """Let go of all connections."""
        for database in self._all:
            await database.close()

    async def _wait_for_a_place(self) -> None:
        if self._places.locked() and self.waiting >= self._most_waiting:
            raise Busy("too many requests wait for the database")
        self.waiting += 1
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise Busy("the database has no connection to spare") from None
        finally:
            self.waiting -= 1
