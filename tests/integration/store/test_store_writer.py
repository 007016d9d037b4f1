"""The writer: a group is one transaction, repeating it changes nothing, and what it writes SQLModel reads."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import create_engine
from sqlmodel import Session, select

from agent.errors import StoreUnavailable
from agent.store import rows
from agent.store import writer as writer_module
from agent.store.engine import Store, open_store
from agent.store.files import wal_file
from agent.store.tables import Gap, LiveCall
from agent.store.writer import CommitResult, FinishedCall, GapClosed, GapOpened, Group, LiveAnchor, Writer
from sync.models import Call, Interaction, Task, Tenant
from tests.integration.store.facts import LATER, START, call, row, segment, sid, task


async def _rows(store: Store, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return await store.reader.run(lambda connection: connection.execute(query, values).fetchall())


@contextmanager
def _session(store: Store) -> Iterator[Session]:
    engine = create_engine(f"sqlite:///{store.path}", json_serializer=rows.json_text)
    with Session(engine) as session:
        yield session
    engine.dispose()


async def test_what_the_writer_wrote_is_what_sqlmodel_reads(store: Store, writer: Writer) -> None:
    told = call(1, tasks=[task("route", step=3)], interactions=[{"text": "Merhaba, ne lazım?"}])

    await writer.commit(Group(finished=[told]))

    with _session(store) as session:
        read = session.exec(select(Call)).one()
        assert {name: getattr(read, name) for name in told.row} == told.row
        assert (read.revision, read.created_at, read.updated_at) == (1, LATER, LATER)
        assert session.get_one(Tenant, read.tenant_id).name == "acme"
        written = session.exec(select(Task)).one()
        assert (written.call_id, written.tenant_id, written.position) == (read.id, read.tenant_id, 0)
        assert (written.task_name, written.state_data, written.start_time) == ("route", {"step": 3}, START)
        assert session.exec(select(Interaction)).one().data == {"text": "Merhaba, ne lazım?"}


async def test_columns_not_told_get_the_defaults_of_the_model(store: Store, writer: Writer) -> None:
    required = ("call_sid", "trace_id", "site", "pbx", "direction", "status", "start_time")
    await writer.commit(Group(finished=[FinishedCall({name: row(1)[name] for name in required}, None)]))

    with _session(store) as session:
        read = session.exec(select(Call)).one()
        like = Call(**{name: row(1)[name] for name in required})
        told_or_default = Call.model_fields.keys() - {"id", "created_at", "updated_at"}
        assert {name: getattr(read, name) for name in told_or_default} == {
            name: getattr(like, name) for name in told_or_default
        }


async def test_what_sqlmodel_wrote_is_known_to_the_writer(store: Store, writer: Writer) -> None:
    with _session(store) as session:
        session.add(Tenant(name="acme"))
        session.flush()
        session.add(Call(**row(1), tenant_id=session.exec(select(Tenant.id)).one()))
        session.commit()

    assert await writer.commit(Group(finished=[call(1)])) == CommitResult(unchanged=1)
    assert await _rows(store, "SELECT legs FROM call") == [('[{"channel":"PJSIP/1","cause":16}]',)]


async def test_a_new_call_waits_in_the_outbox_with_its_first_revision(store: Store, writer: Writer) -> None:
    assert await writer.commit(Group(finished=[call(1), call(2)])) == CommitResult(new=2, enqueued=2)
    assert await _rows(store, "SELECT sequence, call_id, revision FROM outbox") == [(1, 1, 1), (2, 2, 1)]


async def test_the_same_call_again_is_no_news(store: Store, writer: Writer) -> None:
    group = Group(finished=[call(1, tasks=[task()], interactions=[{"text": "hi"}])])
    await writer.commit(group)
    before = await _rows(store, "SELECT * FROM call, outbox")

    assert await writer.commit(group) == CommitResult(unchanged=1)
    assert await _rows(store, "SELECT * FROM call, outbox") == before


async def test_a_late_fact_makes_a_new_revision_that_waits_once(store: Store, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1)]))
    amended = FinishedCall({"call_sid": sid(1), "hangup_cause": 17, "source": "ami+cdr"}, "acme")

    assert await writer.commit(Group(finished=[amended])) == CommitResult(changed=1, enqueued=1)

    assert await _rows(store, "SELECT revision, hangup_cause, caller_id FROM call") == [(2, 17, "+905321234567")]
    assert await _rows(store, "SELECT sequence, revision FROM outbox") == [(2, 2)]


async def test_a_replay_that_knows_no_transcript_takes_none_away(store: Store, writer: Writer) -> None:
    said = [{"who": "caller", "text": "alo"}]
    await writer.commit(Group(finished=[call(1, full_transcript=said, tasks=[task()], interactions=[{"text": "alo"}])]))

    assert await writer.commit(Group(finished=[call(1)])) == CommitResult(unchanged=1)
    assert len(await _rows(store, "SELECT 1 FROM call, task, interaction WHERE full_transcript != '[]'")) == 1


async def test_tasks_and_interactions_are_replaced_as_a_whole(store: Store, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1, tasks=[task("a"), task("b")], interactions=[{"n": 1}])]))

    result = await writer.commit(Group(finished=[call(1, tasks=[task("c")], interactions=[])]))

    assert result == CommitResult(changed=1, enqueued=1)
    assert await _rows(store, "SELECT position, task_name FROM task") == [(0, "c")]
    assert await _rows(store, "SELECT * FROM interaction") == []


async def test_an_unassigned_call_is_kept_and_does_not_wait(store: Store, writer: Writer) -> None:
    assert await writer.commit(Group(finished=[call(1, tenant=None)])) == CommitResult(new=1)
    assert await _rows(store, "SELECT * FROM outbox") == []


async def test_an_unassigned_call_that_gets_a_tenant_waits_with_its_children(store: Store, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1, tenant=None, tasks=[task()])]))

    assert await writer.commit(Group(finished=[call(1, tenant="acme")])) == CommitResult(changed=1, enqueued=1)
    assert await _rows(store, "SELECT call.revision, task.tenant_id FROM call, task") == [(2, 1)]


@pytest.mark.parametrize("tenant", [None, "globex"])
async def test_a_call_keeps_the_tenant_under_which_the_centre_has_it(
    store: Store, writer: Writer, tenant: str | None
) -> None:
    await writer.commit(Group(finished=[call(1, tenant="acme")]))

    assert await writer.commit(Group(finished=[call(1, tenant=tenant)])) == CommitResult(unchanged=1)
    query = "SELECT tenant.name FROM call JOIN tenant ON tenant.id = call.tenant_id"
    assert await _rows(store, query) == [("acme",)]


async def test_a_call_told_twice_in_one_group_is_one_new_call(store: Store, writer: Writer) -> None:
    first, second = call(1, tasks=[task()]), call(1, hangup_cause=17)

    assert await writer.commit(Group(finished=[first, second])) == CommitResult(new=1, enqueued=1)
    assert await _rows(store, "SELECT revision, hangup_cause FROM call") == [(1, 17)]
    assert len(await _rows(store, "SELECT * FROM task")) == 1


async def test_a_call_amended_twice_in_one_group_gets_one_new_revision(store: Store, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1)]))

    await writer.commit(Group(finished=[call(1, queue="sales"), call(1, queue="sales", recording="a.wav")]))

    assert await _rows(store, "SELECT revision, queue, recording FROM call") == [(2, "sales", "a.wav")]


async def test_names_that_are_hard_to_write_are_kept(store: Store, writer: Writer) -> None:
    names = ["Çağrı Öğüt", "日本", "half \ud83d of a pair", "nul \x00 inside", "'; DROP TABLE call; --", ""]

    await writer.commit(Group(finished=[call(number, caller_name=name) for number, name in enumerate(names)]))

    found = [name for (name,) in await _rows(store, "SELECT caller_name FROM call ORDER BY id")]
    assert found == [name.replace("\ud83d", "?").replace("\0", "\ufffd") for name in names]


async def test_a_call_that_began_is_anchored_until_it_is_finished(store: Store, writer: Writer) -> None:
    first = writer.next_segment_id()
    await writer.commit(Group(segments=[segment(first)], opened=[LiveAnchor(sid(1), "main", first, START)]))
    again = LiveAnchor(sid(1), "main", first + 5, START)
    await writer.commit(Group(opened=[again, LiveAnchor(sid(2), "main", first, START)]))
    assert await _rows(store, "SELECT call_sid, journal_id FROM live_call") == [(sid(1), first), (sid(2), first)]

    await writer.commit(Group(finished=[call(1)], forgotten=[sid(2)]))

    assert await _rows(store, "SELECT * FROM live_call") == []


async def test_a_call_shorter_than_a_group_leaves_no_anchor(store: Store, writer: Writer) -> None:
    await writer.commit(Group(opened=[LiveAnchor(sid(1), "main", 1, START)], finished=[call(1)]))

    assert await _rows(store, "SELECT * FROM live_call") == []


async def test_a_pbx_has_one_open_gap_that_began_when_it_was_first_not_heard(store: Store, writer: Writer) -> None:
    opened = GapOpened("main", START, "line_lost", "connection reset")
    await writer.commit(Group(gaps=[opened]))
    await writer.commit(Group(gaps=[GapOpened("main", LATER, "agent_down"), GapOpened("branch", LATER, "line_lost")]))

    closed = Group(gaps=[GapClosed("main", LATER)])
    await writer.commit(closed)
    await writer.commit(replace(closed, gaps=[opened, GapClosed("main", LATER + timedelta(hours=1))]))

    with _session(store) as session:
        gaps = session.exec(select(Gap).order_by("id")).all()
        assert [(gap.pbx, gap.from_at, gap.to_at, gap.reason) for gap in gaps] == [
            ("main", START, LATER, "line_lost"),
            ("branch", LATER, None, "line_lost"),
        ]


@pytest.mark.parametrize("pause", [timedelta(0), timedelta(seconds=1)])
async def test_a_repeated_group_leaves_the_gap_open_that_began_after_the_one_it_closed(
    store: Store, writer: Writer, pause: timedelta
) -> None:
    await writer.commit(Group(gaps=[GapOpened("main", START, "line_lost")]))
    group = Group(gaps=[GapClosed("main", LATER), GapOpened("main", LATER + pause, "line_lost")])

    await writer.commit(group)
    await writer.commit(group)

    with _session(store) as session:
        gaps = session.exec(select(Gap).order_by("id")).all()
        assert [(gap.from_at, gap.to_at) for gap in gaps] == [(START, LATER), (LATER + pause, None)]


async def test_a_gap_may_end_at_the_moment_it_began(store: Store, writer: Writer) -> None:
    await writer.commit(Group(gaps=[GapOpened("main", START, "line_lost"), GapClosed("main", START)]))

    with _session(store) as session:
        assert session.exec(select(Gap.to_at)).all() == [START]


async def test_an_empty_group_costs_no_transaction(store: Store, writer: Writer) -> None:
    size = wal_file(store.path).stat().st_size

    assert await writer.commit(Group()) == CommitResult()
    assert wal_file(store.path).stat().st_size == size


async def test_segment_ids_go_on_after_a_restart_even_when_all_were_pruned(database: Path) -> None:
    async with open_store(database) as store:
        writer = await Writer.over(store.connection)
        await writer.commit(Group(segments=[segment(writer.next_segment_id()), segment(writer.next_segment_id())]))
        await writer.transact(lambda connection: connection.execute("DELETE FROM journal_segment"))

    async with open_store(database) as store:
        assert (await Writer.over(store.connection)).next_segment_id() == 3


async def test_facts_that_cannot_be_written_are_refused_with_the_whole_group(store: Store, writer: Writer) -> None:
    with pytest.raises(ValueError, match="no columns of a call"):
        await writer.commit(Group(finished=[call(1), call(2, colour="red")]))
    with pytest.raises(ValueError, match="lacks"):
        await writer.commit(Group(finished=[call(1), FinishedCall({"call_sid": sid(2)}, "acme")]))

    assert await _rows(store, "SELECT * FROM call") == []
    assert await _rows(store, "SELECT * FROM tenant") == []
    assert (await writer.commit(Group(finished=[call(1)]))).new == 1


async def test_what_is_lost_with_a_rollback_is_not_believed_afterwards(store: Store, writer: Writer) -> None:
    with pytest.raises(ValueError, match="lacks"):
        await writer.commit(Group(finished=[call(1, tenant="new"), FinishedCall({"call_sid": sid(2)}, "acme")]))

    await writer.commit(Group(finished=[call(3, tenant="other"), call(1, tenant="new")]))

    query = "SELECT call.call_sid, tenant.name FROM call JOIN tenant ON tenant.id = call.tenant_id ORDER BY 1"
    assert await _rows(store, query) == [(sid(1), "new"), (sid(3), "other")]


async def test_a_full_disk_takes_nothing_half_and_the_same_group_passes_when_there_is_room(
    store: Store, writer: Writer
) -> None:
    await writer.commit(Group(finished=[call(0)]))
    (pages,) = (await _rows(store, "PRAGMA page_count"))[0]
    await store.connection.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
    ids = [writer.next_segment_id() for _ in range(3)]
    group = Group(
        segments=[segment(number, os.urandom(50_000)) for number in ids],
        opened=[LiveAnchor(sid(9), "main", ids[0], START)],
        finished=[call(number) for number in range(1, 50)],
        gaps=[GapOpened("main", START, "line_lost")],
    )

    with pytest.raises(StoreUnavailable, match="disk is full"):
        await writer.commit(group)
    tables = ("journal_segment", "live_call", "gap")
    assert [await _rows(store, f"SELECT * FROM {table}") for table in tables] == [[], [], []]
    assert await _rows(store, "SELECT count(*) FROM call") == [(1,)]

    await store.connection.run(lambda c: c.execute("PRAGMA max_page_count = 100000").fetchall())
    assert await writer.commit(group) == CommitResult(new=49, enqueued=49)
    assert await writer.commit(group) == CommitResult(unchanged=49)


_SHORT_OF_ROOM = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from agent.errors import StoreUnavailable
from agent.store.engine import open_store
from agent.store.writer import Group, Writer
from tests.integration.store.facts import call, segment

async def main():
    async with open_store(Path(sys.argv[1])) as store:
        writer = await Writer.over(store.connection)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        done = 0
        try:
            for number in range(1000):
                group = Group(segments=[segment(number + 1, os.urandom(20_000))], finished=[call(number)])
                await writer.commit(group)
                done += 1
        except StoreUnavailable as fault:
            print(fault, file=sys.stderr)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        (kept,) = await store.reader.run(lambda c: c.execute("SELECT count(*) FROM call").fetchone())
        result = await writer.commit(group)
        print(done, kept, result.new)

asyncio.run(main())
"""


