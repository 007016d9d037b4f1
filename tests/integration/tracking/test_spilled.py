"""What could not be committed, over the ends of processes: taken up in order and once."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.rules import CallRules
from agent.errors import StoreUnavailable
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.store.engine import EdgeConnection, open_store
from agent.store.journal import Journal
from agent.store.segment import Frame, Segment
from agent.store.spill import Spill, read_position
from agent.store.writer import Writer
from agent.tracking.tracker import Tracker
from config.settings import TenancySettings
from tests.integration.tracking.test_restore import NoLiveStore, Said, at, gone, opened, up

FULL = "the disk is full"


class Disk:
    """Refuses to commit while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        self._run = EdgeConnection.run
        disk = self

        async def run(self: EdgeConnection, work: Any) -> Any:  # Any: as `EdgeConnection.run`
            if disk.is_full and getattr(getattr(work, "func", work), "__name__", "") == "_commit":
                raise StoreUnavailable(FULL)
            return await disk._run(self, work)

        monkeypatch.setattr(EdgeConnection, "run", run)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


class Life:
    """One run of the agent's core with a spill; it ends without any goodbye."""

    def __init__(self, tracker: Tracker, journal: Journal, spill: Spill) -> None:
        self.tracker = tracker
        self.journal = journal
        self.spill = spill
        self.feed = tracker.add_pbx("p", rules=CallRules(), interpreter=AsteriskInterpreter())
        self._interpreter = AsteriskInterpreter()

    async def says(self, *said: Said) -> None:
        for seconds, frame in said:
            self.feed.heard(frame, self._interpreter.interpret(frame, at(seconds)), at(seconds))
        await self.tracker.commit_heard()

    def live(self) -> list[str]:
        return sorted(call.call_sid for call in self.tracker.live_calls())


@asynccontextmanager
async def life(database: Path, *, max_bytes: int = 1 << 20) -> AsyncIterator[Life]:
    async with open_store(database) as store:
        writer = await Writer.over(store.connection)
        spill = await Spill.open(database, max_bytes=max_bytes)
        spill.begin_at(*await store.connection.run(read_position))
        journal = Journal(store, writer)
        tracker = Tracker(
            site="s",
            tenancy=TenancySettings(default="acme"),
            writer=writer,
            journal=journal,
            live=NoLiveStore(),
            commit_interval=timedelta(milliseconds=1),
            on_commit=lambda: None,
            spill=spill,
            now=lambda: datetime.now(UTC),
        )
        one = Life(tracker, journal, spill)
        await tracker.take_up()
        await tracker.restore(interpreter=AsteriskInterpreter)
        try:
            yield one
        finally:
            spill.close()


async def rows(database: Path, query: str) -> list[tuple[Any, ...]]:  # Any: columns
    async with open_store(database) as store:
        return await store.reader.run(lambda connection: connection.execute(query).fetchall())


CALLS = "SELECT call_sid, revision, substr(start_time, 12, 8), substr(end_time, 12, 8), end_estimated FROM call"


def raw(*said: Said) -> Segment:
    """As a connector's words come when nobody can interpret them."""
    first = said[0][0]
    frames = [Frame(round((seconds - first) * 1e6), data) for seconds, data in said]
    return Segment(0, "p", "another boot", 1, at(first), 1, frames)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "edge.db"


async def test_a_call_that_was_spilled_stands_in_the_database_after_the_next_start(database: Path, disk: Disk) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"), up(1, "X"))
        disk.is_full = True
        await first.says(gone(60, "X"))
        await first.says(opened(61, "Y", name="PJSIP/103-2"))
        assert first.tracker.status.store_error == FULL
    disk.is_full = False
    async with life(database) as second:
        assert second.live() == ["s:p:Y"]
        assert not second.spill.path.exists()
    assert await rows(database, CALLS) == [("s:p:X", 1, "09:00:00", "09:01:00", 0)]


async def test_a_start_on_a_full_disk_goes_on_from_what_was_spilled(database: Path, disk: Disk) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"))
        disk.is_full = True
        await first.says(up(1, "X"), opened(2, "Y", name="PJSIP/103-2"))
        await first.says(gone(5, "X"))
    async with life(database) as second:
        assert second.live() == ["s:p:Y"]
        await second.says(gone(9, "Y"))
    disk.is_full = False
    async with life(database):
        pass
    assert await rows(database, CALLS) == [
        ("s:p:X", 1, "09:00:00", "09:00:05", 0),
        ("s:p:Y", 1, "09:00:02", "09:00:09", 0),
    ]
    assert await rows(database, "SELECT count(*) FROM live_call") == [(0,)]


