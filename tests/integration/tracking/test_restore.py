"""What the agent knows again after a crash, on a real database: one process's life after the other."""

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.context import CallContext
from agent.calls.rules import CallRules
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN, AsteriskInterpreter
from agent.store.engine import Store, open_store
from agent.store.journal import Journal
from agent.store.moments import moment_text
from agent.store.writer import Writer
from agent.tracking.tracker import Tracker
from config.settings import TenancySettings

START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
Said = tuple[float, bytes]


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def event(name: str, seconds: float, **fields: str) -> Said:
    lines = [f"Event: {name}", f"Timestamp: {at(seconds).timestamp():.6f}", *(f"{k}: {v}" for k, v in fields.items())]
    return seconds, "\r\n".join(lines).encode()


def opened(seconds: float, channel: str, *, linked: str = "", name: str = "PJSIP/101-0001") -> Said:
    return event("Newchannel", seconds, Channel=name, ChannelState="4", CallerIDNum="101", Context="phones",
                 Exten="102", Uniqueid=channel, Linkedid=linked or channel)  # fmt: skip


def up(seconds: float, channel: str) -> Said:
    return event("Newstate", seconds, Uniqueid=channel, Linkedid=channel, ChannelState="6")


def gone(seconds: float, channel: str, *, linked: str = "") -> Said:
    return event("Hangup", seconds, Uniqueid=channel, Linkedid=linked or channel, Cause="16")


def listed(seconds: float, channel: str, *, name: str = "PJSIP/101-0001") -> Said:
    return event("CoreShowChannel", seconds, Channel=name, ChannelState="6", CallerIDNum="101", Context="phones",
                 Exten="102", Uniqueid=channel, Linkedid=channel, Duration="00:00:10")  # fmt: skip


def list_ends(seconds: float) -> list[Said]:
    return [event("CoreShowChannelsComplete", seconds), (seconds, SNAPSHOT_TAKEN)]


class NoLiveStore:
    def mark(self, context: CallContext) -> None: ...

    def ended(self, context: CallContext) -> None: ...

    def settled(self, pbx: str) -> None: ...

    def noted(self, call_sid: str) -> None: ...

    def committed(self, **_calls: object) -> None: ...


class Life:
    """One run of the agent's core; it ends without any goodbye."""

    def __init__(self, store: Store, tracker: Tracker) -> None:
        self._store = store
        self._interpreter = AsteriskInterpreter()
        self.tracker = tracker
        self.feed = tracker.add_pbx("p", rules=CallRules(), interpreter=AsteriskInterpreter())

    async def says(self, *said: Said) -> None:
        """Heard and committed together."""
        for seconds, frame in said:
            self.feed.heard(frame, self._interpreter.interpret(frame, at(seconds)), at(seconds))
        await self.tracker.commit_heard()

    def live(self) -> list[str]:
        return sorted(call.call_sid for call in self.tracker.live_calls())

    async def rows(self, query: str) -> list[tuple[Any, ...]]:  # Any: columns
        return await self._store.reader.run(lambda connection: connection.execute(query).fetchall())

    async def anchors(self) -> list[str]:
        return sorted(sid for (sid,) in await self.rows("SELECT call_sid FROM live_call"))

    async def calls(self) -> list[tuple[Any, ...]]:  # Any: columns
        return await self.rows("SELECT call_sid, revision, start_time, end_time, end_estimated FROM call ORDER BY id")


def utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def life(database: Path, *, now: Callable[[], datetime] = utc_now) -> AsyncIterator[Life]:
    async with open_store(database) as store:
        writer = await Writer.over(store.connection)
        tracker = Tracker(
            site="s",
            tenancy=TenancySettings(default="acme"),
            writer=writer,
            journal=Journal(store, writer),
            live=NoLiveStore(),
            commit_interval=timedelta(milliseconds=1),
            on_commit=lambda: None,
            now=now,
        )
        one = Life(store, tracker)
        await tracker.restore(interpreter=AsteriskInterpreter)
        yield one


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "edge.db"


