"""A file and what it was before it was rotated, read for a time without reading all of it."""

import bz2
import gzip
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.coverage.errors import NotVerifiable
from agent.coverage.files import chain_of, records_of

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def line(number: int) -> bytes:
    return f"{(NOON + timedelta(seconds=number)).isoformat()},{number},{'x' * 80}\n".encode()


def moment_of(data: bytes) -> datetime | None:
    try:
        return datetime.fromisoformat(data.partition(b",")[0].decode())
    except ValueError:
        return None


def numbers(path: Path, since: datetime) -> list[int | None]:
    found = records_of(path, since=since, moment_of=moment_of)
    return [None if each is None else int(each.split(b",")[1]) for each in found]


def write(path: Path, data: bytes, at: datetime) -> Path:
    path.write_bytes(data)
    os.utime(path, (at.timestamp(), at.timestamp()))
    return path


def test_of_a_long_file_only_what_is_near_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "Master.csv", b"".join(map(line, range(60_000))), NOON)

    found = numbers(path, NOON + timedelta(seconds=50_000))

    assert found[0] is None  # something was passed over
    first = found[1]
    assert first is not None
    assert 38_000 < first <= 50_000
    assert found[1:] == list(range(first, 60_000))


def test_a_short_file_is_read_from_its_beginning_and_a_half_last_line_is_left(tmp_path: Path) -> None:
    path = write(tmp_path / "Master.csv", b"".join(map(line, range(5))) + b"2026-11-22T12:00:05", NOON)

    assert numbers(path, NOON) == [0, 1, 2, 3, 4]


def test_rotated_files_come_in_the_order_in_which_they_were_written_and_old_ones_are_passed_over(
    tmp_path: Path,
) -> None:
    write(tmp_path / "Master.csv", line(9), NOON - timedelta(days=9))  # quiet for long, and still the latest
    write(tmp_path / "Master.csv.1", line(1), NOON)
    write(tmp_path / "Master.csv-20261121.gz", gzip.compress(line(0)), NOON - timedelta(minutes=30))
    write(tmp_path / "Master.csv.3.bz2", bz2.compress(line(0)), NOON - timedelta(days=3))
    write(tmp_path / "Master.csv.rejected", line(0), NOON)

    chain = chain_of(tmp_path / "Master.csv", NOON)

    assert [path.name for path in chain.paths] == ["Master.csv-20261121.gz", "Master.csv.1"]
    assert chain.is_cut
    all_of_it = chain_of(tmp_path / "Master.csv", NOON - timedelta(days=10))
    assert [path.name for path in all_of_it.paths] == [
        "Master.csv.3.bz2", "Master.csv-20261121.gz", "Master.csv.1", "Master.csv",
    ]  # fmt: skip
    assert not all_of_it.is_cut
    assert [number for path in all_of_it.paths for number in numbers(path, NOON)] == [0, 0, 1, 9]


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotVerifiable, match="does not exist"):
        chain_of(tmp_path / "Master.csv", NOON)
    damaged = write(tmp_path / "Master.csv.1.gz", gzip.compress(line(0) * 1000)[:-20], NOON)
    with pytest.raises(NotVerifiable, match="damaged"):
        numbers(damaged, NOON)
    with pytest.raises(NotVerifiable, match="compressed in a way"):
        numbers(write(tmp_path / "Master.csv.2.zst", b"", NOON), NOON)


def test_lines_of_a_clock_that_was_wrong_hide_nothing_of_a_long_file(tmp_path: Path) -> None:
    wrong = [b"1970-01-01T00:00:00+00:00,-1," + b"x" * 80 + b"\n"] * 300
    lines = [*map(line, range(30_000)), *wrong, *map(line, range(30_000, 60_000))]
    path = write(tmp_path / "Master.csv", b"".join(lines), NOON)

    found = numbers(path, NOON + timedelta(seconds=100))

    assert set(range(100, 60_000)) <= set(found)
