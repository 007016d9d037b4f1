"""The spill's file: what goes in comes out in its order, and wherever it is cut, whole groups are left."""

import asyncio
import errno
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.calls.context import TaskState
from agent.errors import StoreUnavailable
from agent.store.files import reserve_file, spill_file
from agent.store.pieces import piece
from agent.store.segment import Frame, Segment
from agent.store.spill import MAGIC, Spill, SpillFull
from agent.store.spilled import pack_group, unpack_group
from agent.store.writer import FinishedCall, GapClosed, GapOpened, Group, LiveAnchor
from tests.integration.store.facts import LATER, START, call, sid, task

MEGABYTE = 1 << 20


def segment(number: int = 1, *frames: bytes) -> Segment:
    told = [Frame(index * 10, data) for index, data in enumerate(frames or (b"Event: Hangup",))]
    return Segment(number, "main", "boot", 1, START + timedelta(seconds=number), number * 1000, told)


def group(number: int = 1) -> Group:
    return Group(
        segments=[segment(number)],
        opened=[LiveAnchor(sid(number), "main", number, START)],
        finished=[call(number, tasks=[task(step=number)], interactions=[{"text": "Günaydın \ud83d"}])],
        forgotten=[sid(number + 1000)],
        moved=[(sid(number + 1000), sid(number))],
        gaps=[GapOpened("main", START, "line_lost", "cut"), GapClosed("main", LATER)],
    )


async def opened(directory: Path, *, max_bytes: int = 64 * MEGABYTE) -> Spill:
    return await Spill.open(directory / "edge.db", max_bytes=max_bytes)


async def held(spill: Spill) -> list[Group]:
    found = []
    after = None
    while pending := await spill.groups(after=after, max_bytes=1):
        found += [each.content for each in pending if isinstance(each.content, Group)]
        after = pending[-1].end
    return found


def last_ids(groups: list[Group]) -> list[int]:
    return [group.segments[-1].id for group in groups]


def test_a_group_comes_back_as_it_was() -> None:
    told = group(7)
    found = unpack_group(pack_group(told, heard=0))
    assert list(found.segments) == list(told.segments)
    assert list(found.opened) == list(told.opened)
    assert (found.forgotten, found.moved, found.gaps) == (told.forgotten, told.moved, told.gaps)
    assert found.finished[0].row == told.finished[0].row
    assert found.finished[0].tasks == [TaskState(task_name="route", state_data={"step": 7}, start_time=START)]
    assert found.finished[0].interactions == [{"text": "Günaydın ?"}]


def test_a_call_that_cannot_be_written_is_refused_before_anything_is() -> None:
    with pytest.raises(ValueError, match="no columns"):
        pack_group(Group(finished=[FinishedCall({"colour": "blue"}, None)]), heard=0)


async def test_the_next_process_finds_what_the_last_one_spilled(tmp_path: Path) -> None:
    first = await opened(tmp_path)
    for number in (1, 2, 3):
        await first.append(group(number))
    first.close()

    second = await opened(tmp_path)

    assert second.holds_groups
    assert not second.holds_raw
    assert second.last_segment_id == 3
    assert last_ids(await held(second)) == [1, 2, 3]
    assert stat.S_IMODE(spill_file(tmp_path / "edge.db").stat().st_mode) == 0o600


async def test_nothing_is_made_until_something_is_spilled_nor_left_when_it_is_taken_up(tmp_path: Path) -> None:
    spill = await opened(tmp_path)
    assert list(tmp_path.iterdir()) == []
    await spill.append(group())
    pending = await spill.groups(max_bytes=MEGABYTE)
    spill.taken_up(groups=pending[-1].end)
    assert not spill.holds_groups
    await spill.clear()
    assert (list(tmp_path.iterdir()), spill.size) == ([], 0)
    await spill.append(group(9))
    assert last_ids(await held(spill)) == [9]
    spill.close()


async def test_raw_segments_stand_beside_groups_and_are_passed_over_once_a_group_tells_of_them(tmp_path: Path) -> None:
    spill = await opened(tmp_path)
    await spill.append(group(1))
    await spill.append_raw([segment(0, b"one"), segment(0, b"two")])
    first, second = await spill.raw(max_bytes=MEGABYTE)
    await spill.append(group(2), heard=first.end)
    spill.close()

    again = await opened(tmp_path)

    assert last_ids(await held(again)) == [1, 2]
    assert [each.end for each in await again.raw(max_bytes=MEGABYTE)] == [second.end]
    content = second.content
    assert isinstance(content, Segment)
    assert [frame.data for frame in content.frames] == [b"two"]


