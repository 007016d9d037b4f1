"""When the room for local data is used up: what may be given up goes in its order, what was not sent never."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from agent.disk import DiskWatch
from agent.errors import StoreUnavailable
from agent.store.backfill import BackfillWriter
from agent.store.engine import Store
from agent.store.files import reserve_file
from agent.store.outbox import SqliteOutbox
from agent.store.reserve import Reserve
from agent.store.retention import Retention
from agent.store.room import Level
from agent.store.writer import Group, Writer
from config.settings import OnFull, RetentionSettings, StoreSettings, TenancySettings
from sync.records import Receipt, RecordReceipt, Verdict
from tests.integration.store.facts import LATER, call, sid

CALLS = 300
Watching = Callable[..., DiskWatch]


@pytest.fixture
async def later_writer(store: Store) -> Writer:
    """Everything below was written two days before."""
    return await Writer.over(store.connection, now=lambda: LATER + timedelta(days=2))


@pytest.fixture
def retention(store: Store, later_writer: Writer) -> Retention:
    return Retention(
        store,
        later_writer,
        settings=RetentionSettings(),
        journal_settings=StoreSettings(),
        tenancy=TenancySettings(),
        has_centre=True,
        newest=None,
    )


@pytest.fixture
def watching(store: Store) -> Watching:
    def make(*on_full: OnFull, megabytes: int = 1) -> DiskWatch:
        wishes = {"budget_megabytes": megabytes, "on_full": on_full}
        return DiskWatch(
            store,
            reserve=Reserve(store.path, megabytes=0),
            spilled=lambda: 0,
            settings=StoreSettings().model_copy(update=wishes),
            now=lambda: LATER,
        )

    return make


async def fill(writer: Writer, outbox: SqliteOutbox) -> None:
    """Some megabytes of calls; every other one is confirmed."""
    legs = [{"channel": f"PJSIP/{number}", "words": "x" * 500} for number in range(20)]
    await writer.commit(Group(finished=[call(number, legs=legs) for number in range(CALLS)]))
    await writer.cut_log()
    accepted = [RecordReceipt(sid(number), 1, Verdict.ACCEPTED) for number in range(0, CALLS, 2)]
    await outbox.settle(Receipt(accepted, 1))


async def held(store: Store) -> set[str]:
    found = await store.reader.run(lambda reader: reader.execute("SELECT call_sid FROM call").fetchall())
    return {one for (one,) in found}


async def test_calls_that_the_centre_has_make_room_and_those_that_wait_stay(
    store: Store, writer: Writer, outbox: SqliteOutbox, retention: Retention, watching: Watching
) -> None:
    await fill(writer, outbox)
    disk = watching(OnFull.STOP_BACKFILL, OnFull.DROP_SYNCED_HISTORY)
    size = store.path.stat().st_size

    await disk.look(retention)

    assert disk.state.calls_dropped > 0
    assert disk.is_backfill_stopped()
    assert {sid(number) for number in range(1, CALLS, 2)} <= await held(store)
    await writer.cut_log()
    assert store.path.stat().st_size < size


async def test_only_what_the_settings_name_is_done(
    store: Store, writer: Writer, outbox: SqliteOutbox, retention: Retention, watching: Watching
) -> None:
    await fill(writer, outbox)
    disk = watching(OnFull.STOP_BACKFILL)
    await disk.look(retention)
    assert (disk.state.level, disk.state.calls_dropped, disk.state.segments_dropped) == (Level.FULL, 0, 0)
    assert len(await held(store)) == CALLS


async def test_no_more_goes_than_is_needed(
    store: Store, writer: Writer, outbox: SqliteOutbox, retention: Retention, watching: Watching
) -> None:
    await fill(writer, outbox)
    used = store.path.stat().st_size
    disk = watching(OnFull.DROP_SYNCED_HISTORY, megabytes=max(1, used >> 20))
    await disk.look(retention)
    assert 0 < disk.state.calls_dropped < CALLS / 2


async def test_what_past_records_tell_waits_and_goes_on_when_there_is_room(
    store: Store, writer: Writer, outbox: SqliteOutbox, retention: Retention, watching: Watching
) -> None:
    await fill(writer, outbox)
    disk = watching(OnFull.STOP_BACKFILL)
    backfill = BackfillWriter(store.connection, is_stopped=disk.is_backfill_stopped)
    assert await backfill.transact(lambda connection: 1) == 1
    await disk.look(retention)
    with pytest.raises(StoreUnavailable, match="waits"):
        await backfill.transact(lambda connection: 1)

    await watching(OnFull.DROP_SYNCED_HISTORY).look(retention)
    roomy = watching(OnFull.STOP_BACKFILL, megabytes=100)
    roomy.state.backfill_stopped = True
    await roomy.look(retention)

    assert not roomy.is_backfill_stopped()


async def test_the_forecast_is_told_once_calls_come(
    writer: Writer, outbox: SqliteOutbox, retention: Retention, watching: Watching
) -> None:
    disk = watching(megabytes=100)
    await disk.look(retention)
    assert disk.state.days_left is None
    await fill(writer, outbox)
    again = watching(megabytes=1000)
    await again.look(retention)
    assert again.state.days_left is not None
    assert again.state.days_left > 0


def test_the_reserve_really_takes_its_room_and_is_given_up_when_nothing_else_is_left(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "edge.db", megabytes=4)
    reserve.make()
    file = reserve_file(tmp_path / "edge.db")
    assert file.stat().st_blocks * 512 >= 4 << 20
    assert not reserve.release_if_full()
    assert reserve.size == 4 << 20
    Reserve(tmp_path / "edge.db", megabytes=2).make()
    assert file.stat().st_size == 2 << 20
    Reserve(tmp_path / "edge.db", megabytes=0).make()
    assert not file.exists()
