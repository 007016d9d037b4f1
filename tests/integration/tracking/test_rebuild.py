"""Calls derived again from a journal on a real database, after what makes calls of it was mended."""

import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.context import CallContext, TaskState
from agent.calls.rules import CallRules
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.store.amend import Left
from agent.store.engine import Store, open_store
from agent.store.journal import Journal
from agent.store.merge import ToldCall, merging
from agent.store.outbox import SqliteOutbox
from agent.store.writer import FinishedCall, Group, Writer
from agent.tracking.rebuild import Progress, Rebuild
from agent.tracking.tracker import Tracker
from config.settings import TenancySettings
from sync.records import Receipt, RecordReceipt, Verdict
from tests.unit.agent.captures import TENANCY, Frame, frames

BEFORE = datetime(2026, 11, 22, tzinfo=UTC)
BLIND = CallRules(trunks=("SIP/none-*",), inbound_contexts=())
NOBODY = TenancySettings()
RULES = CallRules()


class NoLiveStore:
    def mark(self, context: CallContext) -> None: ...

    def ended(self, context: CallContext) -> None: ...

    def settled(self, pbx: str) -> None: ...

    def noted(self, call_sid: str) -> None: ...

    def committed(self, **_calls: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Site:
    """An open database, and what can be done to it."""

    store: Store
    writer: Writer

    async def hears(
        self, told: Sequence[Frame], *, rules: CallRules = RULES, tenancy: TenancySettings = TENANCY, pbx: str = "main"
    ) -> Tracker:
        """An agent hears this, commits each frame by itself, and is killed."""
        tracker = Tracker(
            site="here",
            tenancy=tenancy,
            writer=self.writer,
            journal=Journal(self.store, self.writer),
            live=NoLiveStore(),
            commit_interval=timedelta(milliseconds=1),
            on_commit=lambda: None,
        )
        feed = tracker.add_pbx(pbx, rules=rules, interpreter=AsteriskInterpreter())
        interpreter = AsteriskInterpreter()
        for frame in told:
            feed.heard(frame.raw, interpreter.interpret(frame.raw, frame.arrived_at), frame.arrived_at)
            await tracker.commit_heard()
        return tracker

    async def rebuilds(
        self,
        *,
        rules: CallRules = RULES,
        tenancy: TenancySettings = TENANCY,
        since: datetime = BEFORE,
        until: datetime | None = None,
        dry_run: bool = False,
    ) -> Progress:
        """All that the rebuild tells, joined."""
        work = Rebuild(
            store=self.store,
            writer=self.writer,
            site="here",
            tenancy=tenancy,
            rules={"main": rules},
            interpreter=lambda pbx: AsteriskInterpreter(),
            since=since,
            until=until,
            dry_run=dry_run,
            pause_seconds=0,
        )
        amended = []
        last = Progress()
        async for last in work.run():
            amended += last.amended
        assert last.is_done
        last.amended = amended
        return last

    async def rows(self, query: str) -> list[tuple[Any, ...]]:  # Any: columns
        return await self.store.reader.run(lambda connection: connection.execute(query).fetchall())

    async def do(self, *statements: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            for statement in statements:
                connection.execute(statement)

        await self.writer.transact(work)

    async def waiting(self) -> list[tuple[str, int]]:
        return await self.rows(
            "SELECT call_sid, outbox.revision FROM outbox JOIN call ON call.id = call_id ORDER BY call_sid"
        )

    async def is_sent(self) -> None:
        """The centre takes all that waits."""
        receipt = Receipt([RecordReceipt(sid, revision, Verdict.ACCEPTED) for sid, revision in await self.waiting()])
        await SqliteOutbox(self.store, self.writer, site="here").settle(receipt)

    async def all_of(self) -> list[tuple[Any, ...]]:  # Any: columns
        return await self.rows("SELECT * FROM call ORDER BY id")


@asynccontextmanager
async def opened(database: Path) -> AsyncIterator[Site]:
    async with open_store(database) as store:
        yield Site(store, await Writer.over(store.connection))


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path / "edge.db") as site:
        yield site


@pytest.mark.parametrize(
    "name",
    [
        "inbound_answered",
        "queue_answered",
        "group_answered",
        "restart_now",
        "outbound_busy",
        "stage/22/attended_transfer_twice",
        "stage/22/attended_transfer_before_the_answer",
        "stage/22/blind_transfer_into_a_queue",
        "stage/22/parked_and_retrieved_by_another",
    ],
)
async def test_without_any_change_nothing_is_changed(site: Site, name: str) -> None:
    await site.hears(frames(name))
    before = await site.all_of()

    told = await site.rebuilds()

    assert (told.looked_at, told.unchanged, told.changed, told.left) == (len(before), len(before), 0, {})
    assert await site.all_of() == before


async def test_a_trace_that_came_with_a_call_stays_whatever_a_rebuild_hears(site: Site) -> None:
    await site.hears(frames("inbound_answered"))
    await site.do("UPDATE call SET trace_id = '0af7651916cd43dd8448eb211c80319c'")

    assert (await site.rebuilds()).changed == 0
    assert await site.rows("SELECT trace_id FROM call") == [("0af7651916cd43dd8448eb211c80319c",)]


async def test_a_trunk_that_is_known_now_changes_direction_and_revision_and_is_sent_again(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND, tenancy=TenancySettings(default="acme"))
    await site.is_sent()
    assert await site.rows("SELECT direction, revision FROM call") == [("internal", 1)]

    told = await site.rebuilds(tenancy=TenancySettings(default="acme"))

    assert await site.rows("SELECT direction, revision FROM call") == [("inbound", 2)]
    (amended,) = told.amended
    assert (amended.changes["direction"], amended.revision, told.changed) == (("internal", "inbound"), 2, 1)
    assert await site.waiting() == [(amended.call_sid, 2)]


async def test_a_second_time_changes_nothing(site: Site) -> None:
    for name in ("inbound_answered", "queue_answered", "outbound_answered"):
        await site.hears(frames(name), rules=BLIND, tenancy=NOBODY)
    first = await site.rebuilds()
    after = await site.all_of()

    second = await site.rebuilds()

    assert (first.changed, second.changed, second.unchanged) == (3, 0, 3)
    assert await site.all_of() == after


async def test_a_dry_run_tells_the_same_and_writes_nothing(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND, tenancy=NOBODY)
    before = await site.all_of()

    dry = await site.rebuilds(dry_run=True)

    assert await site.all_of() == before
    assert [amended.as_dict() for amended in dry.amended] == [
        amended.as_dict() for amended in (await site.rebuilds()).amended
    ]


async def test_what_others_told_of_a_call_stays(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND)
    ((sid,),) = await site.rows("SELECT call_sid FROM call")
    task = TaskState(task_name="booking", state_data={"step": 2}, start_time=BEFORE)
    told = {"call_sid": sid, "full_transcript": [{"text": "merhaba"}], "recording": "a.wav"}
    await site.writer.commit(Group(finished=[FinishedCall(told, None, tasks=[task], interactions=[{"said": "evet"}])]))

    await site.rebuilds()

    assert await site.rows("SELECT direction, recording, full_transcript FROM call") == [
        ("inbound", "a.wav", '[{"text":"merhaba"}]')
    ]
    tasks = await site.rows("SELECT task_name, state_data, tenant.name FROM task JOIN tenant ON tenant.id = tenant_id")
    assert tasks == [("booking", '{"step":2}', "acme")]
    assert await site.rows("SELECT data FROM interaction") == [('{"said":"evet"}',)]


# Tenants

WRONG = TenancySettings(default="globex")


async def test_an_unassigned_call_is_given_to_its_tenant(site: Site) -> None:
    await site.hears(frames("inbound_answered"), tenancy=NOBODY)

    told = await site.rebuilds()

    assert [amended.changes for amended in told.amended] == [{"tenant": (None, "acme")}]
    assert len(await site.waiting()) == 1


async def test_a_call_that_was_never_sent_goes_over_to_the_tenant_of_the_present_rules(site: Site) -> None:
    await site.hears(frames("inbound_answered"), tenancy=WRONG)

    told = await site.rebuilds()

    assert [amended.changes for amended in told.amended] == [{"tenant": ("globex", "acme")}]
    assert [revision for _, revision in await site.waiting()] == [2]


async def test_a_call_that_the_centre_refused_goes_over_too(site: Site) -> None:
    await site.hears(frames("inbound_answered"), tenancy=WRONG)
    ((sid, _),) = await site.waiting()
    refusal = RecordReceipt(sid, 1, Verdict.REJECTED, "unknown_tenant", "no tenant globex")
    await SqliteOutbox(site.store, site.writer, site="here").settle(Receipt([refusal]))

    await site.rebuilds()

    assert await site.waiting() == [(sid, 2)]


async def test_a_call_that_the_centre_has_keeps_its_tenant_and_it_is_said(site: Site) -> None:
    await site.hears(frames("inbound_answered"), tenancy=WRONG)
    await site.is_sent()

    told = await site.rebuilds()

    ((amended,), rows) = told.amended, await site.rows("SELECT name FROM call JOIN tenant ON tenant.id = tenant_id")
    assert (amended.tenant, amended.tenant_kept, amended.is_changed, rows) == ("globex", "acme", False, [("globex",)])
    assert (told.changed, told.unchanged, await site.waiting()) == (0, 1, [])


async def test_a_call_that_no_rule_fits_any_more_keeps_its_tenant(site: Site) -> None:
    await site.hears(frames("inbound_answered"), tenancy=WRONG)

    told = await site.rebuilds(tenancy=NOBODY)

    assert (told.changed, told.amended) == (0, [])


# What is left alone


async def test_live_calls_are_left_alone(site: Site) -> None:
    await site.hears(frames("killed"))

    told = await site.rebuilds()

    assert (told.looked_at, await site.all_of()) == (0, [])


async def test_a_call_that_began_before_the_journal_is_left_alone(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND)
    await site.do("DELETE FROM journal_segment WHERE id < 20")
    before = await site.all_of()

    told = await site.rebuilds()

    assert (told.changed, told.left, await site.all_of()) == (0, {Left.JOURNAL_BEGINS_LATER: 1}, before)


async def test_a_call_joined_with_one_that_began_before_the_journal_is_left_alone(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND)
    first = frames("inbound_answered")[0].arrived_at
    ((born,),) = await site.rows("SELECT min(id) FROM journal_segment WHERE blob IS NOT NULL")
    segments = await site.rows("SELECT id FROM journal_segment ORDER BY id")
    # Only the frame in which the caller's channel was made is lost.
    lost = next(number for number, frame in enumerate(frames("inbound_answered")) if b"Newchannel" in frame.raw)
    await site.do(f"DELETE FROM journal_segment WHERE id = {segments[lost][0]}")
    assert first >= BEFORE
    assert born

    told = await site.rebuilds()

    assert (told.changed, sum(told.left.values())) == (0, 1)


async def test_a_call_that_went_on_over_a_damaged_segment_is_left_alone(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND)
    await site.do("UPDATE journal_segment SET blob = x'0102' WHERE id = 30")

    told = await site.rebuilds()

    assert (told.changed, told.left) == (0, {Left.PARTLY_HEARD: 1})


async def test_a_call_of_which_other_sources_tell_more_is_derived_again_and_keeps_what_they_told(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND)
    ((sid,),) = await site.rows("SELECT call_sid FROM call")
    told = ToldCall.of({"call_sid": sid, "source": "cdr", "recording": "in.wav"})
    await site.writer.transact(merging([told], now=site.writer.now_text()))
    before = await site.rows("SELECT source, recording, direction FROM call")

    rebuilt = await site.rebuilds()

    assert before == [("ami+cdr", "in.wav", "internal")]
    assert (rebuilt.changed, rebuilt.left) == (1, {})
    assert await site.rows("SELECT source, recording, direction FROM call") == [("ami+cdr", "in.wav", "inbound")]


async def test_a_call_that_another_source_told_of_is_left_alone_if_nobody_kept_what_it_told(site: Site) -> None:
    await site.hears(frames("inbound_answered"), rules=BLIND)
    await site.do("UPDATE call SET source = 'ami+cdr'")

    assert (await site.rebuilds()).left == {Left.OTHER_SOURCE: 1}


async def test_an_end_that_the_record_knows_and_the_journal_does_not_stays(site: Site) -> None:
    told = frames("inbound_answered")
    gone = next(number for number, frame in enumerate(told) if frame.raw.startswith(b"Event: Hangup\r\n"))
    listed = [Frame(b"Event: CoreShowChannelsComplete\r\nListItems: 0", told[-1].arrived_at)] * 2
    marks = [Frame(b"\0snapshot taken", told[-1].arrived_at)] * 2
    pairs = [frame for pair in zip(listed, marks, strict=True) for frame in pair]
    await site.hears([*told[:gone], *pairs], rules=BLIND)
    await site.do("UPDATE call SET end_estimated = 0")

    assert (await site.rebuilds()).left == {Left.KNOWN_BETTER: 1}


async def test_calls_of_a_pbx_without_a_journal_and_calls_unknown_to_it_are_left_alone(site: Site) -> None:
    await site.hears(frames("inbound_answered"), pbx="main")
    await site.hears(frames("inbound_busy"), pbx="gone")
    await site.do("DELETE FROM journal_segment WHERE pbx = 'gone'", "UPDATE call SET call_sid = 'x' WHERE pbx = 'main'")

    told = await site.rebuilds()

    assert (told.left, told.not_stored) == ({Left.NOT_TOLD: 2}, 1)


async def test_only_calls_of_the_time_in_question_are_looked_at(site: Site) -> None:
    names = ("inbound_answered", "inbound_busy", "inbound_cancelled")
    for name in names:
        await site.hears(frames(name), rules=BLIND)
    starts = [datetime.fromisoformat(f"{text}+00:00") for (text,) in await site.rows("SELECT start_time FROM call")]

    told = await site.rebuilds(since=sorted(starts)[1], until=sorted(starts)[2])

    assert (told.looked_at, told.changed) == (1, 1)
    assert sorted(await site.rows("SELECT revision FROM call")) == [(1,), (1,), (2,)]


async def test_a_pbx_whose_clock_is_hours_ahead_is_rebuilt_too(site: Site) -> None:
    behind = [Frame(frame.raw, frame.arrived_at - timedelta(hours=5)) for frame in frames("inbound_answered")]
    filler = [Frame(b"Event: PeerStatus", behind[-1].arrived_at + timedelta(minutes=number)) for number in range(400)]
    await site.hears([*behind, *filler], rules=BLIND)

    assert (await site.rebuilds()).changed == 1


# Times that the PBX does not tell


async def test_arrivals_that_the_journal_knows_a_little_otherwise_change_nothing(site: Site) -> None:
    bare = [
        Frame(b"\r\n".join(line for line in frame.raw.split(b"\r\n") if b"Timestamp" not in line), frame.arrived_at)
        for frame in frames("queue_answered")
    ]
    await site.hears(bare)
    await site.do("UPDATE journal_segment SET first_at = substr(first_at, 1, 22) || '9999'")
    before = await site.all_of()

    told = await site.rebuilds()

    assert (told.unchanged, told.changed, await site.all_of()) == (1, 0, before)


async def test_of_such_a_call_only_what_means_something_is_written(site: Site) -> None:
    bare = [
        Frame(b"\r\n".join(line for line in frame.raw.split(b"\r\n") if b"Timestamp" not in line), frame.arrived_at)
        for frame in frames("inbound_answered")
    ]
    await site.hears(bare, rules=BLIND)
    await site.do("UPDATE journal_segment SET first_at = substr(first_at, 1, 22) || '9999'")
    times = await site.rows("SELECT start_time, end_time, answer_time FROM call")

    told = await site.rebuilds()

    assert "start_time" not in told.amended[0].changes
    assert await site.rows("SELECT start_time, end_time, answer_time FROM call") == times


async def test_after_a_crash_and_a_lost_line_the_journal_tells_the_same(tmp_path: Path) -> None:
    told = frames("queue_answered")
    half = len(told) // 2
    async with opened(tmp_path / "edge.db") as first:
        await first.hears(told[:half])
    async with opened(tmp_path / "edge.db") as second:
        tracker = Tracker(
            site="here",
            tenancy=TENANCY,
            writer=second.writer,
            journal=Journal(second.store, second.writer),
            live=NoLiveStore(),
            commit_interval=timedelta(milliseconds=1),
            on_commit=lambda: None,
            now=lambda: told[half].arrived_at,
        )
        feed = tracker.add_pbx("main", rules=RULES, interpreter=AsteriskInterpreter())
        await tracker.restore(interpreter=AsteriskInterpreter)
        interpreter = AsteriskInterpreter()
        for frame in told[half:]:
            feed.heard(frame.raw, interpreter.interpret(frame.raw, frame.arrived_at), frame.arrived_at)
            await tracker.commit_heard()
        before = await second.all_of()
        assert len(before) == 1

        result = await second.rebuilds()

        assert (result.unchanged, await second.all_of()) == (1, before)


def test_the_result_can_be_told_as_json() -> None:
    told = Progress(looked_at=2, left={Left.STILL_LIVE: 1}, heard_until=BEFORE)

    assert json.loads(json.dumps(told.as_dict()))["left_alone"] == {"still_live": 1}
