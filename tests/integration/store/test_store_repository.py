"""Reads for people, and giving unassigned calls their tenant."""

from datetime import timedelta

import pytest

from agent.store import repository as repository_module
from agent.store.engine import Store
from agent.store.outbox import SqliteOutbox
from agent.store.repository import CallFilter, CallOfTenant, Cursor, Repository
from agent.store.writer import GapClosed, GapOpened, Group, Writer
from sync.models import Call, Direction, Status
from tests.integration.store.facts import LATER, START, call, segment, sid, task


def _numbers(calls: "list[CallOfTenant] | tuple[CallOfTenant, ...]") -> list[int]:
    return [int(one.call.call_sid.rpartition(".")[2]) for one in calls]


@pytest.fixture
async def a_day(writer: Writer) -> None:
    """Ten calls: every third unassigned, two outbound, the last abandoned, one from another PBX."""
    await writer.commit(
        Group(
            finished=[
                call(
                    number,
                    tenant=None if number % 3 == 0 else "acme",
                    direction=Direction.OUTBOUND if number in {4, 5} else Direction.INBOUND,
                    status=Status.ABANDONED if number == 9 else Status.COMPLETED,
                    pbx="branch" if number == 2 else "main",
                    callee_id=f"212555010{number}",
                )
                for number in range(10)
            ]
        )
    )


@pytest.mark.usefixtures("a_day")
@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        (CallFilter(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (CallFilter(tenant="acme"), [8, 7, 5, 4, 2, 1]),
        (CallFilter(tenant="nobody"), []),
        (CallFilter(unassigned=True), [9, 6, 3, 0]),
        (CallFilter(status="abandoned"), [9]),
        (CallFilter(direction="outbound"), [5, 4]),
        (CallFilter(pbx="branch"), [2]),
        (CallFilter(since=START + timedelta(seconds=3), until=START + timedelta(seconds=5)), [4, 3]),
        (CallFilter(number="0107"), [7]),
        (CallFilter(number="+905321234567", tenant="acme", direction="inbound"), [8, 7, 2, 1]),
        (CallFilter(number="%"), []),
    ],
)
async def test_calls_are_listed_newest_first(repository: Repository, wanted: CallFilter, numbers: list[int]) -> None:
    page = await repository.list_calls(wanted, limit=50)

    assert _numbers(list(page.calls)) == numbers
    assert page.next is None


@pytest.mark.usefixtures("a_day")
async def test_pages_follow_each_other_without_gap_or_overlap(repository: Repository) -> None:
    seen: list[int] = []
    after: Cursor | None = None
    while True:
        page = await repository.list_calls(CallFilter(), limit=3, after=after)
        seen += _numbers(list(page.calls))
        after = page.next
        if after is None:
            break

    assert seen == list(range(9, -1, -1))


async def test_calls_that_began_at_the_same_moment_are_paged_too(repository: Repository, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(number, start_time=START) for number in range(7)]))

    first = await repository.list_calls(CallFilter(), limit=4)
    second = await repository.list_calls(CallFilter(), limit=4, after=first.next)

    assert _numbers([*first.calls, *second.calls]) == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.usefixtures("a_day")
async def test_an_export_tells_all_in_bounded_pieces(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository_module, "_EXPORT_PAGE", 3)

    told = [one async for one in repository.export(CallFilter())]

    assert _numbers(told) == list(range(10))
    assert [one.tenant for one in told[:3]] == [None, "acme", "acme"]


@pytest.mark.usefixtures("a_day")
async def test_a_call_is_found_by_its_id_or_how_it_ends(repository: Repository) -> None:
    assert _numbers(list(await repository.find(sid(3)))) == [3]
    assert _numbers(list(await repository.find("0004.4"))) == [4]
    assert len(await repository.find("00")) == 0
    assert len(await repository.find("")) == 0
    assert (await repository.find(sid(1)))[0].call.legs == [{"channel": "PJSIP/1", "cause": 16}]


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


@pytest.mark.usefixtures("a_day")
async def test_waiting_calls_are_told_in_their_order(repository: Repository) -> None:
    waiting = await repository.waiting(limit=2)

    assert [(one.call_sid, one.tenant, one.revision, one.enqueued_at) for one in waiting] == [
        (sid(1), "acme", 1, LATER),
        (sid(2), "acme", 1, LATER),
    ]


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


async def test_reassigning_again_finds_only_what_is_still_unassigned(repository: Repository, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1, tenant=None), call(2, tenant="acme")]))
    await repository.reassign(lambda _: None)

    assert (await repository.reassign(lambda _: "globex")).as_dict()["assigned"] == {"globex": 1}
    assert (await repository.reassign(lambda _: "initech")).as_dict()["looked_at"] == 0
