"""What the centre tells of the calls it holds is what a site computes of the same calls."""

import hashlib
import tracemalloc
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, date, timedelta

import pytest

from sync.central.database import CentralDatabase
from sync.records import CallRecord, DayDigest, HeldCall
from tests.fakes_sync import NOON, a_batch, a_record
from tests.postgres import PostgresDatabase

DAY = NOON.date()


@pytest.fixture
async def central(central_database: PostgresDatabase) -> AsyncIterator[CentralDatabase]:
    await central_database.add_speaking_site("istanbul", "acme", "globex")
    await central_database.add_speaking_site("ankara", "acme")
    central = CentralDatabase(await central_database.add_hub_login(), application_name="test")
    yield central
    await central.close()


def digests(records: Iterable[CallRecord]) -> list[DayDigest]:
    """docs/hub.md, word by word."""
    sums: dict[tuple[str, date], int] = defaultdict(int)
    counts = Counter[tuple[str, date]]()
    for record in records:
        key = (record.tenant, record.start_time.astimezone(UTC).date())
        digest = hashlib.md5(f"{record.call_sid}:{record.revision}".encode()).digest()
        sums[key] = (sums[key] + int.from_bytes(digest[:8], "big")) % 2**64
        counts[key] += 1
    return [DayDigest(tenant, day, counts[tenant, day], f"{sums[tenant, day]:016x}") for tenant, day in sorted(sums)]


async def test_days_are_those_of_utc_by_tenant_and_of_the_site_alone(central: CentralDatabase) -> None:
    midnight = NOON + timedelta(hours=12)
    moments = (NOON, midnight - timedelta(microseconds=1), midnight, midnight + timedelta(days=40))
    records = [
        a_record(number, revision=number, tenant=("acme", "globex")[number % 2], start_time=moments[number % 4])
        for number in range(1, 60)
    ]
    await central.store(a_batch(*records))
    await central.store(a_batch(a_record(1, site="ankara", call_sid="ankara:main:1.1"), site="ankara"))

    assert await central.days("istanbul", DAY, DAY + timedelta(days=366)) == digests(records)
    tomorrow = DAY + timedelta(days=1)
    assert await central.days("istanbul", tomorrow, tomorrow) == digests(
        record for record in records if record.start_time == midnight
    )
    assert await central.days("istanbul", date(2020, 1, 1), date(2020, 1, 2)) == []


async def test_calls_of_a_day_come_in_pages_by_the_bytes_of_their_names(central: CentralDatabase) -> None:
    sids = [f"istanbul:main:{name}" for name in ("Z", "a", "ä", "10", "9", "-", "Ş", "😀", "a.1", "A")]
    await central.store(a_batch(*(a_record(n, call_sid=sid, revision=n + 1) for n, sid in enumerate(sids))))
    await central.store(a_batch(a_record(50, tenant="globex"), a_record(51, start_time=NOON + timedelta(days=1))))

    pages, after = [], ""
    while page := await central.calls("istanbul", "acme", DAY, after=after, limit=3):
        pages.append(page)
        after = page[-1].call_sid

    assert [len(page) for page in pages] == [3, 3, 3, 1]
    expected = sorted(enumerate(sids), key=lambda pair: pair[1].encode())
    assert [call for page in pages for call in page] == [HeldCall(sid, number + 1) for number, sid in expected]
    assert await central.calls("istanbul", "nobody", DAY, after="", limit=3) == []


async def test_a_grant_that_ended_hides_no_call_from_its_own_site(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central.store(a_batch(a_record()))
    await central_database.execute("UPDATE site_tenant SET ended_at = now()")

    assert await central.days("istanbul", DAY, DAY) == digests([a_record()])


async def test_a_day_of_a_hundred_thousand_calls_is_compared_in_bounded_memory(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central_database.execute(
        "INSERT INTO call (call_sid, trace_id, tenant_id, site, pbx, direction, status, start_time, ring_seconds,"
        " talk_seconds, hold_seconds, total_seconds, transferred, legs, timeline, full_transcript, source,"
        " start_estimated, end_estimated, revision, created_at, updated_at)"
        " SELECT 'istanbul:main:' || n, 'x', 1, 'istanbul', 'main', 'inbound', 'completed',"
        " '2026-03-02 00:00Z'::timestamptz + n * interval '0.5 s', 0, 0, 0, 0, false, '[]', '[]', '[]', 'ami', false,"
        " false, 1 + n % 3, now(), now() FROM generate_series(1, 100000) AS n"
    )

    [day] = await central.days("istanbul", DAY, DAY)
    total, after = 0, ""
    tracemalloc.start()
    while page := await central.calls("istanbul", "acme", DAY, after=after, limit=10_000):
        after = page[-1].call_sid
        total += len(page)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert day.calls == total == 100_000
    assert peak < 16 * 1024 * 1024