async def test_the_bound_refuses_with_a_sentence_and_keeps_what_is_there(tmp_path: Path) -> None:
    spill = await opened(tmp_path, max_bytes=3000)
    while spill.size < 2000:
        await spill.append(group(1))
    count = len(await held(spill))
    huge = Group(segments=[segment(2, os.urandom(2000))])
    with pytest.raises(SpillFull, match="spill_max_megabytes"):
        await spill.append(huge)
    spill.close()
    assert len(await held(await opened(tmp_path))) == count


async def test_a_file_of_a_newer_version_is_set_aside_and_spilling_goes_on(tmp_path: Path) -> None:
    file = spill_file(tmp_path / "edge.db")
    spill = await opened(tmp_path)
    await spill.append(group())
    spill.close()
    newer = piece(1, b'{"format": 2, "id": 1}') + piece(9, b"what nobody knows")
    file.write_bytes(MAGIC + newer)

    after = await opened(tmp_path)

    assert not after.holds_groups
    (aside,) = tmp_path.iterdir()
    assert aside.name.startswith("edge.db.spill.aside-")
    await after.append(group(5))
    after.close()


async def test_a_damaged_group_costs_itself_and_the_file_is_kept(tmp_path: Path) -> None:
    spill = await opened(tmp_path)
    ends = []
    for number in (1, 2, 3):
        await spill.append(group(number))
        ends.append(spill.size)
    spill.close()
    data = bytearray(spill_file(tmp_path / "edge.db").read_bytes())
    data[ends[0] + 200] ^= 0xFF
    spill_file(tmp_path / "edge.db").write_bytes(data)

    after = await opened(tmp_path)

    assert last_ids(await held(after)) == [1, 3]
    after.taken_up(groups=after.size)
    await after.clear()
    assert [each.name.startswith("edge.db.spill.aside-") for each in tmp_path.iterdir()] == [True]


class FullDisk:
    """Lets so many bytes be written, then says that there is no room."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._pwrite = os.pwrite

    def __call__(self, handle: int, data: bytes, at: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = memoryview(data)[: self.room]
        self.room -= len(part)
        return self._pwrite(handle, part, at)


@pytest.mark.parametrize("room", [0, 1, 8, 9, 10, 200])
async def test_a_disk_that_is_full_in_the_middle_leaves_the_file_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    spill = await opened(tmp_path)
    await spill.append(group(1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", FullDisk(room))
        with pytest.raises(StoreUnavailable, match="No space left"):
            await spill.append(group(2))
    assert last_ids(await held(spill)) == [1]
    await spill.append(group(3))
    spill.close()
    assert last_ids(await held(await opened(tmp_path))) == [1, 3]


async def test_the_reserve_becomes_the_spill_so_that_nobody_else_takes_its_room(tmp_path: Path) -> None:
    reserve = reserve_file(tmp_path / "edge.db")
    reserve.write_bytes(bytes(MEGABYTE))
    was = reserve.stat().st_ino
    spill = await opened(tmp_path)
    await spill.append(group(4))
    spill.close()
    assert not reserve.exists()
    assert (spill.path.stat().st_ino, spill.path.stat().st_size) == (was, MEGABYTE)
    again = await opened(tmp_path)
    assert last_ids(await held(again)) == [4]
    assert spill.path.stat().st_size == MEGABYTE


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[int]]:
    """A spill of five groups, and where each ends."""
    directory = tmp_path_factory.mktemp("written")

    async def write() -> list[int]:
        spill = await opened(directory)
        ends = []
        for number in range(1, 6):
            await spill.append(group(number))
            ends.append(spill.size)
        spill.close()
        return ends

    ends = asyncio.run(write())
    return spill_file(directory / "edge.db").read_bytes()[: ends[-1]], ends


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 1), zeros=st.integers(0, 100))
def test_wherever_it_is_cut_whole_groups_are_left_and_more_can_be_added(
    written: tuple[bytes, list[int]], tmp_path: Path, cut: float, zeros: int
) -> None:
    content, ends = written
    length = round(cut * ends[-1]) if cut < 0.9 else round((cut - 0.9) * 1000)  # the head is worth some more
    spill_file(tmp_path / "edge.db").write_bytes(content[:length] + bytes(zeros))
    whole = [number for number, end in enumerate(ends, start=1) if end <= length]

    async def look() -> tuple[list[int], list[int]]:
        spill = await opened(tmp_path)
        found = last_ids(await held(spill))
        await spill.append(group(9))
        spill.close()
        again = await opened(tmp_path)
        return found, last_ids(await held(again))

    found, more = asyncio.run(look())
    assert found == whole
    assert more == [*whole, 9]
    assert not list(tmp_path.glob("*.aside-*"))
