"""What a source tells waits while the live feed tells of it otherwise, until both can be held against each other."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.sources.gathering import GatheredCall, Mark
from agent.sources.keeping import Kept, keep_calls
from agent.store.engine import Store, open_store
from agent.store.writer import FinishedCall, Group, LiveAnchor, Writer
from tests.integration.sources.world import MINUTE, NINE, heard

CALL, LEG = "s:main:1795340000.1", "s:main:1795340000.2"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "edge.db") as store:
        yield store


def by_cel() -> GatheredCall:
    legs = [{"channel": "1795340000.1", "caller": True}, {"channel": "1795340000.2"}]
    row = heard(1, source="cel", legs=legs).row
    return GatheredCall(dict(row), "acme", Mark(0, None, 0, 0))


async def told(store: Store, writer: Writer) -> Kept:
    def keep(connection: sqlite3.Connection) -> Kept:
        return keep_calls(connection, [by_cel()], pbx="main", since=NINE, now=writer.now_text())[0]

    return await writer.transact(keep)


async def test_a_leg_that_the_live_feed_takes_for_a_call_is_told_as_a_leg_once_that_has_ended(
    store: Store,
) -> None:
    writer = await Writer.over(store.connection)
    seeming = heard(2, start_estimated=True, end_estimated=True)
    await writer.commit(Group(opened=[LiveAnchor(LEG, "main", 0, NINE + 2 * MINUTE)], finished=[heard(1)]))

    assert (await told(store, writer)).live == {CALL}

    await writer.commit(Group(finished=[FinishedCall(seeming.row, "acme")]))
    assert (await told(store, writer)).live == set()
    rows = await store.reader.run(
        lambda connection: connection.execute("SELECT call_sid, merged_into FROM call ORDER BY id").fetchall()
    )
    assert rows == [(CALL, None), (LEG, CALL)]
