import asyncio
import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from agent.sources.lines import MAX_RECORD_BYTES, TOO_LONG
from agent.sources.source import looks
from agent.sources.tail import LINGER_SECONDS, Chunk, FilePlace, Tail


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Reading:
    """A tail that is read as the product reads it, on a clock that jumps."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.tail = Tail(path, monotonic=self.clock)
        self.faults: list[str] = []
        self.notes: list[str] = []

    def records(self) -> list[str]:
        """What comes until all is read."""
        found: list[str] = []
        while True:
            chunk = self.look()
            found += [record.data.decode() for record in chunk.records if record.fault is None]
            self.faults += [record.fault for record in chunk.records if record.fault is not None]
            if chunk.is_at_end or chunk.trouble is not None:
                return found

    def look(self) -> Chunk:
        self.clock.now += LINGER_SECONDS
        chunk = self.tail.read()
        self.notes += chunk.notes
        return chunk

    def restart(self, place: FilePlace | None = None) -> None:
        """As after a crash, with the place that was kept."""
        self.tail.close()
        self.tail = Tail(self.path, place or FilePlace.from_json(self.tail.place.as_json()), monotonic=self.clock)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "Master.csv"


@pytest.fixture
def reading(log: Path) -> Iterator[Reading]:
    reading = Reading(log)
    yield reading
    reading.tail.close()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


_written = iter(range(1, 10_000))


def written_last(path: Path) -> None:
    """Real rotations lie days apart; here their order is told to the file system."""
    moment = 1_700_000_000 + next(_written)
    os.utime(path, (moment, moment))


def rename(path: Path, to: str = "Master.csv.1") -> Path:
    written_last(path)
    return path.rename(path.with_name(to))


def copy_truncate(path: Path, to: str = "Master.csv.1") -> None:
    path.with_name(to).write_bytes(path.read_bytes())
    written_last(path.with_name(to))
    os.truncate(path, 0)


def test_it_waits_for_a_file_that_is_away(reading: Reading, log: Path) -> None:
    assert "does not exist" in str(reading.look().trouble)
    append(log, "a\n")
    assert reading.records() == ["a"]


def test_a_half_written_line_is_read_once_it_has_its_end(reading: Reading, log: Path) -> None:
    append(log, "a\nb")
    assert reading.records() == ["a"]
    assert reading.look().is_at_end
    append(log, "c\r\n")
    assert reading.records() == ["bc"]


def test_a_renamed_file_is_finished_before_the_new_one(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    assert reading.records() == ["a"]
    old = rename(log)
    append(log, "c\n")
    append(old, "b\n")  # its writer has not yet been told
    assert reading.records() == ["b", "c"]


def test_until_a_renamed_file_is_quiet_nobody_says_that_all_was_read(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    rename(log)
    append(log, "b\n")
    reading.clock.now -= LINGER_SECONDS
    assert not reading.look().is_at_end


@pytest.mark.parametrize("to", ["Master.csv.1", "Master.csv.0", "Master.csv-20261122", "Master.csv.2026-11-22"])
def test_a_file_renamed_while_nobody_read_is_found_again(reading: Reading, log: Path, to: str) -> None:
    append(log, "a\n")
    reading.records()
    append(log, "b\n")
    rename(log, to)
    append(log, "c\n")
    reading.restart()
    assert reading.records() == ["b", "c"]


def test_several_rotations_while_nobody_read_are_caught_up_in_order(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    append(log, "b\n")
    rename(log, "Master.csv.2")
    append(log, "c\n")
    rename(log, "Master.csv.1")
    append(log, "d\n")
    reading.restart()
    assert reading.records() == ["b", "c", "d"]


def test_a_file_copied_and_cut_is_read_in_its_copy_and_from_its_beginning(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    append(log, "b\n")
    copy_truncate(log)
    append(log, "c\n")
    assert reading.records() == ["b", "c"]
    assert not reading.notes


def test_a_cut_file_that_grew_past_the_place_is_noticed(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    os.truncate(log, 0)
    append(log, "much more than before\n")
    assert reading.records() == ["much more than before"]
    assert "is not the file that was read before" in reading.notes[0]


def test_a_replaced_file_of_the_same_size_is_noticed(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    log.write_text("b\n")
    assert reading.records() == ["b"]


def test_a_file_brought_to_another_disk_goes_on_where_it_was(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    append(log, "b\n")
    copy = log.with_name("copy")
    copy.write_bytes(log.read_bytes())
    reading.tail.close()
    copy.rename(log)
    reading.restart()
    assert reading.records() == ["b"]


def test_a_compressed_file_is_left_alone_and_told(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    log.unlink()
    log.with_name("Master.csv.1.gz").write_bytes(b"\x1f\x8b")
    append(log, "b\n")
    reading.restart()
    assert reading.records() == ["b"]
    assert "delaycompress" in reading.notes[0]


def test_other_files_beside_it_are_none_of_it(reading: Reading, log: Path) -> None:
    append(log, "a\n")
    reading.records()
    for name in ("Master.csv.bak", "Master.csv.old", "Master.csv~"):
        append(log.with_name(name), "a\nnever\n")
    rename(log)
    append(log, "b\n")
    reading.restart()
    assert reading.records() == ["b"]


def test_a_line_that_is_too_long_is_set_aside_and_reading_goes_on(reading: Reading, log: Path) -> None:
    append(log, "a\n" + "x" * (10 * MAX_RECORD_BYTES))
    assert reading.records() == ["a"]
    reading.restart()
    append(log, "its end\nb\n")
    assert reading.records() == ["b"]
    assert reading.faults == [TOO_LONG]


def test_the_unfinished_last_line_of_a_rotated_file_is_set_aside(reading: Reading, log: Path) -> None:
    append(log, "a\nhalf")
    reading.records()
    rename(log)
    append(log, "b\n")
    assert reading.records() == ["b"]
    assert "no end" in reading.faults[0]


def test_blocks_that_were_never_written_are_not_part_of_the_line(reading: Reading, log: Path) -> None:
    append(log, "\0" * 4096 + "a\n")
    assert reading.records() == ["a"]


def test_a_directory_and_a_pipe_are_told_as_no_file(reading: Reading, log: Path) -> None:
    log.mkdir()
    assert "is no file" in str(reading.look().trouble)
    log.rmdir()
    os.mkfifo(log)
    assert "is no file" in str(reading.look().trouble)
    log.unlink()
    append(log, "a\n")
    assert reading.records() == ["a"]


def test_a_file_that_may_not_be_read_is_told_and_tried_again(
    reading: Reading, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(log, "a\n")
    real = os.open

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(log))

    monkeypatch.setattr("agent.sources.tail.os.open", refuse)
    assert "SupplementaryGroups=asterisk" in str(reading.look().trouble)
    monkeypatch.setattr("agent.sources.tail.os.open", real)
    assert reading.records() == ["a"]


def test_a_directory_that_may_not_be_listed_only_matters_when_the_file_is_gone_from_its_name(
    reading: Reading, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    append(log, "a\n")
    reading.records()
    append(log, "b\n")
    monkeypatch.setattr("agent.sources.tail.os.scandir", refuse)
    reading.restart()
    assert reading.records() == ["b"]
    rename(log)
    append(log, "c\n")
    reading.restart()
    assert f"{log.parent} cannot be read" in str(reading.look().trouble)
    monkeypatch.undo()
    assert reading.records() == ["c"]


def test_reading_again_from_a_record_gives_it_and_all_after_it(reading: Reading, log: Path) -> None:
    append(log, "a\nb\nc\n")
    chunk = reading.look()
    for number, record in enumerate(chunk.records):
        reading.restart(record.at)
        assert reading.records() == ["a", "b", "c"][number:]
        reading.restart(record.after)
        assert reading.records() == ["a", "b", "c"][number + 1 :]


async def test_chunks_come_as_the_file_grows_and_pause_while_it_does_not(log: Path) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        append(log, f"{len(pauses)}\n")

    found: list[bytes] = []
    async with aclosing(looks(Tail(log), poll_seconds=0.25, pause=pause)) as stream:
        async for chunk in stream:
            found += [record.raw for record in chunk.records]
            if len(found) == 3:
                break
    assert found == [b"1", b"2", b"3"]
    assert set(pauses) == {0.25}


async def test_a_reader_that_is_cancelled_closes_its_file(log: Path) -> None:
    append(log, "a\n")
    tail = Tail(log)
    seen = asyncio.Event()

    async def read() -> None:
        async with aclosing(looks(tail, poll_seconds=60)) as stream:
            async for chunk in stream:
                if chunk.is_at_end:
                    seen.set()

    task = asyncio.create_task(read())
    await asyncio.wait_for(seen.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tail._fd is None
