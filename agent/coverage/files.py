"""The records of a PBX's file and of what it was before it was rotated, compressed or not, from a moment on."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final

from agent.coverage.errors import NotVerifiable
from agent.pbx.asterisk.cdr_lines import RecordCutter
from agent.sources.tail import COMPRESSED, ROTATED, trouble_with

_PIECE_BYTES: Final = 256 * 1024
_PROBE_BYTES: Final = 128 * 1024  # more than any record
_NEAR_BYTES: Final = 1024 * 1024  # from so close on it is read rather than looked for
_OPENERS: Final[dict[str, Callable[[Path], Any]]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_DAMAGED: Final = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)
# A file that was last written so long before a moment tells nothing of it; clocks and copies are not exact.
_STALE: Final = timedelta(hours=1)

# When a record was written, None if it is none. It is shown the first record of a file first, which may be a header.
MomentOf = Callable[[bytes], datetime | None]


@dataclass(frozen=True, slots=True)
class Chain:
    """Files to be read one after the other; `is_cut`: there were older ones, which tell nothing of that time."""

    paths: tuple[Path, ...]
    is_cut: bool


def chain_of(path: Path, since: datetime) -> Chain:
    """The file and those that were it and were written to after `since`, the oldest first. Raises NotVerifiable."""
    try:
        names = [each.name for each in path.parent.iterdir() if each.name.startswith(path.name)]
        written = {path.with_name(name): _written_at(path, name) for name in names}
        found = [(at, each) for each, at in written.items() if at is not None]
        if not found:
            path.stat()
    except OSError as exc:
        raise NotVerifiable(trouble_with(path, exc)) from exc
    earliest = (since - _STALE).timestamp()
    # Whatever its time, the file itself is the latest.
    ordered = sorted(found, key=lambda one: (one[1] == path, one[0]))
    wanted = [each for at, each in ordered if at >= earliest]
    return Chain(tuple(wanted), is_cut=len(wanted) < len(found))


def _written_at(path: Path, name: str) -> float | None:
    """When a file beside it, or it itself, was last written; None for one that never was it."""
    end = name.removeprefix(path.name)
    for suffix in COMPRESSED:
        end = end.removesuffix(suffix)
    if end and not ROTATED.fullmatch(end):
        return None
    try:
        return path.with_name(name).stat().st_mtime
    except FileNotFoundError:  # rotated once more just now
        return None


def records_of(path: Path, *, since: datetime, moment_of: MomentOf) -> Generator[bytes | None, None, None]:
    """The records of one file, from some before `since` on; None stands for those that were passed over.

    What is behind the last line's end is no record yet. Raises NotVerifiable.
    """
    if path.suffix == ".zst":
        raise NotVerifiable(f"{path} is compressed in a way that is not read here; use gzip, or decompress it")
    is_compressed = path.suffix in COMPRESSED
    try:
        with _OPENERS[path.suffix](path) if is_compressed else path.open("rb") as file:
            first, _, _ = file.read(_PROBE_BYTES).partition(b"\n")
            moment_of(first)
            begin = 0 if is_compressed else _looked_for(file, since, moment_of)
            if begin:
                yield None
            file.seek(begin)
            yield from _cut(file)
    except _DAMAGED as exc:
        raise NotVerifiable(f"{path}: the compressed file is damaged ({exc})") from exc
    except OSError as exc:
        raise NotVerifiable(trouble_with(path, exc)) from exc


def _cut(file: IO[bytes]) -> Iterator[bytes]:
    cutter = RecordCutter()
    while piece := file.read(_PIECE_BYTES):
        for cut in cutter.feed(piece):
            yield cut.raw  # what is none of it says so itself when it is read
    # A last line that has no end is being written.


def _looked_for(file: IO[bytes], since: datetime, moment_of: MomentOf) -> int:
    """Where a record begins that was written before `since`, and not long before; records are in the order of time."""
    file.seek(0, 2)
    low, high = 0, file.tell()
    while high - low > _NEAR_BYTES:
        middle = (low + high) // 2
        file.seek(middle)
        probe = file.read(_PROBE_BYTES)
        start = probe.find(b"\n") + 1
        # The latest of many: some may have been written by a clock that was wrong.
        times = (at for line in probe[start:].split(b"\n")[:-1] if (at := moment_of(line)) is not None)
        at = max(times, default=None)
        if at is not None and at < since:
            low = middle + start
        else:
            high = middle
    return low
