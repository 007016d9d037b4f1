"""Commits numbered groups until it is killed, telling each one's number once it is durable.

python -m tests.crash.store_groups DATABASE FIRST [--checkpoint-pages N] [--synchronous OFF]
"""

import argparse
import asyncio
import os
import sqlite3
from datetime import timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from agent.store.engine import Store, open_store
from agent.store.segment import Segment
from agent.store.writer import FinishedCall, GapClosed, GapOpened, Group, LiveAnchor, Writer
from tests.integration.store.facts import START, call, row, segment, sid, task

SIZES = (1, 3, 40)  # calls in a group, in turns


def group(number: int) -> Group:
    """The group of this number: a segment, an anchor taken away by the next group, calls with children, a gap.

    Its first call amends the last one of the group before.
    """
    calls = calls_of(number)
    finished = [call(one, tasks=[task("route", group=number)], interactions=[{"group": number}]) for one in calls]
    if number > 1:
        last = calls_of(number - 1)[-1]
        finished.append(FinishedCall(row(last, queue=f"amended by {number}"), "acme"))
    began = START + timedelta(hours=number)
    return Group(
        segments=[_segment(number)],
        opened=[LiveAnchor(f"live:{number}", "main", number, START)],
        finished=finished,
        forgotten=[f"live:{number - 1}"],
        gaps=[GapOpened("main", began, "line_lost"), GapClosed("main", began + timedelta(minutes=1))],
    )


def calls_of(number: int) -> range:
    """The numbers of the calls that are new in a group."""
    return range(number * 100, number * 100 + SIZES[number % len(SIZES)])


def sids_of(number: int) -> set[str]:
    """The call_sids of the calls that are new in a group."""
    return {sid(one) for one in calls_of(number)}


async def last_whole_group(store: Store) -> int:
    """The number of the last group, after making sure that it and all before it are there as they should be."""

    def rows(query: str) -> Any:  # Any: whatever is selected
        return store.reader.run(lambda connection: connection.execute(query).fetchall())

    segments = [number for (number,) in await rows("SELECT id FROM journal_segment ORDER BY id")]
    last = len(segments)
    assert segments == list(range(1, last + 1))

    found = {
        one: (revision, queue) for one, revision, queue in await rows("SELECT call_sid, revision, queue FROM call")
    }
    assert found.keys() == set().union(*(sids_of(number) for number in segments))
    for number in segments[:-1]:
        assert found[sid(calls_of(number)[-1])] == (2, f"amended by {number + 1}")

    waiting = await rows("SELECT call_sid, outbox.revision FROM outbox JOIN call ON call.id = call_id")
    assert dict(waiting) == {one: revision for one, (revision, _) in found.items()}
    assert await rows("SELECT value FROM counter WHERE name = 'outbox_records'") == [(len(found),)]
    for table in ("task", "interaction"):
        assert await rows(f"SELECT count(*), count(DISTINCT call_id) FROM {table}") == [(len(found), len(found))]
    assert await rows("SELECT call_sid FROM live_call") == ([(f"live:{last}",)] if last else [])
    assert await rows("SELECT count(*), count(to_at) FROM gap") == [(last, last)]
    return last


def _segment(number: int) -> Segment:
    return segment(number, os.urandom(20_000), b"group %d" % number)


async def _commit_from(wishes: argparse.Namespace) -> None:
    async with open_store(wishes.database) as store:
        for pragma, value in (("wal_autocheckpoint", wishes.checkpoint_pages), ("synchronous", wishes.synchronous)):
            await store.connection.run(partial(_set, f"PRAGMA {pragma} = {value}"))
        writer = await Writer.over(store.connection)
        for number in count(wishes.first):
            await writer.commit(group(number))
            print(number, flush=True)


def _set(pragma: str, connection: sqlite3.Connection) -> None:
    connection.execute(pragma)


def _wishes() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("database", type=Path)
    parser.add_argument("first", type=int)
    parser.add_argument("--checkpoint-pages", type=int, default=1000)
    parser.add_argument("--synchronous", choices=("FULL", "OFF"), default="FULL")  # OFF: what must be found out
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(_commit_from(_wishes()))
