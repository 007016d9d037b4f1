"""A queue log that is followed beside a real database, and calls that others told, or nobody."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.rules import CallRules
from agent.sources.gathering import Gatherer
from agent.sources.queue_log_gatherer import QueueLogGatherer
from agent.sources.source import Source
from agent.sources.tail import FilePlace, Tail
from agent.store.engine import open_store
from agent.store.writer import Group, LiveAnchor, Writer
from config.settings import SourceKind
from tests.integration.sources.world import MINUTE, NINE, SETTLE, World, heard

LONG_ENOUGH = 30  # pauses of a second, so that others had time to tell


@dataclass
class QueueWorld(World):
    """A queue log instead."""

    kind: SourceKind = SourceKind.QUEUE_LOG

    def opened(self, told: dict[str, Any] | None, since: object) -> Source:  # Any: JSON
        place = FilePlace.from_json(told) if told is not None else None
        return Tail(self.file, place, quotes=False, monotonic=lambda: self.seconds)

    def _gatherer(self) -> Gatherer:
        return QueueLogGatherer(
            site="s", pbx="main", rules=CallRules, tenant_of=lambda _: "acme", encoding="cp1254", settle_seconds=SETTLE,
            clock=lambda: self.seconds,
        )  # fmt: skip

    async def told(self) -> list[tuple[Any, ...]]:
        """Id, source, and what the queue log tells."""
        columns = "source, queue, queue_position, queue_wait_seconds, disposition"
        return await self.rows(f"SELECT substr(call_sid, 19), {columns} FROM call ORDER BY id")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[QueueWorld]:
    async with open_store(tmp_path / "edge.db") as store:
        yield QueueWorld(tmp_path / "queue_log", store, await Writer.over(store.connection))


def visit(number: int, *, caller: str = "101", channel: str | None = None) -> str:
    """Call `number` waits 7 s in a queue, a second after it began, and gives up."""
    entered = int((NINE + number * MINUTE).timestamp()) + 1
    name = channel or f"1795340000.{number}"
    return f"{entered}|{name}|sales|NONE|ENTERQUEUE||{caller}|2\n{entered + 7}|{name}|sales|NONE|ABANDON|1|2|7\n"


async def test_a_call_of_which_nobody_else_tells_is_told_by_the_queue_log_alone(world: QueueWorld) -> None:
    world.append(visit(1), visit(5))
    await world.writer.commit(Group(finished=[heard(0)]))
    await world.blind(NINE + timedelta(seconds=50), NINE + 3 * MINUTE)
    follower = await world.run(pauses=LONG_ENOUGH)
    assert (await world.told())[1:] == [("1", "queue_log", "sales", 2, 7.0, "cancelled")]
    assert (follower.status.found, follower.status.waiting) == (1, 0)


async def test_it_fills_no_gap_because_not_every_call_is_in_a_queue(world: QueueWorld) -> None:
    world.append(visit(1), visit(8))
    await world.blind(NINE + timedelta(seconds=50), NINE + 3 * MINUTE)
    await world.run(pauses=LONG_ENOUGH)
    assert await world.rows("SELECT filled_by, calls_found FROM gap") == [(None, 1)]


async def test_what_was_heard_under_another_name_is_told_by_nobody_again(world: QueueWorld) -> None:
    world.history_days = 1
    world.append(visit(2, channel="1795340000.77"))
    await world.writer.commit(Group(finished=[heard(1)]))
    follower = await world.run(pauses=LONG_ENOUGH)
    assert await world.calls() == [("1", "ami", 1)]
    assert follower.status.confirmed == 1


async def test_a_call_that_was_heard_wholly_stays_as_it_is(world: QueueWorld) -> None:
    world.history_days = 1
    world.append(visit(1))
    queue = {"queue": "sales", "queue_position": 2, "queue_wait_seconds": 7.25}
    await world.writer.commit(Group(finished=[heard(1, **queue)]))
    await world.run(pauses=LONG_ENOUGH)
    assert await world.calls() == [("1", "ami", 1)]


async def test_a_channel_that_is_a_leg_of_a_call_is_of_that_call(world: QueueWorld) -> None:
    world.append(visit(1, channel="1795340000.99"))
    legs = [{"channel": "1795340000.1", "caller": True}, {"channel": "1795340000.99"}]
    await world.writer.commit(Group(finished=[heard(1, legs=legs)]))
    await world.blind(NINE + timedelta(seconds=50), NINE + 3 * MINUTE)
    await world.run(pauses=LONG_ENOUGH)
    assert [(sid, queue) for sid, _, queue, *_ in await world.told()] == [("1", "sales")]


async def test_the_same_caller_in_the_same_queue_at_that_time_is_the_same_call(world: QueueWorld) -> None:
    world.append(visit(1, channel="1795340000.99"))
    await world.writer.commit(Group(finished=[heard(1, source="cdr", queue="sales")]))
    await world.blind(NINE + timedelta(seconds=50), NINE + 3 * MINUTE)
    await world.run(pauses=LONG_ENOUGH)
    assert [sid for sid, *_ in await world.told()] == ["1"]


async def test_while_a_call_of_that_time_goes_on_nothing_is_told_beside_it(world: QueueWorld) -> None:
    world.append(visit(1, channel="1795340000.99"))
    await world.blind(NINE + timedelta(seconds=50), NINE + 3 * MINUTE)
    await world.writer.commit(Group(opened=[LiveAnchor("s:main:1795340000.1", "main", 1, NINE + MINUTE)]))
    follower = await world.run(pauses=LONG_ENOUGH)
    assert (await world.calls(), follower.status.waiting) == ([], 1)


async def test_a_call_that_may_go_on_is_not_told_before_the_pbx_is_heard_again(world: QueueWorld) -> None:
    world.append(visit(1).replace("ABANDON", "EXITWITHTIMEOUT"))
    await world.blind(NINE + timedelta(seconds=50), None)
    follower = await world.run(pauses=LONG_ENOUGH)
    assert (await world.calls(), follower.status.waiting) == ([], 1)


@pytest.mark.parametrize("pauses", [1, 5, 16, 20])
async def test_a_crash_and_a_rotation_lose_and_double_nothing(world: QueueWorld, pauses: int) -> None:
    first, second = visit(1).splitlines(keepends=True)
    world.append(first)
    await world.blind(NINE, None)
    await world.run(pauses=pauses)
    world.append(second)
    world.file.rename(world.file.with_name("queue_log.1"))
    world.append(visit(2))
    await world.run(pauses=LONG_ENOUGH)
    await world.run(pauses=LONG_ENOUGH)
    assert [told[:5] for told in await world.told()] == [
        ("1", "queue_log", "sales", 2, 7.0),
        ("2", "queue_log", "sales", 2, 7.0),
    ]


async def test_what_is_no_line_of_a_queue_log_is_set_aside_with_its_position(world: QueueWorld) -> None:
    world.append("hello\n", visit(1), "1795340000|NONE|NONE|NONE|CONFIGRELOAD|\n")
    follower = await world.run(pauses=LONG_ENOUGH)
    ((position, reason),) = await world.rows("SELECT position, reason FROM source_reject")
    assert position.startswith("byte 0 ")
    assert reason.startswith("it has less than 5 parts")
    assert (follower.status.records, follower.status.rejects) == (4, 1)
