"""What is old goes in small steps, and nothing goes that nobody else has."""

import sqlite3
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from agent.store import retention as module
from agent.store.engine import Store
from agent.store.merge import MergeResult, ToldCall, merging
from agent.store.moments import moment_text
from agent.store.outbox import SqliteOutbox
from agent.store.retention import Retention
from agent.store.tally import SqliteTally
from agent.store.writer import FinishedCall, GapClosed, GapOpened, Group, Writer
from config.settings import RetentionRule, RetentionSettings, StoreSettings, TenancySettings
from sync.records import Receipt, RecordReceipt, Verdict
from tests.integration.store.facts import START, call, row, sid

NOW = START + timedelta(days=200)


class Clock:
    """What both clocks tell."""

    def __init__(self) -> None:
        self.now = START
        self.monotonic = 1000.0

    def leap(self, length: timedelta) -> None:
        self.now += length

    def pass_by(self, length: timedelta) -> None:
        self.now += length
        self.monotonic += length.total_seconds()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def writer(store: Store, clock: Clock) -> Writer:
    return await Writer.over(store.connection, now=lambda: clock.now)


def keeping(
    store: Store,
    writer: Writer,
    clock: Clock,
    *,
    newest: datetime | None = None,
    has_centre: bool = True,
    rules: Sequence[RetentionRule] = (),
    **settings: Any,  # Any: the settings' own types
) -> Retention:
    return Retention(
        store,
        writer,
        settings=RetentionSettings(**settings),
        journal_settings=StoreSettings(),
        tenancy=TenancySettings(retention=tuple(rules)),
        has_centre=has_centre,
        newest=newest,
        monotonic=lambda: clock.monotonic,
    )


async def commit(writer: Writer, *calls: FinishedCall) -> None:
    await writer.commit(Group(finished=calls))


async def confirm(outbox: SqliteOutbox, *numbers: int, receipt: int = 1) -> None:
    verdicts = [RecordReceipt(sid(number), 1, Verdict.ACCEPTED) for number in numbers]
    await outbox.settle(Receipt(verdicts, receipt))


async def held(store: Store) -> set[str]:
    found = await store.reader.run(lambda reader: reader.execute("SELECT call_sid FROM call").fetchall())
    return {one for (one,) in found}


async def merged(writer: Writer, *rows: dict[str, Any], **options: bool) -> MergeResult:
    told = [ToldCall.of({**each, "source": "cdr"}, "acme") for each in rows]
    return await writer.transact(merging(told, now=writer.now_text(), **options))


