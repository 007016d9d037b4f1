"""A source that is followed beside a real database: what comes of its records, whatever stops the reader."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.calls.rules import CallRules
from agent.errors import StoreUnavailable
from agent.pbx.asterisk import cdr_calls
from agent.sources import keeping
from agent.sources.cdr_gatherer import CdrGatherer
from agent.sources.gathering import Mark
from agent.sources.source import Content
from agent.store.engine import open_store
from agent.store.writer import Group, LiveAnchor, Writer
from config.settings import SourceKind
from tests.integration.sources.cdr_lines import cdr
from tests.integration.sources.world import MINUTE, NINE, World, heard
from tests.pbx.record import WIRE


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_store(tmp_path / "edge.db") as store:
        yield World(tmp_path / "Master.csv", store, await Writer.over(store.connection))


def line(number: int, **more: Any) -> str:  # Any: of cdr
    return cdr(number, after=number * MINUTE, **more)


async def test_what_nobody_heard_is_found_and_its_gap_is_filled(world: World) -> None:
    world.append(line(0), line(1), line(2), line(8))
    await world.blind(NINE + timedelta(seconds=50), NINE + 3 * MINUTE)
    follower = await world.run()
    # Those before and after the gap ended before the source was first read.
    assert await world.calls() == [("1", "cdr", 1), ("2", "cdr", 1)]
    assert await world.rows("SELECT filled_by, calls_found FROM gap") == [("cdr-csv", 2)]
    assert (follower.status.found, follower.status.waiting) == (2, 0)


async def test_a_call_that_comes_later_is_found_though_no_gap_is_known(world: World) -> None:
    world.append(line(0))
    world.steps = [lambda: world.append(line(11))]
    await world.run()
    assert await world.calls() == [("11", "cdr", 1)]


async def test_history_is_taken_over_if_it_is_wanted(world: World) -> None:
    world.append(line(0), line(1))
    world.history_days = 1
    await world.run()
    assert len(await world.calls()) == 2


async def test_a_call_that_was_heard_wholly_is_only_confirmed(world: World) -> None:
    await world.writer.commit(Group(finished=[heard(11)]))
    world.append(line(11))
    follower = await world.run()
    assert [call[2] for call in await world.calls()] == [1]
    assert (follower.status.found, follower.status.confirmed) == (0, 1)


async def test_a_call_that_goes_on_is_told_when_it_has_ended(world: World) -> None:
    await world.blind(NINE + 10 * MINUTE, NINE + 11 * MINUTE)
    await world.writer.commit(Group(opened=[LiveAnchor("s:main:1795340000.11", "main", 1, NINE + 11 * MINUTE)]))
    world.append(line(0), line(11), line(14))
    world.seconds = 3 * 60
    follower = await world.run(pauses=20)
    assert [call[0] for call in await world.calls()] == ["14"]
    assert follower.status.waiting == 1
    assert await world.rows("SELECT backfilled_at FROM gap") == [(None,)]
    ended = heard(11, start_estimated=True, caller_name=None)
    await world.writer.commit(Group(finished=[ended]))
    await world.run()
    assert await world.calls() == [("14", "cdr", 1), ("11", "ami+cdr", 2)]
    assert await world.rows("SELECT DISTINCT caller_name FROM call") == [("Ayşe",)]
    assert await world.rows("SELECT filled_by, calls_found FROM gap") == [("cdr-csv", 1)]


@pytest.mark.parametrize("pauses", range(12))
async def test_a_crash_at_any_time_loses_and_doubles_nothing(world: World, pauses: int) -> None:
    world.append(line(11))
    world.steps = [
        lambda: world.append(line(12)[:30]),
        lambda: world.append(line(12)[30:], line(13)),
        lambda: world.file.rename(world.file.with_name("Master.csv.1")) and None,
        lambda: world.append(line(14, linked="1795340000.13")),
    ]
    for _ in range(6):
        await world.run(pauses=pauses)
    await world.run(pauses=30)
    assert sorted(call[0] for call in await world.calls()) == ["11", "12", "13"]
    assert await world.rows("SELECT records, rejects FROM source_place") == [(4, 0)]


async def test_lines_that_are_no_cdr_are_set_aside_with_their_position(world: World) -> None:
    world.append("nonsense\n", line(11))
    world.append("more nonsense\n")
    follower = await world.run()
    found = await world.rows("SELECT raw, reason, position FROM source_reject ORDER BY id")
    assert [raw for raw, _, _ in found] == [b"nonsense", b"more nonsense"]
    assert found[0][1] == "its 1 columns are not those of a CDR"
    assert found[0][2].startswith("byte 0 (inode ")
    assert found[0][2].endswith(f" of {world.file}")
    assert follower.status.rejects == 2
    await world.run()
    assert len(await world.rows("SELECT 1 FROM source_reject")) == 2
    assert [call[0] for call in await world.calls()] == ["11"]


async def test_cdrs_without_an_id_are_set_aside_because_they_would_double_what_was_heard(world: World) -> None:
    world.append(",".join(line(11).strip().split(",")[:16]) + "\n")
    await world.run()
    assert await world.calls() == []
    [(reason,)] = await world.rows("SELECT reason FROM source_reject")
    assert "write loguniqueid = yes" in reason


async def test_a_gap_before_the_file_begins_is_not_filled_by_it(world: World) -> None:
    world.append(line(5))
    await world.blind(NINE + MINUTE, NINE + 2 * MINUTE)
    await world.run()
    assert await world.rows("SELECT backfilled_at FROM gap") == [(None,)]


async def test_a_gap_during_which_the_file_was_lost_is_not_filled(world: World) -> None:
    world.append(line(0), line(11))
    await world.run()
    world.file.unlink()
    world.append(line(15))
    await world.blind(NINE + 12 * MINUTE, NINE + 13 * MINUTE)
    world.seconds = 600
    follower = await world.run()
    assert await world.rows("SELECT backfilled_at FROM gap") == [(None,)]
    assert "is not the file that was read before" in follower.status.warnings["loss"]


async def test_a_gap_is_not_filled_before_the_source_told_something_behind_it_and_settled(world: World) -> None:
    world.append(line(0))
    await world.blind(NINE + MINUTE, NINE + 10 * MINUTE)
    await world.run(pauses=30)  # the PBX may have ceased to write
    assert await world.rows("SELECT backfilled_at FROM gap") == [(None,)]
    world.append(line(11))
    await world.run(pauses=4)
    assert await world.rows("SELECT backfilled_at FROM gap") == [(None,)]
    await world.run(pauses=20)
    assert await world.rows("SELECT filled_by FROM gap") == [("cdr-csv",)]


async def test_what_it_was_told_last_outlives_a_restart(world: World) -> None:
    world.append(line(0), line(12))
    await world.run()
    await world.blind(NINE + MINUTE, NINE + 10 * MINUTE)
    await world.run()
    assert await world.rows("SELECT filled_by FROM gap") == [("cdr-csv",)]


async def test_a_line_that_meets_a_bug_is_set_aside_and_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = CdrGatherer.take

    def take(self: CdrGatherer, data: Content, mark: Mark) -> str | None:
        if isinstance(data, bytes) and b"poison" in data:
            raise ZeroDivisionError
        return real(self, data, mark)

    monkeypatch.setattr(CdrGatherer, "take", take)
    world.append("poison\n", line(11))
    await world.run()
    assert [call[0] for call in await world.calls()] == ["11"]
    assert await world.rows("SELECT raw FROM source_reject") == [(b"poison",)]
    assert "please report this" in caplog.text


async def test_cdrs_that_meet_a_bug_are_left_out_and_stop_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = cdr_calls.call_of

    def call_of(rows: Any, *, native_id: str, **more: Any) -> Any:  # Any: of call_of
        if native_id.endswith(".11"):
            raise ZeroDivisionError
        return real(rows, native_id=native_id, **more)

    monkeypatch.setattr("agent.sources.cdr_gatherer.call_of", call_of)
    world.append(line(11), line(12))
    await world.run()
    assert [call[0] for call in await world.calls()] == ["12"]


async def test_while_the_database_is_away_it_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    real = world.writer.transact
    refusals = 3

    async def refuse(work: Any) -> Any:  # Any: of transact
        nonlocal refusals
        refusals -= 1
        if refusals >= 0:
            raise StoreUnavailable("disk full")
        return await real(work)

    monkeypatch.setattr(world.writer, "transact", refuse)
    world.append(line(11))
    await world.run()
    assert [call[0] for call in await world.calls()] == ["11"]


async def test_a_source_that_cannot_be_read_says_so_until_it_can(world: World) -> None:
    follower = await world.run(pauses=2)
    assert "does not exist" in str(follower.status.trouble)
    world.append(line(11))
    follower = await world.run()
    assert follower.status.trouble is None


async def test_a_place_that_a_first_version_kept_is_gone_on_from(world: World) -> None:
    world.append(line(11))
    await world.run()
    await world.writer.transact(lambda connection: connection.execute(
        "UPDATE source_place SET place = json_remove(json_set(place, '$.tail', json_extract(place, '$.at')), '$.at')"
    ))  # fmt: skip
    world.append(line(12))
    await world.run()
    assert [call[0] for call in await world.calls()] == ["11", "12"]
    assert await world.rows("SELECT records FROM source_place") == [(2,)]


@pytest.mark.parametrize("is_reloaded", [False, True])
async def test_new_trunk_rules_hold_for_calls_of_cel_that_end_after_a_reload(world: World, is_reloaded: bool) -> None:
    world.kind, world.history_days = SourceKind.CEL_CSV, 36_500
    world.rules = CallRules(trunks=("none",), inbound_contexts=("none",))
    text = (WIRE / "group_answered.cel.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    world.append(*text[:20])

    def reload() -> None:
        if is_reloaded:
            world.rules = CallRules()
        world.append(*text[20:])

    world.steps = [reload]
    await world.run()
    ((direction,),) = await world.rows("SELECT direction FROM call")
    assert (direction == "inbound") is is_reloaded


async def test_cel_tells_a_missed_call_as_exactly_as_the_live_feed(world: World) -> None:
    world.kind, world.history_days = SourceKind.CEL_CSV, 36_500
    text = (WIRE / "group_answered.cel.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    world.steps = [partial(world.append, *text[:20]), partial(world.append, *text[20:])]
    for _ in range(5):
        await world.run(pauses=3)
    await world.run()
    query = "SELECT call_sid, source, revision, answered_by, disposition FROM call"
    assert await world.rows(query) == [("s:main:1795366591.39", "cel", 1, "102", "answered")]


async def test_calls_that_take_long_to_keep_are_kept_in_several_transactions(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "_WRITE_SECONDS", 0.0)
    transactions = 0

    def count(statement: str) -> None:
        nonlocal transactions
        transactions += statement.startswith("INSERT INTO source_place")

    await world.store.connection.run(lambda connection: connection.set_trace_callback(count))
    world.history_days = 1
    world.append(*(line(number) for number in range(6)))
    await world.run()
    assert [sid for sid, _, _ in await world.calls()] == [str(number) for number in range(6)]
    assert transactions >= 6


async def test_a_record_of_a_clock_that_was_wrong_fills_no_later_gap(world: World) -> None:
    world.append(line(1), cdr(2, after=timedelta(days=4000)))
    await world.run()
    begin = world.now() + MINUTE
    await world.blind(begin, begin + MINUTE)
    world.seconds += 300.0
    await world.run()
    assert await world.rows("SELECT filled_by FROM gap") == [(None,)]  # nothing tells that the PBX still writes
    world.append(line(16))
    await world.run()
    assert await world.rows("SELECT filled_by FROM gap") == [("cdr-csv",)]


@pytest.mark.parametrize("heard_before", [True, False])
async def test_a_gap_whose_records_were_set_aside_is_not_filled(world: World, heard_before: bool) -> None:
    world.append(*([line(0)] if heard_before else []))
    await world.run()
    await world.blind(world.now() + MINUTE, world.now() + 2 * MINUTE)
    world.seconds += 300.0
    number = round(world.seconds / 60) + 8  # a minute that is over
    world.append(*(line(number).replace(f"1795340000.{number}", "") for _ in range(2)))  # loguniqueid = no
    await world.run()
    world.append(line(number + 2))
    await world.run()
    assert await world.rows("SELECT filled_by FROM gap") == [(None,)]


async def test_others_have_their_turn_while_many_calls_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    real = cdr_calls.call_of

    def counted(*told: Any, **more: Any) -> Any:  # Any: those of call_of
        nonlocal made
        made += 1
        return real(*told, **more)

    async def watch() -> int:
        most = before = 0
        while True:
            await asyncio.sleep(0)
            most, before = max(most, made - before), made
            if made == 500:
                return most

    monkeypatch.setattr("agent.sources.cdr_gatherer.call_of", counted)
    world.append(*(line(number % 9, seconds=1).replace(f'.{number % 9}"', f'.{number}"') for number in range(500)))
    watching = asyncio.create_task(watch())
    await world.run()
    assert await watching <= 20
