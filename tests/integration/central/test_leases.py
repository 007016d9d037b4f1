"""Greetings, leases and receipt numbers at a real centre; the table itself is in tests/unit/sync/test_lease.py."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.errors import CentreBehind, Fenced, LeaseHeld, LeaseLost, SiteRefused
from sync.records import Batch, Greeting, Verdict, Welcome
from tests.fakes_sync import a_record
from tests.postgres import PostgresDatabase

US = Greeting("istanbul", "1.2.3", holder="us", host="pbx-1", lease=None, lease_seconds=60)
THEM = replace(US, holder="them", host="pbx-2")


@asynccontextmanager
async def opened(address: CentralAddress) -> AsyncIterator[CentralDatabase]:
    central = CentralDatabase(address, application_name="test")
    try:
        yield central
    finally:
        await central.close()


@pytest.fixture
async def central(central_database: PostgresDatabase) -> AsyncIterator[CentralDatabase]:
    await central_database.add_site("istanbul", "acme", "globex")
    async with opened(await central_database.add_hub_login()) as central:
        yield central


def batch(welcome: Welcome, number: int = 1, *, holder: str = "us", receipts: int = 0, revision: int = 1) -> Batch:
    return Batch("istanbul", [a_record(number, revision=revision)], number, holder, welcome.lease, receipts)


async def test_a_greeting_is_answered_with_all_a_site_needs(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central_database.execute("UPDATE tenant SET is_active = false WHERE name = 'globex'")

    first, second = await central.greet(US), await central.greet(US)

    [row] = await central_database.fetch("SELECT centre.id::text AS centre, site.* FROM centre, site")
    assert (first.centre, first.receipts, first.tenants, first.lease_seconds) == (row["centre"], 0, ("acme",), 60)
    assert abs((first.server_time - row["last_seen_at"]).total_seconds()) < 60
    assert second.lease == first.lease == row["lease"]
    assert (row["holder_host"], row["agent_version"]) == ("pbx-1", "1.2.3")
    assert first.lease not in repr(first)


async def test_receipt_numbers_count_the_batches_stored(central: CentralDatabase) -> None:
    welcome = await central.greet(US)

    numbers = [(await central.store(batch(welcome, number))).number for number in (1, 2, 3)]

    assert numbers == [1, 2, 3]
    assert (await central.greet(US)).receipts == 3


async def test_batches_of_one_site_at_the_same_time_get_a_number_each(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    welcome = await central.greet(US)
    async with opened(central_database.address) as other:
        receipts = await asyncio.gather(
            *(one.store(batch(welcome, number)) for number, one in enumerate([central, other] * 5))
        )

    assert sorted(receipt.number for receipt in receipts) == list(range(1, 11))


async def test_a_superseded_record_is_told_the_revision_that_is_held(central: CentralDatabase) -> None:
    welcome = await central.greet(US)
    await central.store(batch(welcome, revision=7))

    receipt = await central.store(batch(welcome, revision=3))

    assert [(one.verdict, one.held_revision) for one in receipt.verdicts] == [(Verdict.SUPERSEDED, 7)]


async def test_a_copy_is_refused_while_the_original_is_there_and_headquarters_sees_it(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    welcome = await central.greet(US)

    with pytest.raises(LeaseHeld, match="on pbx-1") as caught:
        await central.greet(replace(THEM, lease=welcome.lease))

    assert 50 < (caught.value.retry_after_seconds or 0) <= 60
    with pytest.raises(LeaseHeld):
        await central.store(batch(welcome, holder="them"))
    [row] = await central_database.fetch("SELECT refused_why, refused_host, refused_at, receipts FROM site")
    assert (row["refused_why"], row["refused_host"], row["receipts"]) == ("held", "pbx-2", 0)
    assert (await central.store(batch(welcome))).number == 1


async def test_whoever_goes_on_after_silence_fences_the_other_off_until_it_is_released(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    welcome = await central.greet(US)
    await central_database.execute("UPDATE site SET lease_until = now() - interval '1 s'")
    taken = await central.greet(replace(THEM, lease=welcome.lease))

    for attempt in (central.greet(replace(US, lease=welcome.lease)), central.store(batch(welcome))):
        with pytest.raises(Fenced, match=r"on pbx-2\).*edge-hub sites release istanbul"):
            await attempt
    assert (await central.store(batch(taken, holder="them"))).number == 1
    [row] = await central_database.fetch("SELECT refused_why, refused_host FROM site")
    assert tuple(row) == ("fenced", "pbx-1")


async def test_a_lease_given_up_needs_a_greeting_and_the_former_holder_is_fenced_by_the_next(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    welcome = await central.greet(US)
    await central_database.execute(
        "UPDATE site SET lease_before = lease, lease = NULL, holder = NULL, holder_host = NULL, lease_until = NULL"
    )

    with pytest.raises(LeaseLost):
        await central.store(batch(welcome))
    taken = await central.greet(THEM)
    with pytest.raises(Fenced):
        await central.greet(replace(US, lease=welcome.lease))
    assert (await central.store(batch(taken, holder="them"))).number == 1


async def test_a_lease_that_ran_out_is_renewed_by_its_holder_with_a_batch(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    welcome = await central.greet(US)
    await central_database.execute("UPDATE site SET lease_until = now() - interval '1 h'")

    await central.store(batch(welcome))

    [row] = await central_database.fetch("SELECT lease_until > now() + interval '50 s' AS is_fresh FROM site")
    assert row["is_fresh"]


async def test_a_centre_that_went_back_stores_nothing_and_knows_its_site_again(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    """The backup is of before a reboot and two batches: its lease is of another holder, its receipts are fewer."""
    before = await central.greet(US)
    await central_database.execute("CREATE TABLE backup AS TABLE site; UPDATE site SET lease_until = now()")
    now = await central.greet(replace(THEM, lease=before.lease))
    assert [(await central.store(batch(now, number, holder="them"))).number for number in (1, 2)] == [1, 2]
    await central_database.execute(
        "UPDATE site SET lease = backup.lease, lease_before = backup.lease_before, holder = backup.holder,"
        " receipts = backup.receipts, lease_until = now() + interval '1 min' FROM backup; DELETE FROM call"
    )

    with pytest.raises(LeaseLost):
        await central.store(batch(now, 3, holder="them", receipts=2))
    again = await central.greet(replace(THEM, lease=now.lease))
    with pytest.raises(CentreBehind, match="given 0 receipts to site 'istanbul', which holds 2"):
        await central.store(batch(again, 3, holder="them", receipts=2))

    assert again.receipts == 0
    assert await central_database.fetch("SELECT * FROM call") == []
    assert [(await central.store(batch(again, number, holder="them"))).number for number in (1, 2, 3)] == [1, 2, 3]
    with pytest.raises(Fenced):
        await central.greet(replace(US, lease=before.lease))


async def test_a_site_nobody_added_and_a_disabled_one_are_refused_with_the_command(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    welcome = await central.greet(US)

    with pytest.raises(SiteRefused, match="`edge-hub sites add ankara --tenant NAME`") as caught:
        await central.greet(replace(US, site="ankara"))
    assert caught.value.code == "site_unknown"
    await central_database.execute("UPDATE site SET is_disabled = true")
    day = a_record().start_time.date()
    for attempt in (central.greet(US), central.store(batch(welcome)), central.days("istanbul", day, day)):
        with pytest.raises(SiteRefused, match="`edge-hub sites enable istanbul`") as caught:
            await attempt
        assert caught.value.code == "site_disabled"


async def test_a_refusal_does_not_cost_the_connection(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    pids = []
    welcome = await central.greet(US)
    for _ in range(2):
        with pytest.raises(LeaseHeld):
            await central.greet(replace(THEM, lease=welcome.lease))
        rows = await central_database.fetch("SELECT pid FROM pg_stat_activity WHERE application_name = 'test'")
        pids.append([row["pid"] for row in rows])

    assert pids[0] == pids[1]
    assert len(pids[0]) == 1


async def test_whatever_an_installation_tells_of_itself_is_kept_as_plain_text(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    odd = "pbx\0\x1b[31m\ud800" + "x" * 1000

    await central.greet(Greeting("istanbul", odd, holder=odd, host=odd, lease=odd, lease_seconds=float("nan")))

    [row] = await central_database.fetch("SELECT holder_host, agent_version FROM site")
    assert row["holder_host"].isprintable()
    assert (len(row["holder_host"]), len(row["agent_version"])) == (255, 64)
