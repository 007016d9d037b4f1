"""Batches into a real central PostgreSQL: each call stands once, with its newest revision."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sync.central.database import CentralDatabase
from sync.errors import UplinkUnavailable
from sync.records import Receipt, Verdict
from tests.fakes_sync import NOON, a_batch, a_record
from tests.postgres import PostgresDatabase

ACCEPTED, SUPERSEDED, REJECTED = Verdict.ACCEPTED, Verdict.SUPERSEDED, Verdict.REJECTED
TASKS = (
    '[{"position": 0, "task_name": "greet", "state_data": {"step": 2}, "start_time": "2026-03-02T12:00:05+00:00"},'
    ' {"position": 1, "task_name": "book", "state_data": {}, "start_time": "2026-03-02T12:00:09.25Z"}]'
)
ONE_TASK = '[{"position": 0, "task_name": "end", "state_data": {}, "start_time": "2026-03-02T12:01:00Z"}]'
INTERACTIONS = '[{"position": 0, "data": {"who": "caller", "said": "Günaydın"}}]'


@asynccontextmanager
async def opened(database: PostgresDatabase, timeout_seconds: float = 30.0) -> AsyncIterator[CentralDatabase]:
    central = CentralDatabase(
        database.address, application_name="test", agent_version="1.2.3", timeout_seconds=timeout_seconds
    )
    try:
        yield central
    finally:
        await central.close()


@pytest.fixture
async def central(central_database: PostgresDatabase) -> AsyncIterator[CentralDatabase]:
    await central_database.add_speaking_site("istanbul", "acme", "globex")
    async with opened(central_database) as database:
        yield database


def verdicts(receipt: Receipt) -> list[Verdict]:
    return [verdict.verdict for verdict in receipt.verdicts]


async def calls(database: PostgresDatabase) -> list[tuple[str, int]]:
    rows = await database.fetch("SELECT call_sid, revision FROM call ORDER BY call_sid")
    return [(row["call_sid"], row["revision"]) for row in rows]


async def test_every_field_of_a_record_arrives(central: CentralDatabase, central_database: PostgresDatabase) -> None:
    record = a_record(
        caller_name="Şükrü İğne",
        hold_seconds=1.5,
        queue="support",
        transferred=True,
        recording="/var/spool/a.wav",
        merged_into="other",
        timeline='[{"at": 1}]',
        full_transcript='[{"text": "selam"}]',
        end_estimated=True,
        caller_e164="+905321234567",
        caller_presentation="restricted",
        callee_e164="+902121234567",
        last_answered_by="102",
        queue_position=3,
        queue_wait_seconds=12.25,
        conference="board",
    )

    receipt = await central.store(a_batch(record))

    [row] = await central_database.fetch(
        "SELECT call.*, tenant.name AS tenant FROM call JOIN tenant ON tenant.id = tenant_id"
    )
    expected = record._asdict()
    assert expected.pop("tasks") == expected.pop("interactions") == "[]"
    assert {name: row[name] for name in expected} == expected
    assert [(one.call_sid, one.revision, one.verdict) for one in receipt.verdicts] == [(record.call_sid, 1, ACCEPTED)]


async def test_what_was_not_known_stays_null(central: CentralDatabase, central_database: PostgresDatabase) -> None:
    absent = ("caller_id", "caller_name", "answered_by", "disposition", "answer_time", "end_time", "hangup_cause")

    await central.store(a_batch(a_record(**dict.fromkeys(absent))))

    [row] = await central_database.fetch("SELECT * FROM call")
    assert [row[name] for name in absent] == [None] * len(absent)


async def test_a_batch_sent_twice_has_one_effect(central: CentralDatabase, central_database: PostgresDatabase) -> None:
    batch = a_batch(*(a_record(number, tasks=TASKS, interactions=INTERACTIONS) for number in range(50)))

    first, second = await central.store(batch), await central.store(batch)

    assert set(verdicts(first)) == {ACCEPTED}
    assert set(verdicts(second)) == {SUPERSEDED}
    assert len(await calls(central_database)) == 50
    assert (await central_database.fetch("SELECT count(*) FROM task"))[0]["count"] == 100


async def test_overlapping_batches_store_each_call_once(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central.store(a_batch(*(a_record(number) for number in range(20))))

    receipt = await central.store(a_batch(*(a_record(number) for number in range(10, 30))))

    assert verdicts(receipt) == [SUPERSEDED] * 10 + [ACCEPTED] * 10
    assert len(await calls(central_database)) == 30


async def test_an_older_revision_never_replaces_a_newer_one(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    newer, older = a_record(revision=3, status="completed"), a_record(revision=2, status="in_progress")

    await central.store(a_batch(newer))
    receipt = await central.store(a_batch(older))

    assert verdicts(receipt) == [SUPERSEDED]
    [row] = await central_database.fetch("SELECT revision, status FROM call")
    assert tuple(row) == (3, "completed")


async def test_a_newer_revision_replaces_the_call_and_its_children(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central.store(a_batch(a_record(tasks=TASKS, interactions=INTERACTIONS, end_time=None)))

    await central.store(
        a_batch(
            a_record(
                revision=2,
                tasks='[{"position": 0, "task_name": "end", "state_data": {}, "start_time": "2026-03-02T12:01:00Z"}]',
            )
        )
    )

    [row] = await central_database.fetch("SELECT revision, end_time FROM call")
    assert row["revision"] == 2
    assert row["end_time"] == a_record().end_time
    assert [task["task_name"] for task in await central_database.fetch("SELECT * FROM task")] == ["end"]
    assert await central_database.fetch("SELECT * FROM interaction") == []


async def test_children_stand_with_their_call_and_its_tenant(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central.store(a_batch(a_record(1), a_record(2, tenant="globex", tasks=TASKS, interactions=INTERACTIONS)))

    rows = await central_database.fetch(
        "SELECT call_sid, position, task_name, state_data, task.start_time FROM task"
        " JOIN call ON (call.tenant_id, call.id) = (task.tenant_id, task.call_id) ORDER BY position"
    )
    assert [(row["call_sid"], row["position"], row["task_name"]) for row in rows] == [
        (a_record(2).call_sid, 0, "greet"),
        (a_record(2).call_sid, 1, "book"),
    ]
    assert rows[0]["state_data"] == '{"step": 2}'
    assert (rows[1]["start_time"] - NOON).total_seconds() == 9.25
    [interaction] = await central_database.fetch("SELECT data FROM interaction")
    assert "Günaydın" in interaction["data"]


async def test_two_revisions_of_a_call_in_one_batch_leave_the_newer(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    receipt = await central.store(a_batch(a_record(revision=2), a_record(revision=3), a_record(revision=1)))

    assert verdicts(receipt) == [SUPERSEDED, ACCEPTED, SUPERSEDED]
    assert await calls(central_database) == [(a_record().call_sid, 3)]


async def test_an_earlier_revision_in_the_batch_counts_if_the_newer_is_refused(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    receipt = await central.store(a_batch(a_record(revision=2, caller_name="\0"), a_record(revision=1)))

    assert verdicts(receipt) == [REJECTED, ACCEPTED]
    assert await calls(central_database) == [(a_record().call_sid, 1)]


async def test_a_call_that_changed_its_tenant_stands_once_under_the_new_one(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central.store(a_batch(a_record(tasks=TASKS)))

    await central.store(a_batch(a_record(revision=2, tenant="globex", tasks=TASKS)))
    late = await central.store(a_batch(a_record(revision=1, tasks=TASKS)))

    assert verdicts(late) == [SUPERSEDED]
    rows = await central_database.fetch("SELECT revision, name FROM call JOIN tenant ON tenant.id = tenant_id")
    assert [tuple(row) for row in rows] == [(2, "globex")]
    assert len(await central_database.fetch("SELECT * FROM task")) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "ankara"},
        {"call_sid": "ankara:asterisk:1.1"},
        {"site": "ankara", "call_sid": "ankara:asterisk:1.1"},
        {"call_sid": "istanbul-2:asterisk:1.1"},
    ],
)
async def test_a_site_cannot_write_the_calls_of_another(
    central: CentralDatabase, central_database: PostgresDatabase, changes: dict[str, str]
) -> None:
    receipt = await central.store(a_batch(a_record(1, revision=9, **changes), a_record(2)))

    assert verdicts(receipt) == [REJECTED, ACCEPTED]
    assert receipt.verdicts[0].code == "wrong_site"
    assert "not of site 'istanbul'" in str(receipt.verdicts[0].reason)
    assert len(await central_database.fetch("SELECT * FROM call")) == 1


@pytest.mark.parametrize("tenant", ["initech", "sleeping", "nul\0", "half \ud800"])
async def test_a_call_of_an_unknown_or_inactive_tenant_is_rejected_with_what_to_do(
    central: CentralDatabase, central_database: PostgresDatabase, tenant: str
) -> None:
    await central_database.execute("INSERT INTO tenant (name, is_active) VALUES ('sleeping', false)")

    receipt = await central.store(a_batch(a_record(1, tenant=tenant), a_record(2)))

    assert verdicts(receipt) == [REJECTED, ACCEPTED]
    assert receipt.verdicts[0].code == "unknown_tenant"
    assert "grant it with `edge-hub sites grant istanbul " in str(receipt.verdicts[0].reason)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"caller_name": "NUL \0 byte"}, "22021"),
        ({"legs": '["NUL \\u0000 in JSON"]'}, "22P05"),
        ({"legs": '["half a pair \\ud800"]'}, "22P02"),
        ({"caller_name": "half a pair \ud800"}, "22000"),
        ({"timeline": "no JSON"}, "22P02"),
        ({"trace_id": "x" * 33}, "22001"),
        ({"hangup_cause": 1 << 40}, "22003"),
        ({"hangup_cause": 1 << 70}, "22000"),
        ({"start_time": None}, "23502"),
        ({"tasks": '[{"position": 0}]'}, "23502"),
        ({"tasks": '{"no": "array"}'}, "22023"),
        ({"interactions": '[{"position": 0, "data": {}}, {"position": 0, "data": {}}]'}, "23505"),
    ],
)
async def test_a_record_postgresql_refuses_is_rejected_and_the_others_pass(
    central: CentralDatabase, central_database: PostgresDatabase, changes: dict[str, object], code: str
) -> None:
    records = [a_record(number) for number in range(9)]
    records[5] = a_record(5, tasks=TASKS, caller_id="+905559998877")._replace(**changes)  # type: ignore[arg-type] # wrong on purpose

    receipt = await central.store(a_batch(*records))

    assert verdicts(receipt) == [ACCEPTED] * 5 + [REJECTED] + [ACCEPTED] * 3
    refused = receipt.verdicts[5]
    assert refused.code == code
    assert refused.reason
    assert "5559998877" not in refused.reason
    assert len(await calls(central_database)) == 8
    assert await central_database.fetch("SELECT * FROM task") == []


async def test_a_task_without_a_moment_and_its_offset_costs_its_call_only(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    moments = ['"2026-03-02T12:00:00"', '"now"', '"infinity"', '"2026-13-01T00:00:00Z"', '"Z"', "5", "null"]
    tasks = [f'[{{"position": 0, "task_name": "a", "state_data": {{}}, "start_time": {moment}}}]' for moment in moments]
    records = [a_record(number, tasks=text) for number, text in enumerate([*tasks, ONE_TASK])]

    assert verdicts(await central.store(a_batch(*records))) == [*[REJECTED] * len(tasks), ACCEPTED]
    assert len(await central_database.fetch("SELECT 1 FROM task")) == 1


async def test_a_refused_newer_revision_leaves_the_older_as_it_was(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central.store(a_batch(a_record(tasks=TASKS)))

    receipt = await central.store(a_batch(a_record(revision=2, tasks='[{"position": 0}]')))

    assert verdicts(receipt) == [REJECTED]
    assert await calls(central_database) == [(a_record().call_sid, 1)]
    assert len(await central_database.fetch("SELECT * FROM task")) == 2


async def test_one_poisonous_record_among_ten_thousand_is_found(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    records = [a_record(number) for number in range(10_000)]
    records[7_777] = a_record(7_777, legs='["\\u0000"]')

    receipt = await central.store(a_batch(*records))

    rejected = [one.call_sid for one in receipt.verdicts if one.verdict is REJECTED]
    assert rejected == [records[7_777].call_sid]
    assert [one.call_sid for one in receipt.verdicts] == [record.call_sid for record in records]
    assert len(await calls(central_database)) == 9_999


async def test_records_not_decided_in_time_get_no_verdict_and_the_others_stand(
    central_database: PostgresDatabase,
) -> None:
    await central_database.add_speaking_site("istanbul", "acme")
    await central_database.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.caller_id = 'bad' THEN RAISE 'no'; END IF; PERFORM pg_sleep(0.1); RETURN NEW; END $$;"
        "CREATE TRIGGER slow BEFORE INSERT ON call FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    records = [a_record(number) for number in range(6)] + [a_record(6, caller_id="bad"), a_record(7, caller_id="bad")]

    async with opened(central_database, timeout_seconds=2.0) as central:
        receipt = await central.store(a_batch(*records))

    assert 0 < len(receipt.verdicts) < 8
    accepted = [one.call_sid for one in receipt.verdicts if one.verdict is ACCEPTED]
    assert [call for call, _ in await calls(central_database)] == accepted


@pytest.mark.parametrize(
    ("trigger", "code"),
    [
        ("RAISE 'call of +905551112233'", "P0001"),
        ("RAISE 'no' USING ERRCODE = '42501'", "42501"),
    ],
)
async def test_a_trigger_of_the_centre_may_refuse_a_record(
    central: CentralDatabase, central_database: PostgresDatabase, trigger: str, code: str
) -> None:
    await central_database.execute(
        f"CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.caller_id = 'bad' THEN {trigger}; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER guard BEFORE INSERT ON call FOR EACH ROW EXECUTE FUNCTION guard()"
    )

    receipt = await central.store(a_batch(a_record(1), a_record(2, caller_id="bad"), a_record(3)))

    assert verdicts(receipt) == [ACCEPTED, REJECTED, ACCEPTED]
    assert receipt.verdicts[1].code == code
    assert "90555" not in str(receipt.verdicts[1].reason)


async def test_a_deferred_constraint_of_the_centre_refuses_its_record_only(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central_database.execute(
        "CREATE FUNCTION guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.caller_id = 'bad' THEN RAISE 'no'; END IF; RETURN NEW; END $$;"
        "CREATE CONSTRAINT TRIGGER guard AFTER INSERT ON call DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION guard()"
    )

    receipt = await central.store(a_batch(a_record(1, caller_id="bad"), a_record(2)))

    assert verdicts(receipt) == [REJECTED, ACCEPTED]


async def test_a_site_and_its_high_water_mark_are_kept_with_the_calls(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central.store(a_batch(a_record(1), high_water=41))
    await central.store(a_batch(a_record(2), high_water=17))

    [site] = await central_database.fetch("SELECT * FROM site")
    assert (site["name"], site["high_water"], site["agent_version"]) == ("istanbul", 41, "1.2.3")
    assert site["last_seen_at"] is not None


async def test_an_empty_batch_is_no_trouble(central: CentralDatabase) -> None:
    assert await central.store(a_batch()) == Receipt([], number=1)


async def test_other_programs_see_all_of_a_batch_or_nothing(
    central: CentralDatabase, central_database: PostgresDatabase
) -> None:
    await central_database.execute(
        "CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.caller_id = 'last' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER lost BEFORE INSERT ON call FOR EACH ROW EXECUTE FUNCTION lost()"
    )

    with pytest.raises(UplinkUnavailable):
        await central.store(a_batch(a_record(1), a_record(2), a_record(3, caller_id="last")))

    assert await calls(central_database) == []
    assert [site["receipts"] for site in await central_database.fetch("SELECT receipts FROM site")] == [0]
    assert verdicts(await central.store(a_batch(a_record(1)))) == [ACCEPTED]