async def test_what_comes_while_the_spill_is_taken_up_goes_behind_it(database: Path, disk: Disk) -> None:
    async with life(database) as one:
        disk.is_full = True
        await one.says(opened(0, "X"))
        disk.is_full = False
        await one.says(up(1, "X"))
        await one.says(gone(60, "X"))
        one.tracker._next_take_up = 0.0  # two seconds later
        await one.tracker.commit_heard()
        assert not one.spill.path.exists()
        ids = [segment.id async for segment in one.journal.replay_from("p", 0)]
        assert ids == sorted(ids)
    assert await rows(database, CALLS) == [("s:p:X", 1, "09:00:00", "09:01:00", 0)]


async def test_a_kill_between_the_commit_and_the_end_of_the_file_doubles_nothing(database: Path, disk: Disk) -> None:
    async with life(database) as first:
        disk.is_full = True
        await first.says(opened(0, "X"), gone(9, "X"))
        kept = first.spill.path.read_bytes()
    disk.is_full = False
    async with life(database):
        pass
    segments = await rows(database, "SELECT count(*) FROM journal_segment")
    Spill(database, max_bytes=1).path.write_bytes(kept)
    async with life(database) as third:
        assert third.live() == []
    assert await rows(database, CALLS) == [("s:p:X", 1, "09:00:00", "09:00:09", 0)]
    assert (await rows(database, "SELECT count(*) FROM journal_segment"))[0][0] <= segments[0][0] + 1  # one more start


async def test_a_spill_that_took_nothing_is_no_trouble_any_more_once_the_database_takes_all(
    database: Path, disk: Disk
) -> None:
    async with life(database, max_bytes=1) as one:
        disk.is_full = True
        one.tracker.finish()  # so that it is tried once only
        await one.says(opened(0, "X"))
        first = replace(one.tracker.status)
        disk.is_full = False
        await one.says(gone(60, "X"))
        last = one.tracker.status
        assert (first.spill_error is None, last.spill_error, last.store_error) == (False, None, None)


async def test_a_full_spill_leaves_the_rest_in_memory_and_is_still_taken_up(database: Path, disk: Disk) -> None:
    async with life(database, max_bytes=600) as one:
        disk.is_full = True
        await one.says(opened(0, "X"))
        one.tracker.finish()  # so that it is tried once only
        await one.says(up(1, "X"), gone(60, "X"))
        assert one.tracker.status.spill_error is not None
        disk.is_full = False
        one.tracker._next_take_up = 0.0
        await one.tracker.commit_heard()
        await one.tracker.commit_heard()
    assert await rows(database, CALLS) == [("s:p:X", 1, "09:00:00", "09:01:00", 0)]


async def spill_raw(database: Path, *segments: Segment) -> None:
    spill = await Spill.open(database, max_bytes=1 << 20)
    await spill.append_raw(segments)
    spill.close()


RAW: Sequence[Segment] = (
    raw(up(20, "X"), opened(21, "Y", name="PJSIP/103-2")),
    raw(gone(30, "X"), gone(31, "Y")),
    raw(opened(40, "Z", name="PJSIP/104-2")),
)


async def test_raw_segments_are_heard_as_they_came_and_once(database: Path, disk: Disk) -> None:
    async with life(database) as first:
        await first.says(opened(0, "X"))
    await spill_raw(database, *RAW)
    for _ in range(2):
        async with life(database) as after:
            assert after.live() == ["s:p:Z"]
            assert not after.spill.path.exists()
            await after.tracker.commit_heard()
    assert await rows(database, CALLS) == [
        ("s:p:X", 1, "09:00:00", "09:00:30", 0),
        ("s:p:Y", 1, "09:00:21", "09:00:31", 0),
    ]
    gaps = await rows(database, "SELECT substr(from_at, 12, 8), substr(to_at, 12, 8) FROM gap ORDER BY from_at")
    assert gaps[-1] == ("09:00:40", None)
    boots = await rows(database, "SELECT DISTINCT boot_id FROM journal_segment")
    assert ("another boot",) in boots


async def test_raw_segments_heard_on_a_full_disk_are_heard_once_as_well(database: Path, disk: Disk) -> None:
    async with life(database) as first:
        await first.says(opened(0, "A", name="PJSIP/109-2"))
    await spill_raw(database, *RAW)
    disk.is_full = True
    async with life(database) as second:
        assert "s:p:Z" in second.live()
        assert second.spill.holds_groups
        assert not second.spill.holds_raw
    async with life(database) as third:
        assert "s:p:Z" in third.live()
    disk.is_full = False
    async with life(database) as fourth:
        assert "s:p:Z" in fourth.live()
    counted = await rows(database, "SELECT call_sid, count(*) FROM call GROUP BY call_sid")
    assert ("s:p:Y", 1) in counted
    assert {count for _, count in counted} == {1}
