"""Counts, sizes and gaps, and giving unassigned calls their tenant."""

from datetime import timedelta

import pytest

from agent.store import repository as repository_module
from agent.store.engine import Store
from agent.store.outbox import SqliteOutbox
from agent.store.repository import Repository
from agent.store.writer import GapClosed, GapOpened, Group, Writer
from sync.models import Call, Status
from tests.integration.store.facts import LATER, START, call, segment, sid, task


@pytest.fixture
async def a_day(writer: Writer) -> None:
    """Ten calls: every third unassigned, the last abandoned, one from another PBX."""
    await writer.commit(
        Group(
            finished=[
                call(
                    number,
                    tenant=None if number % 3 == 0 else "acme",
                    status=Status.ABANDONED if number == 9 else Status.COMPLETED,
                    pbx="branch" if number == 2 else "main",
                )
                for number in range(10)
            ]
        )
    )


@pytest.mark.usefixtures("a_day")
async def test_counts_and_last_calls(repository: Repository) -> None:
    assert await repository.counts_since(START + timedelta(seconds=5)) == {"completed": 4, "abandoned": 1}
    assert await repository.count_unassigned() == 4
    assert await repository.last_call_time("branch") == START + timedelta(seconds=2)
    assert await repository.last_call_time("nowhere") is None


async def test_sizes_tell_the_journals_part(repository: Repository, writer: Writer, store: Store) -> None:
    await writer.commit(Group(segments=[segment(writer.next_segment_id(), b"x" * 50_000)]))

    sizes = await repository.sizes()

    assert 0 < sizes.journal_bytes < 50_000
    assert sizes.database_bytes > 0
    assert sizes.wal_bytes > 0


async def test_gaps_are_told_latest_first(repository: Repository, writer: Writer) -> None:
    gaps: list[GapOpened | GapClosed] = [
        GapOpened("main", START, "line_lost"),
        GapClosed("main", LATER),
        GapOpened("main", LATER, "agent_down"),
    ]
    await writer.commit(Group(gaps=gaps))

    assert [(gap.from_at, gap.to_at) for gap in await repository.gaps(limit=9)] == [(LATER, None), (START, LATER)]


async def test_unassigned_calls_get_the_tenant_the_rule_names_and_wait(
    repository: Repository, writer: Writer, outbox: SqliteOutbox, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_module, "_REASSIGN_STEP", 2)
    await writer.commit(
        Group(finished=[call(number, tenant=None, tasks=[task()], interactions=[{}]) for number in range(5)])
    )

    def rule(one: Call) -> str | None:
        return {sid(1): "globex", sid(3): None}.get(one.call_sid, "acme")

    result = await repository.reassign(rule)

    assert result.as_dict() == {"looked_at": 5, "assigned": {"acme": 3, "globex": 1}, "unassigned": 1}
    batch = await outbox.next_batch(limit=10)
    assert batch is not None
    assert [(one.call_sid, one.tenant, one.revision) for one in batch.records] == [
        (sid(0), "acme", 2),
        (sid(1), "globex", 2),
        (sid(2), "acme", 2),
        (sid(4), "acme", 2),
    ]
    for table in ("task", "interaction"):
        query = f"SELECT count(*) FROM {table} JOIN call ON call.id = call_id AND call.tenant_id IS {table}.tenant_id"
        assert await store.reader.run(lambda c, query=query: c.execute(query).fetchone()) == (5,)  # type: ignore[misc]


async def test_calls_that_began_at_the_same_moment_are_reassigned_too(
    repository: Repository, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_module, "_REASSIGN_STEP", 2)
    await writer.commit(Group(finished=[call(number, tenant=None, start_time=START) for number in range(7)]))

    result = await repository.reassign(lambda one: None if one.call_sid in {sid(1), sid(5)} else "acme")

    assert result.as_dict() == {"looked_at": 7, "assigned": {"acme": 5}, "unassigned": 2}


async def test_reassigning_again_finds_only_what_is_still_unassigned(repository: Repository, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1, tenant=None), call(2, tenant="acme")]))
    await repository.reassign(lambda _: None)

    assert (await repository.reassign(lambda _: "globex")).as_dict()["assigned"] == {"globex": 1}
    assert (await repository.reassign(lambda _: "initech")).as_dict()["looked_at"] == 0
