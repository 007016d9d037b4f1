"""Commits numbered groups until it is killed, telling each one's number once it is durable.

python -m tests.crash.store_groups DATABASE FIRST
"""

import asyncio
import os
import sys
from datetime import timedelta
from itertools import count
from pathlib import Path

from agent.store.engine import open_store
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


def _segment(number: int) -> Segment:
    return segment(number, os.urandom(20_000), b"group %d" % number)


async def _commit_from(database: Path, first: int) -> None:
    async with open_store(database) as store:
        writer = await Writer.over(store.connection)
        for number in count(first):
            await writer.commit(group(number))
            print(number, flush=True)


if __name__ == "__main__":
    asyncio.run(_commit_from(Path(sys.argv[1]), int(sys.argv[2])))
