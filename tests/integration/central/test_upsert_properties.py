"""Whatever order and repetition revisions arrive in, the newest of each call stands, once."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.central.database import CentralDatabase
from sync.records import CallRecord, Verdict
from tests.fakes_sync import a_batch, a_record
from tests.postgres import PostgresDatabase

TENANTS = ("acme", "globex")
_examples = count()

# A revision says which tenant it names and how many tasks it has: the same revision is always the same record.
revisions = st.tuples(st.integers(0, 3), st.integers(1, 5))
deliveries = st.lists(st.lists(revisions, min_size=1, max_size=8), min_size=1, max_size=6)


def the_record(example: int, number: int, revision: int) -> CallRecord:
    tasks = ",".join(
        f'{{"position": {at}, "task_name": "t", "state_data": {{}}, "start_time": "2026-03-02T12:00:00Z"}}'
        for at in range(revision % 3)
    )
    return a_record(
        number,
        call_sid=f"istanbul:asterisk:{example}.{number}",
        revision=revision,
        tenant=TENANTS[(number + revision) // 3 % 2],
        caller_name=f"revision {revision}",
        tasks=f"[{tasks}]",
    )


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def central(central_database: PostgresDatabase, runner: asyncio.Runner) -> Iterator[CentralDatabase]:
    runner.run(central_database.add_speaking_site("istanbul", *TENANTS))
    central = CentralDatabase(central_database.address, application_name="test")
    yield central
    runner.run(central.close())


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example has call_sids of its own
)
@given(deliveries=deliveries)
def test_the_newest_revision_of_each_call_stands_once(
    central: CentralDatabase,
    central_database: PostgresDatabase,
    runner: asyncio.Runner,
    deliveries: list[list[tuple[int, int]]],
) -> None:
    example = next(_examples)

    async def deliver() -> list[Verdict]:
        receipts = [
            await central.store(a_batch(*(the_record(example, number, revision) for number, revision in delivery)))
            for delivery in deliveries
        ]
        return [verdict.verdict for receipt in receipts for verdict in receipt.verdicts]

    verdicts = runner.run(deliver())
    rows = runner.run(
        central_database.fetch(
            "SELECT call_sid, revision, name, caller_name,"
            " (SELECT count(*) FROM task WHERE (task.tenant_id, call_id) = (call.tenant_id, call.id)) AS tasks"
            " FROM call JOIN tenant ON tenant.id = tenant_id WHERE call_sid LIKE $1",
            f"istanbul:asterisk:{example}.%",
        )
    )

    newest: dict[int, int] = {}
    for number, revision in (sent for delivery in deliveries for sent in delivery):
        newest[number] = max(revision, newest.get(number, 0))
    expected = [the_record(example, number, revision) for number, revision in newest.items()]
    assert sorted(tuple(row) for row in rows) == sorted(
        (record.call_sid, record.revision, record.tenant, record.caller_name, record.revision % 3)
        for record in expected
    )
    assert set(verdicts) <= {Verdict.ACCEPTED, Verdict.SUPERSEDED}
