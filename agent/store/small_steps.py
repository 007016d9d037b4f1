"""Work that may take its time, done in transactions so short that capture hardly waits for any of them.

How much goes into one is found out by what the last one took; after each the disk and the writer are left alone for as
long as it lasted. What it wrote is moved from the write-ahead log into the database with it, so that no commit of
capture's has to do that for it.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, TypeVar

from agent.store.engine import EdgeConnection, in_transaction

T = TypeVar("T")

_GOAL_SECONDS: Final = 0.01
_SHORTEST_REST_SECONDS: Final = 0.005


class StepSize:
    """How much goes into one step, `size`; it grows while steps stay short, and is never below `least`."""

    def __init__(self, *, first: int, most: int, least: int = 1) -> None:
        self.size = first
        self._most = most
        self._least = least

    def learn(self, done: int, seconds: float) -> None:
        """So much was done in so many seconds."""
        if done:
            fitting = int(done * _GOAL_SECONDS / max(seconds, 1e-6))
            self.size = max(self._least, min(fitting, 2 * self.size, self._most))


class SmallSteps:
    """Takes steps of a `size` that is found out."""

    def __init__(
        self,
        connection: EdgeConnection,
        *,
        first: int = 20,
        most: int = 500,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connection = connection
        self._step = StepSize(first=first, most=most)
        self._pause = pause

    @property
    def size(self) -> int:
        """Of the next step."""
        return self._step.size

    async def take(self, work: Callable[[sqlite3.Connection], T], *, count: Callable[[T], int]) -> T:
        """Run `work` on up to `size` things as one transaction, then rest; `count` tells how many it came to.

        Raises StoreUnavailable, with nothing of it done.
        """
        result, seconds = await self._connection.run(partial(timed, work, moved=True))
        self._step.learn(count(result), seconds)
        await self._pause(max(seconds, _SHORTEST_REST_SECONDS))
        return result


def timed(
    work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection, *, moved: bool = False
) -> tuple[T, float]:
    """What `work` returns, done as one transaction, and the seconds that took; with `moved` as far as the database."""
    began = time.perf_counter()
    result = in_transaction(work, connection)
    if moved:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return result, time.perf_counter() - began
