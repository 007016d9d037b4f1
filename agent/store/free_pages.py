"""Gives pages that nobody needs any more back to the file system, a few at a time."""

import sqlite3
from functools import partial
from typing import Final

from agent.store.engine import EdgeConnection
from agent.store.small_steps import SmallSteps

# What is free is filled again by what comes; only what is far too much goes back: 32 MB of pages of 8 KB.
USUALLY_FREE: Final = 4096
_AT_ONCE: Final = 256


def give_back(connection: sqlite3.Connection, *, pages: int, keep: int) -> int:
    """Shorten the database by up to `pages` free pages, leaving `keep` to what comes; how many went, 0 for none.

    Inside a transaction of the caller's, or each page in one of its own.
    """
    too_many = int(connection.execute("PRAGMA freelist_count").fetchone()[0]) - keep
    steps = max(0, min(too_many, pages))
    for _ in range(steps):
        # SQLite frees one page per step and sqlite3 takes one step of a statement without columns, whatever N is.
        connection.execute("PRAGMA incremental_vacuum(1)")
    return steps


async def shrink(connection: EdgeConnection, *, keep: int = USUALLY_FREE) -> None:
    """Give back all but `keep` free pages, between the commits of capture. Raises StoreUnavailable."""
    steps = SmallSteps(connection, most=_AT_ONCE)
    while await steps.take(partial(give_back, pages=steps.size, keep=keep), count=int):
        pass