async def test_a_live_call_is_live_again_and_ends_when_it_ends(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"), up(1, "X"))
    async with life(database) as second:
        assert second.live() == ["s:p:X"]
        await second.says(gone(60, "X"))
        assert await second.anchors() == []
        ((sid, revision, start, end, estimated),) = await second.calls()
    assert (sid, revision, start[11:19], end[11:19], estimated) == ("s:p:X", 1, "09:00:00", "09:01:00", 0)


async def test_what_ended_before_the_crash_is_left_as_it_was(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"), opened(1, "Y", name="PJSIP/103-2"))
        await first.says(gone(5, "Y"))
        before = await first.calls()
    async with life(database) as second:
        await second.says(listed(30, "X"), *list_ends(30))
        assert (second.live(), await second.calls()) == (["s:p:X"], before)


async def test_a_straggler_of_an_ended_call_does_not_take_its_record_after_a_crash(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(0, "L"), up(1, "L"))
        await first.says(gone(60, "L"))
        await first.says(opened(61, "C", linked="L", name="PJSIP/102-2"))
        before = await first.calls()
    async with life(database) as second:
        assert second.live() == ["s:p:C"]
        await second.says(gone(100, "C", linked="L"))
        assert [row[0] for row in await second.calls()] == ["s:p:L", "s:p:C"]
        assert (await second.calls())[0] == before[0]
        assert await second.anchors() == []


async def test_a_call_closed_by_estimate_stays_closed_after_a_second_crash(database: Path) -> None:
    async with life(database) as first:
        await first.says(*list_ends(0))
        await first.says(opened(1, "Y"))
        await first.says(opened(2, "X", name="PJSIP/103-3"), up(2, "X"))
        await first.says(listed(5, "Y"), listed(5, "X", name="PJSIP/103-3"), *list_ends(5))
    async with life(database) as second:
        await second.says(listed(100, "Y"), *list_ends(100))
        before = await second.calls()
        await second.says(up(500, "Y"))
    async with life(database) as third:
        await third.says(listed(600, "Y"), *list_ends(600))
        assert (third.live(), await third.calls()) == (["s:p:Y"], before)


async def test_a_call_that_opened_while_the_list_came_outlives_a_crash(database: Path) -> None:
    async with life(database) as first:
        await first.says(*list_ends(0))
        await first.says(opened(1, "O"))
        await first.says(listed(5, "O"))
        await first.says(gone(5.01, "O"), opened(5.02, "N", name="PJSIP/105-1"))
        await first.says(*list_ends(5.1))
    async with life(database) as second:
        assert second.live() == ["s:p:N"]
        await second.says(listed(30, "N", name="PJSIP/105-1"), *list_ends(30))
        await second.says(gone(40, "N"))
        assert [row[0] for row in await second.calls()] == ["s:p:O", "s:p:N"]
        assert await second.anchors() == []


async def test_a_call_missing_in_one_list_before_the_crash_is_told_after_it(database: Path) -> None:
    async with life(database) as first:
        await first.says(*list_ends(0))
        await first.says(opened(1, "N"), up(2, "N"))
        await first.says(*list_ends(5))  # its Hangup is on the way
        assert first.live() == ["s:p:N"]
    async with life(database) as second:
        await second.says(*list_ends(30))
        assert [(row[0], row[4]) for row in await second.calls()] == [("s:p:N", 1)]
        assert await second.anchors() == []


async def test_a_live_call_whose_journal_is_damaged_keeps_no_anchor_and_is_found_by_the_list(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(0, "N"))
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE journal_segment SET blob = x'0102'")
        connection.commit()
    async with life(database) as second:
        await second.says(listed(30, "N"), *list_ends(30))
        assert second.live() == ["s:p:N"]
        await second.says(gone(40, "N"))
        assert (await second.anchors(), [row[0] for row in await second.calls()]) == ([], ["s:p:N"])


async def test_live_calls_of_a_pbx_that_left_the_settings_end(database: Path) -> None:
    async with life(database) as first:
        other = first.tracker.add_pbx("old", rules=CallRules(), interpreter=AsteriskInterpreter())
        seconds, frame = opened(0, "Z")
        other.heard(frame, AsteriskInterpreter().interpret(frame, at(seconds)), at(seconds))
        await first.tracker.commit_heard()
        assert await first.anchors() == ["s:old:Z"]
    async with life(database) as second:
        await second.tracker.commit_heard()
        assert (await second.anchors(), [(row[0], row[4]) for row in await second.calls()]) == ([], [("s:old:Z", 1)])


BOOT = datetime(1970, 1, 1, 0, 0, 30, tzinfo=UTC)


def by_wrong_clock(said: Said) -> tuple[bytes, datetime]:
    """What Asterisk says on a machine that was just switched on, and when it seems to come."""
    seconds, frame = said
    stamp = BOOT + timedelta(seconds=seconds)
    return frame.replace(f"{at(seconds).timestamp():.6f}".encode(), f"{stamp.timestamp():.6f}".encode()), stamp


async def test_what_is_heard_before_the_clock_is_set_is_put_right_and_so_is_the_gap(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"))
        await first.says(gone(5, "X"))

    async with life(database, now=lambda: BOOT) as second:
        assert second.tracker.clock_doubt("p") is not None
        interpreter = AsteriskInterpreter()
        for said in (opened(3600, "Y"), gone(3660, "Y"), opened(3665, "Z")):
            frame, came = by_wrong_clock(said)
            second.feed.heard(frame, interpreter.interpret(frame, came), came)
        await second.tracker.commit_heard()
        assert await second.rows("SELECT from_at, to_at FROM gap") == [(moment_text(at(5)), None)]
        assert [start[:4] for _, _, start, _, _ in await second.calls()] == ["2026", "1970"]

        second.feed.clock_set(at(3670), (at(0) - BOOT).total_seconds())
        await second.says(gone(3680, "Z"))

        assert second.tracker.clock_doubt("p") is None
        assert await second.calls() == [
            ("s:p:X", 1, moment_text(at(0)), moment_text(at(5)), 0),
            ("s:p:Y", 2, moment_text(at(3600)), moment_text(at(3660)), 0),
            ("s:p:Z", 1, moment_text(at(3665)), moment_text(at(3680)), 0),
        ]
        assert await second.rows("SELECT from_at, to_at FROM gap") == [(moment_text(at(5)), moment_text(at(3600)))]


async def test_a_clock_set_under_a_live_call_is_known_after_a_crash(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"), up(1, "X"))
        first.feed.clock_set(at(-3590), -3600.0)
        await first.tracker.commit_heard()
    async with life(database) as second:
        await second.says(gone(-3540, "X"))
        ((sid, _, start, end, _),) = await second.calls()
    assert (sid, start, end) == ("s:p:X", moment_text(at(-3600)), moment_text(at(-3540)))


async def test_a_clock_that_was_set_right_while_nobody_listened_is_doubted_no_more(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"))
    async with life(database, now=lambda: BOOT) as second:
        await second.says(up(1, "X"))
    async with life(database) as third:
        assert third.tracker.clock_doubt("p") is None
        third.feed.clock_set(at(-3590), -3600.0)
        await third.says(gone(-3500, "X"))
        assert [(sid, revision) for sid, revision, *_ in await third.calls()] == [("s:p:X", 1)]


async def test_a_clock_that_comes_by_itself_to_where_it_must_have_been_is_believed(database: Path) -> None:
    async with life(database) as first:
        await first.says(opened(600, "X"))
        await first.says(gone(601, "X"))
    async with life(database, now=lambda: at(0)) as second:
        assert second.tracker.clock_doubt("p") is not None
        await second.says(opened(10, "Y"))
        await second.says(up(602, "Y"))
        assert second.tracker.clock_doubt("p") is None
        assert await second.rows("SELECT from_at, to_at FROM gap") == [(moment_text(at(601)), moment_text(at(601)))]


async def test_legs_that_come_before_the_first_list_of_channels_ever_are_of_the_call_that_it_lists(
    database: Path,
) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X", linked="Q"), gone(1, "X", linked="Q"))
        await first.says(opened(2, "Y", linked="Q", name="PJSIP/102-2"), listed(3, "Q"), *list_ends(3))
        assert first.live() == ["s:p:Q"]
    async with life(database) as second:
        await second.says(listed(4, "Q"), *list_ends(4), gone(5, "Y", linked="Q"), gone(5, "Q"))
        assert [sid for sid, *_ in await second.calls()] == ["s:p:Q"]