async def test_confirmed_calls_go_at_their_age_and_the_others_stay(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await commit(writer, call(1), call(2), call(3), call(4, tenant=None))
    await outbox.settle(
        Receipt([RecordReceipt(sid(1), 1, Verdict.ACCEPTED), RecordReceipt(sid(2), 1, Verdict.REJECTED, "x", "y")], 1)
    )
    retention = keeping(store, writer, clock)
    clock.pass_by(timedelta(days=89))
    await retention.run_due()
    assert len(await held(store)) == 4

    clock.pass_by(timedelta(days=2))
    await retention.run_due()

    assert await held(store) == {sid(2), sid(3), sid(4)}  # refused, waiting, nobody's


async def test_everything_of_a_call_goes_with_it(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await commit(writer, call(1, interactions=[{"said": "hello"}]))
    await confirm(outbox, 1)
    retention = keeping(store, writer, clock)
    clock.pass_by(timedelta(days=91))

    await retention.run_due()

    assert await _counts(store, ("call", "interaction", "call_receipt")) == [0, 0, 0]


async def test_a_tenant_may_have_days_of_its_own(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await commit(writer, call(1), call(2, tenant="globex"))
    await confirm(outbox, 1, 2)
    retention = keeping(store, writer, clock, rules=[RetentionRule(tenant="globex", calls_days=5)])
    clock.pass_by(timedelta(days=6))

    await retention.run_due()

    assert await held(store) == {sid(1)}


async def test_a_call_that_changed_within_the_last_day_stays(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await commit(writer, call(1, start_time=START - timedelta(days=900)))  # imported
    await confirm(outbox, 1)
    retention = keeping(store, writer, clock)
    clock.pass_by(timedelta(hours=23))
    await retention.run_due()
    assert await held(store) == {sid(1)}

    clock.pass_by(timedelta(hours=2))
    await retention.run_due()

    assert await held(store) == set()


@pytest.mark.parametrize(("days", "left"), [(None, {1, 2}), (30, set())])
async def test_without_a_centre_calls_go_only_if_the_settings_say_so(
    store: Store, writer: Writer, clock: Clock, days: int | None, left: set[int]
) -> None:
    await commit(writer, call(1), call(2, tenant=None))
    retention = keeping(store, writer, clock, has_centre=False, calls_days_without_centre=days)
    clock.pass_by(timedelta(days=400))

    await retention.run_due()

    assert await held(store) == {sid(number) for number in left}


async def test_dropping_history_takes_the_oldest_confirmed_calls_until_it_is_enough(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await commit(writer, *(call(number) for number in range(100)))
    await confirm(outbox, *range(10, 100))
    retention = keeping(store, writer, clock)
    clock.pass_by(timedelta(days=2))

    deleted = await retention.drop_synced_calls(_after(3))

    left = await held(store)
    assert deleted == 100 - len(left) > 0
    assert {sid(number) for number in range(10)} <= left
    assert sid(99) in left


def _after(looks: int) -> Callable[[], bool]:
    answers = iter([False] * looks)

    def is_enough() -> bool:
        return next(answers, True)

    return is_enough


async def test_a_bound_on_megabytes_makes_confirmed_calls_go_earlier(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await commit(writer, *(call(number) for number in range(50)))
    await confirm(outbox, *range(40))
    retention = keeping(store, writer, clock, calls_max_megabytes=64)
    clock.pass_by(timedelta(days=2))
    await retention.run_due()
    assert len(await held(store)) == 50

    monkeypatch.setattr(module, "_room_of_calls", lambda _: 65 * 2**20)
    await retention.run_due()

    assert await held(store) == {sid(number) for number in range(40, 50)}


# A clock that is wrong


async def test_a_clock_that_leaps_deletes_nothing_for_a_day(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    await commit(writer, call(1))
    await confirm(outbox, 1)
    retention = keeping(store, writer, clock, newest=clock.now)
    clock.leap(timedelta(days=3650))

    await retention.run_due()
    await retention.run_due()
    assert await held(store) == {sid(1)}
    assert sum("the clock leapt" in record.message for record in caplog.records) == 1

    clock.pass_by(timedelta(hours=25))
    await retention.run_due()

    assert await held(store) == set()


async def test_a_machine_that_starts_years_ahead_deletes_nothing_at_once(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await commit(writer, call(1))
    await confirm(outbox, 1)
    newest = clock.now
    clock.leap(timedelta(days=3650))
    retention = keeping(store, writer, clock, newest=newest)

    await retention.run_due()

    assert await held(store) == {sid(1)}


# Deleted calls stay away


async def test_a_source_that_is_read_again_does_not_bring_a_deleted_call_back(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await _deleted(store, writer, outbox, clock)

    result = await merged(writer, row(1), row(10))

    assert (result.gone, result.new) == (1, 1)  # the second began after all that were deleted
    assert (await merged(writer, row(1), again=True)).new == 1


async def test_another_tenant_s_calls_of_that_time_are_taken(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await _deleted(store, writer, outbox, clock)

    told = ToldCall.of({**row(1), "source": "cdr"}, "globex")

    assert (await writer.transact(merging([told], now=writer.now_text()))).new == 1


async def test_calls_of_a_gap_that_is_not_filled_are_taken_whatever_their_time(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    gap = GapOpened("main", START, "line_lost"), GapClosed("main", START + timedelta(minutes=10))
    await writer.commit(Group(gaps=gap))
    await _deleted(store, writer, outbox, clock)

    assert (await merged(writer, row(1))).new == 1


async def test_reconciliation_leaves_out_the_days_of_which_calls_were_deleted(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    tally = SqliteTally(store.path)
    assert await tally.kept_since() == {}

    await _deleted(store, writer, outbox, clock)

    assert await tally.kept_since() == {"acme": date(2026, 11, 23)}


async def test_it_is_known_whether_a_restored_centre_lacks_what_was_deleted(
    store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock
) -> None:
    await _deleted(store, writer, outbox, clock)  # confirmed by the first receipt

    assert await outbox.deleted_after(receipt=0) == START + timedelta(seconds=5)
    assert await outbox.deleted_after(receipt=1) is None


async def _deleted(store: Store, writer: Writer, outbox: SqliteOutbox, clock: Clock) -> None:
    await commit(writer, *(call(number) for number in range(1, 6)))
    await confirm(outbox, *range(1, 6))
    retention = keeping(store, writer, clock)
    clock.pass_by(timedelta(days=91))
    await retention.run_due()
    assert await held(store) == set()


# What else is kept of past days


async def test_past_days_are_forgotten_at_their_age(store: Store, writer: Writer, clock: Clock) -> None:
    gap = GapOpened("main", START, "line_lost"), GapClosed("main", START + timedelta(minutes=10))
    await writer.commit(Group(gaps=gap))
    await writer.transact(_past)
    retention = keeping(store, writer, clock, erasures_days=365)
    tables = ("gap", "coverage", "source_reject", "dropped_call", "part_of_call", "erasure", "erased_call")
    assert await _counts(store, tables) == [1] * 7

    clock.pass_by(timedelta(days=399))
    await retention.run_due()
    assert await _counts(store, tables) == [1, 1, 0, 1, 1, 0, 0]
    clock.pass_by(timedelta(days=2))
    await retention.run_due()

    assert await _counts(store, tables) == [0] * 7


def _past(connection: sqlite3.Connection) -> None:
    at = moment_text(START)
    connection.execute("INSERT INTO coverage VALUES ('main', '2026-11-22', 'cdr', 1, 1, 0, 0, 0, 0, NULL, ?)", (at,))
    connection.execute(
        "INSERT INTO source_reject (pbx, source, position, raw, reason, at) VALUES ('main', 'cdr', 'x', x'', 'y', ?)",
        (at,),
    )
    connection.execute("INSERT INTO dropped_call VALUES ('a:b:c', 'acme', 1, 'x', 'y', ?, 'root', ?)", (at, at))
    connection.execute("INSERT INTO part_of_call VALUES ('a:b:d', 'a:b:c', ?)", (at,))
    connection.execute(
        'INSERT INTO erasure (at, "by", salt, hashes, calls, mentions, frames, ended_at) '
        "VALUES (?, 'root', x'', '[]', 1, 0, 0, ?)",
        (at, at),
    )
    connection.execute("INSERT INTO erased_call VALUES ('a:b:c', 1)")


async def _counts(store: Store, tables: Sequence[str]) -> list[int]:
    def count(reader: sqlite3.Connection) -> list[int]:
        return [reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables]

    return await store.reader.run(count)


async def test_the_search_for_old_calls_goes_by_an_index(store: Store) -> None:
    for tenant_id in (None, 0, 1):
        wanted = module._Wanted(tenant_id, "9999-12-31", "9999-12-31")
        values = dict.fromkeys(("tenant_id", "start", "id", "before", "unchanged", "limit"), 1)

        plan = await store.reader.run(partial(_plan, module.look_query(wanted), values))
        assert "SEARCH call USING INDEX ix_call" in plan
        assert "TEMP B-TREE" not in plan
        assert "SCAN" not in plan


def _plan(query: str, values: dict[str, int], reader: sqlite3.Connection) -> str:
    return "; ".join(step[3] for step in reader.execute(f"EXPLAIN QUERY PLAN {query}", values))
