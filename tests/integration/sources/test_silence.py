"""A source that nothing writes any more, beside a live feed that hears calls."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.sources.silence import ASKED_EVERY_SECONDS
from agent.store.engine import open_store
from agent.store.writer import Group, Writer
from config.settings import SourceKind
from tests.integration.sources.cdr_lines import cdr
from tests.integration.sources.world import MINUTE, World, heard

A_WHILE = int(ASKED_EVERY_SECONDS) + 5


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_store(tmp_path / "edge.db") as store:
        yield World(tmp_path / "Master.csv", store, await Writer.over(store.connection))


async def calls_are_heard(world: World, numbers: range, **changes: str) -> None:
    await world.writer.commit(Group(finished=[heard(number, **changes) for number in numbers]))


async def test_calls_that_are_heard_and_not_told_are_noticed_until_one_is_told(world: World) -> None:
    world.history_days = 1
    world.append(cdr(0))
    await calls_are_heard(world, range(1, 6))
    follower = await world.run(pauses=A_WHILE)
    (told,) = follower.status.warnings.values()
    assert "none of 5 answered calls" in told
    assert "cdr show status" in told
    world.steps = [lambda: world.append(cdr(7, after=7 * MINUTE))]
    follower = await world.run(pauses=A_WHILE)
    assert follower.status.warnings == {}


async def test_a_source_that_never_told_anything_is_noticed(world: World) -> None:
    world.history_days = 1
    await calls_are_heard(world, range(1, 6))
    follower = await world.run(pauses=A_WHILE)
    assert "silence" in follower.status.warnings


@pytest.mark.parametrize("disposition", ["no_answer", "cancelled"])
async def test_calls_that_reached_nobody_are_no_sign(world: World, disposition: str) -> None:
    world.history_days = 1
    world.append(cdr(0))
    await calls_are_heard(world, range(1, 8), disposition=disposition)
    follower = await world.run(pauses=A_WHILE)
    assert follower.status.warnings == {}


async def test_few_calls_and_calls_that_have_just_ended_are_no_sign(world: World) -> None:
    world.history_days = 1
    world.append(cdr(0))
    await calls_are_heard(world, range(1, 5))
    await calls_are_heard(world, range(10, 20))
    follower = await world.run(pauses=A_WHILE)
    assert follower.status.warnings == {}


async def test_cel_falls_silent_too(world: World) -> None:
    world.kind, world.history_days = SourceKind.CEL_CSV, 1
    await calls_are_heard(world, range(1, 6))
    follower = await world.run(pauses=A_WHILE)
    assert "silence" in follower.status.warnings
