"""What services write: kept before it is answered, there after a crash, in the call's row when it ends."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from agent.calls.context import CallState
from agent.calls.operations import (
    TOP,
    AppendInteractions,
    Operation,
    Patch,
    PopTask,
    PushTask,
    SetTranscript,
    UpdateTask,
)
from agent.calls.wishes import Limits
from agent.errors import CallUnknown, OperationRefused, RevisionChanged, StoreUnavailable, TooLarge
from agent.live.changes import Change, ChangeKind
from agent.live.desk import Written
from agent.live.ended import DeskTimes
from agent.live.entry import REVISION_LEAP
from agent.store.writer import Group
from tests.integration.live.desks import CALL, Site, site_at, texts
from tests.unit.live.contexts import facts


async def _outcome(write: Awaitable[Written]) -> Written | TooLarge:
    try:
        return await write
    except TooLarge as exc:
        return exc


async def eventually_said(site: Site, *wanted: str) -> None:
    while await site.said(CALL) != list(wanted):  # noqa: ASYNC110  # nobody tells of a row
        await asyncio.sleep(0.002)


async def test_what_was_answered_is_there_after_a_crash_with_tasks_variables_and_history(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello", "good day")
        task = {"task_name": "book", "state_data": {"day": 1}}
        await site.desk.write(CALL.call_sid, [PushTask(task), Patch({"variables": {"vip": True}})], service="dialogue")
        before = (
            await site.desk.write(CALL.call_sid, [UpdateTask(TOP, {"state_data": {"hour": 9}})], service="d")
        ).context
    async with site_at(tmp_path, live=[CALL]) as site:
        after = await site.desk.read(CALL.call_sid)
        assert texts(after) == ["hello", "good day"]
        assert (after.task_stack, after.variables) == (before.task_stack, {"vip": True})
        assert after.task_stack[0].state_data == {"day": 1, "hour": 9}
        assert after.revision >= before.revision + REVISION_LEAP
        await site.say(CALL, "and on")
        assert texts(await site.desk.read(CALL.call_sid)) == ["hello", "good day", "and on"]


async def test_what_services_write_at_the_same_time_is_made_durable_by_one_commit(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        statements: list[str] = []
        await site.store.connection.run(lambda connection: connection.set_trace_callback(statements.append))
        await asyncio.gather(*(site.say(CALL, str(number)) for number in range(50)))
        await site.store.connection.run(lambda connection: connection.set_trace_callback(None))
        assert statements.count("COMMIT") == 1
        assert texts(await site.desk.read(CALL.call_sid)) == [str(number) for number in range(50)]


async def test_what_stands_on_the_desk_when_a_call_ends_is_in_its_row_with_the_outbox_entry(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        tasks: list[Operation] = [PushTask({"task_name": "greet"}), PopTask(TOP), PushTask({"task_name": "book"})]
        await site.desk.write(CALL.call_sid, tasks, service="dialogue")
        await site.end(CALL)
        assert await site.said(CALL) == ["hello"]
        assert await site.rows("SELECT task_name FROM task ORDER BY position") == [("greet",), ("book",)]
        assert await site.rows("SELECT count(*) FROM interaction") == [(1,)]
        assert await site.rows("SELECT revision FROM outbox") == [(1,)]


async def test_a_call_of_which_no_service_wrote_anything_keeps_what_its_row_has(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        site.desk.ended(CALL)
        assert site.desk.noted(CALL.call_sid) is None


async def test_what_is_written_after_the_end_amends_the_call_and_has_it_sent_again(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await site.end(CALL)
        await site.say(CALL, "a summary")
        await eventually_said(site, "hello", "a summary")
        assert await site.rows("SELECT revision FROM outbox") == [(2,)]
        await site.desk.write(CALL.call_sid, [SetTranscript([{"text": "all of it"}])], service="speech")
        await eventually_said(site, "all of it")
        assert await site.revision(CALL) == 3


async def test_what_is_written_late_while_the_agent_dies_is_in_the_row_after_its_start(tmp_path: Path) -> None:
    async with site_at(tmp_path, times=DeskTimes(amend=30)) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await site.end(CALL)
        await site.say(CALL, "a summary")
        assert await site.said(CALL) == ["hello"]
    async with site_at(tmp_path) as site:
        await eventually_said(site, "hello", "a summary")
        assert texts(await site.desk.read(CALL.call_sid)) == ["hello", "a summary"]


async def test_what_is_written_when_the_operations_are_gone_adds_to_what_the_row_holds(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await site.desk.write(CALL.call_sid, [PushTask({"task_name": "book"})], service="dialogue")
        await site.end(CALL)
    async with site_at(tmp_path, times=DeskTimes(grace=0, late=0, amend=0, sweep=0.01)) as site:
        while await site.rows("SELECT 1 FROM context_operation"):  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.002)
    for further in (1, 2):
        async with site_at(tmp_path) as site:
            await site.say(CALL, f"later {further}")
            await eventually_said(site, "hello", *(f"later {number}" for number in range(1, further + 1)))
            assert await site.rows("SELECT task_name FROM task") == [("book",)]


async def test_a_call_that_nobody_knows_is_said_to_be_unknown(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        with pytest.raises(CallUnknown, match="no call istanbul-1:main:1 goes on"):
            await site.say(CALL, "hello")
        with pytest.raises(CallUnknown):
            await site.desk.read(CALL.call_sid)


async def test_an_idempotency_key_repeats_the_answer_also_after_a_crash(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        first, second = await asyncio.gather(*(site.say(CALL, "hello", idempotency_key="k") for _ in range(2)))
        assert first.operations == second.operations
        assert (first.is_repeated, second.is_repeated) == (False, True)
        other = await site.say(CALL, "hello", service="dialogue", idempotency_key="k")
        assert not other.is_repeated
    async with site_at(tmp_path, live=[CALL]) as site:
        again = await site.say(CALL, "hello", idempotency_key="k")
        assert again.is_repeated
        assert [dict(entry) for entry in again.operations[0].interactions] == list(  # type: ignore[union-attr]
            first.operations[0].interactions  # type: ignore[union-attr]
        )
        assert texts(again.context) == ["hello", "hello"]


async def test_a_write_on_a_revision_that_is_not_the_latest_is_refused(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        seen = (await site.say(CALL, "hello")).context.revision
        later = (await site.say(CALL, "hello", if_revision=seen)).context.revision
        with pytest.raises(RevisionChanged) as caught:
            await site.say(CALL, "hello", if_revision=seen)
        assert caught.value.revision == later
        outcomes = await asyncio.gather(
            *(site.say(CALL, "race", if_revision=later) for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(outcome, RevisionChanged) for outcome in outcomes) == 4


async def test_all_operations_of_a_write_are_done_or_none(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        wishes: list[Operation] = [AppendInteractions([{"text": "hello"}]), PopTask("nobody's")]
        with pytest.raises(OperationRefused):
            await site.desk.write(CALL.call_sid, wishes, service="speech")
        assert texts(await site.desk.read(CALL.call_sid)) == []
        assert await site.rows("SELECT count(*) FROM context_operation") == [(0,)]


async def test_a_context_grows_no_larger_than_it_may_and_what_it_holds_stays(tmp_path: Path) -> None:
    async with site_at(tmp_path, limits=Limits(max_context_bytes=2000)) as site:
        await site.begin(CALL)
        for number in range(20):
            await site.desk.write(CALL.call_sid, [Patch({"variables": {"x": str(number) * 200}})], service="crm")
        outcomes = [await _outcome(site.say(CALL, "x" * 100)) for _ in range(20)]
        assert "live.max_context_bytes = 2000" in str(outcomes[-1])
        said = texts(await site.desk.read(CALL.call_sid))
        assert 3 < len(said) < 12
        assert (await site.desk.read(CALL.call_sid)).variables == {"x": "19" * 200}


async def test_a_write_waits_until_the_calls_beginning_is_kept(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        site.desk.mark(CALL)
        await site.begin(facts(2))
        write = asyncio.create_task(site.say(CALL, "hello"))
        await site.say(facts(2), "hello")
        assert not write.done()
        await site.begin(CALL)
        await write


async def test_what_cannot_be_kept_is_not_shown_and_may_be_sent_again(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await site.writer.transact(lambda connection: connection.execute("PRAGMA max_page_count = 1").fetchall())
        outcomes = await asyncio.gather(
            *(site.say(CALL, "x" * 60_000, idempotency_key=str(number)) for number in range(5)), return_exceptions=True
        )
        assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
        assert texts(await site.desk.read(CALL.call_sid)) == ["hello"]
        await site.writer.transact(
            lambda connection: connection.execute("PRAGMA max_page_count = 4294967294").fetchall()
        )
        assert not (await site.say(CALL, "again", idempotency_key="0")).is_repeated
        assert texts(await site.desk.read(CALL.call_sid)) == ["hello", "again"]


async def test_what_was_written_for_a_leg_that_seemed_a_call_belongs_to_the_call_it_is_a_part_of(
    tmp_path: Path,
) -> None:
    leg = facts(2)
    async with site_at(tmp_path) as site:
        await site.begin(CALL, leg)
        await site.say(CALL, "hello")
        await site.say(leg, "who is this")
        site.desk.ended(leg.model_copy(update={"merged_into": CALL.call_sid}))
        site.desk.committed(opened=(), ended=(), moved=[(leg.call_sid, CALL.call_sid)])
        await site.say(leg, "still there")
        assert texts(await site.desk.read(leg.call_sid)) == ["hello", "who is this", "still there"]
    async with site_at(tmp_path, live=[CALL]) as site:
        assert texts(await site.desk.read(CALL.call_sid)) == ["hello", "who is this", "still there"]


async def test_so_it_does_if_the_agent_dies_just_when_the_leg_is_known_as_one(tmp_path: Path) -> None:
    leg = facts(2)
    async with site_at(tmp_path) as site:
        await site.begin(CALL, leg)
        await site.say(CALL, "hello")
        await site.say(leg, "who is this")
        moved = [(leg.call_sid, CALL.call_sid)]
        await site.writer.commit(Group(forgotten=[leg.call_sid], moved=moved))
    async with site_at(tmp_path, live=[CALL]) as site:
        assert texts(await site.desk.read(CALL.call_sid)) == ["hello", "who is this"]


async def test_a_call_that_went_on_in_another_keeps_what_was_noted_of_it(tmp_path: Path) -> None:
    younger = facts(2)
    async with site_at(tmp_path) as site:
        await site.begin(CALL, younger)
        await site.say(younger, "may I put somebody through")
        await site.end(younger, merged_into=CALL.call_sid)
        late = await site.say(younger, "I have put them through")
        assert late.context.merged_into == CALL.call_sid
        while len(await site.said(younger)) < 2:  # noqa: ASYNC110  # nobody tells of a row
            await asyncio.sleep(0.002)
        assert texts(await site.desk.read(CALL.call_sid)) == []


async def test_the_next_call_is_told_once_to_whoever_says_what_it_heard_last(tmp_path: Path) -> None:
    def of_acme(tenant: str | None) -> bool:
        return tenant == "acme"

    async with site_at(tmp_path) as site:
        await site.begin(facts(1, tenant=None))
        waiting = asyncio.create_task(site.desk.next_call(of_acme, None, 30))
        await asyncio.sleep(0)
        await site.begin(facts(2, tenant="umay"), facts(3))
        found = await waiting
        assert found is not None
        assert found[0].call_sid == facts(3).call_sid
        site.desk.mark(facts(1))  # its tenant is known now
        second = await site.desk.next_call(of_acme, found[1], 30)
        assert second is not None
        assert second[0].call_sid == facts(1).call_sid
        assert await site.desk.next_call(of_acme, second[1], 0.01) is None
        elsewhere = await site.desk.next_call(of_acme, "another-run-9", 0.01)
        assert elsewhere is not None


async def test_changes_are_told_in_order_from_where_one_left_or_else_a_resync(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        begin = site.desk.changes.latest
        await site.begin(CALL)
        await site.say(CALL, "hello")
        site.desk.mark(facts(1, state=CallState.ANSWERED))
        await site.end(facts(1, state=CallState.ANSWERED))
        told: list[Change] = []
        async for change in site.desk.changes.follow(begin, lambda change: change.kind is not ChangeKind.CALL_CHANGED):
            told.append(change)
            if change.kind is ChangeKind.CALL_ENDED:
                break
        assert [change.kind for change in told] == ["call.started", "context.changed", "call.ended"]
        assert [change.revision for change in told] == [1, 2, 4]
        async for change in site.desk.changes.follow("0000-5", lambda _change: False):
            assert change.kind is ChangeKind.RESYNC
            break
