"""The syncer and the direct uplink together, with a centre that goes away and comes back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from sync.backoff import Backoff
from sync.central.uplink import DirectUplink
from sync.syncer import Syncer, SyncState
from tests.fakes_sync import IDENTITY, MemoryOutbox, a_record
from tests.postgres import PostgresDatabase


@pytest.fixture
def outbox() -> MemoryOutbox:
    return MemoryOutbox()


@pytest.fixture
async def syncer(outbox: MemoryOutbox, central_database: PostgresDatabase) -> AsyncIterator[Syncer]:
    """One that runs."""
    await central_database.add_site("istanbul", "acme")
    settings = central_database.settings(batch_records=100, timeout_seconds=1)
    uplink = DirectUplink(settings, site="istanbul", agent_version="1.2.3")
    backoff = Backoff(maximum=0.1, initial=0.05, stable_seconds=0)
    syncer = Syncer(outbox, uplink, settings, identity=IDENTITY, backoff=backoff)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(syncer.run())
        yield syncer
        task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the things waited for have no event
            await asyncio.sleep(0.005)


async def assert_each_stands_once(database: PostgresDatabase, count: int) -> None:
    rows = await database.fetch("SELECT call_sid FROM call ORDER BY id")
    assert sorted(row["call_sid"] for row in rows) == sorted(a_record(number).call_sid for number in range(count))


async def test_calls_that_end_during_an_outage_arrive_after_it(
    syncer: Syncer, outbox: MemoryOutbox, central_database: PostgresDatabase
) -> None:
    for number in range(300):
        if number == 100:
            await until(lambda: not outbox.waiting)
            central_database.server.stop_hard()
        if number == 200:
            await until(lambda: syncer.status.state is SyncState.WAITING)
            central_database.server.start()
        outbox.add(a_record(number))
        syncer.wake()
        await asyncio.sleep(0)
    await until(lambda: not outbox.waiting)

    await assert_each_stands_once(central_database, 300)
    assert outbox.quarantined == {}
    assert syncer.status.last_error is None


async def test_a_centre_that_hangs_is_survived(
    syncer: Syncer, outbox: MemoryOutbox, central_database: PostgresDatabase
) -> None:
    central_database.server.freeze()
    for number in range(250):
        outbox.add(a_record(number))
    syncer.wake()
    await until(lambda: syncer.status.state is SyncState.WAITING)
    central_database.server.thaw()
    await until(lambda: not outbox.waiting)

    await assert_each_stands_once(central_database, 250)


async def test_calls_wait_for_their_tenant_if_no_call_at_all_is_taken(
    syncer: Syncer, outbox: MemoryOutbox, central_database: PostgresDatabase
) -> None:
    await central_database.execute("UPDATE tenant SET is_active = false")
    for number in range(50):
        outbox.add(a_record(number))
    syncer.wake()
    await until(lambda: syncer.status.state is SyncState.PAUSED)
    assert "edge-hub tenants add acme" in str(syncer.status.last_error)
    await central_database.execute("UPDATE tenant SET is_active = true")
    syncer.wake_now()
    await until(lambda: not outbox.waiting)

    await assert_each_stands_once(central_database, 50)


async def test_a_call_is_seen_at_the_centre_within_a_third_of_a_second_of_its_commit(
    syncer: Syncer, outbox: MemoryOutbox, central_database: PostgresDatabase
) -> None:
    delays = []
    async with central_database.connection() as connection:
        for number in range(20):
            outbox.add(a_record(number))
            syncer.wake()
            committed = time.monotonic()
            while not await connection.fetch("SELECT FROM call WHERE call_sid = $1", a_record(number).call_sid):
                pass
            delays.append(time.monotonic() - committed)

    assert sorted(delays)[10] <= 0.3