async def test_a_file_that_may_not_grow_is_a_fault_that_passes(database: Path) -> None:
    starter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _SHORT_OF_ROOM, str(database)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, said = await starter.communicate()

    assert starter.returncode == 0, said.decode()
    done, kept, new = map(int, output.split())
    assert 0 < done == kept < 1000
    assert new == 1
    assert "edge.db: the disk" in said.decode()


async def test_a_lock_held_by_another_program_is_a_fault_that_passes(store: Store, writer: Writer) -> None:
    await store.connection.run(lambda c: c.execute("PRAGMA busy_timeout = 0").fetchall())
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreUnavailable, match="another program holds it"):
        await writer.commit(Group(finished=[call(1)]))

    other.execute("ROLLBACK")
    other.close()
    assert (await writer.commit(Group(finished=[call(1)]))).new == 1


async def test_a_wal_that_a_reader_made_long_is_cut_once_the_reader_is_gone(
    store: Store, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "WAL_LIMIT_BYTES", 500_000)
    monkeypatch.setattr(writer_module, "_CHECKPOINT_SECONDS", 0.0)
    reader = sqlite3.connect(store.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM call").fetchone()
    for number in range(20):
        await writer.commit(Group(segments=[segment(writer.next_segment_id(), os.urandom(50_000))]))
        assert number < 20
    assert wal_file(store.path).stat().st_size > 500_000

    reader.close()
    await writer.commit(Group(finished=[call(1)]))

    assert wal_file(store.path).stat().st_size < 500_000


versions = st.lists(
    st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([None, "acme"]), st.sampled_from(["", "sales", "support"])),
        max_size=6,
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=25, deadline=None)
@given(versions)
def test_whatever_is_told_in_whatever_groups_the_rule_holds(
    tmp_path_factory: pytest.TempPathFactory, groups: Sequence[Sequence[tuple[int, str | None, str]]]
) -> None:
    """The rule, told simply: one call at a time, a revision per group that changed it, tenants only ever gained."""

    async def both_ways() -> None:
        async with open_store(tmp_path_factory.mktemp("rule") / "edge.db") as store:
            writer = await Writer.over(store.connection)
            expected: dict[str, tuple[int, bool, str]] = {}
            waiting: dict[str, int] = {}
            for told in groups:
                changed: set[str] = set()
                for number, tenant, queue in told:
                    revision, owned, was = expected.get(sid(number), (0, False, ""))
                    now = (owned or tenant is not None, queue)
                    if revision == 0 or now != (owned, was):
                        revision += sid(number) not in changed
                        changed.add(sid(number))
                    expected[sid(number)] = (revision, *now)
                waiting |= {one: expected[one][0] for one in changed if expected[one][1]}
                group = Group(finished=[call(number, tenant=tenant, queue=queue) for number, tenant, queue in told])
                await writer.commit(group)
            found = await _rows(store, "SELECT call_sid, revision, tenant_id NOTNULL, queue FROM call")
            queued = await _rows(store, "SELECT call_sid, outbox.revision FROM outbox JOIN call ON call.id = call_id")
            assert {one: (revision, bool(owned), queue) for one, revision, owned, queue in found} == expected
            assert dict(queued) == waiting

    asyncio.run(both_ways())


async def test_commits_from_many_tasks_never_mix(store: Store, writer: Writer) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number in range(0, 60, 3):
            tasks.create_task(writer.commit(Group(finished=[call(number + step) for step in range(3)])))
            tasks.create_task(writer.transact(lambda connection: connection.execute("SELECT 1").fetchone()))

    assert await _rows(store, "SELECT count(*) FROM call") == [(60,)]


def test_the_anchor_table_is_read_by_others_as_it_is_written() -> None:
    assert list(LiveCall.model_fields) == ["call_sid", "pbx", "journal_id", "start_time"]
