"""Cuts a piece of a growing file into whole records: lines, or lines that belong together because of open quotes."""

from dataclasses import dataclass
from typing import Final

MAX_RECORD_BYTES: Final = 64 * 1024  # the longest honest one, a CEL row with a long `extra`, has a few KiB
MAX_RECORD_LINES: Final = 20  # a quotation open for longer was never closed: a writer died in the middle of a record
TOO_LONG: Final = f"longer than {MAX_RECORD_BYTES // 1024} KiB"
NEVER_CLOSED: Final = "a quotation in it is never closed"


@dataclass(frozen=True, slots=True)
class Piece:
    """From where to where a record is in what was read, its line end included; `fault`: why it is none."""

    start: int
    end: int
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Cut:
    """The records found, how many bytes they and what was skipped take, and whether skipping goes on."""

    pieces: list[Piece]
    used: int
    skipping: bool


def cut(data: bytes, *, quotes: bool, skipping: bool) -> Cut:
    """The whole records at the beginning of `data`; what follows `used` is not complete yet.

    `skipping`: `data` begins inside a record that was too long and is over at the next line end.
    """
    pieces: list[Piece] = []
    start = 0
    if skipping:
        start = data.find(b"\n") + 1
        if not start:
            return Cut([], len(data), True)
    while start < len(data):
        end = _quoted_end(data, start) if quotes else data.find(b"\n", start) + 1
        if end > 0 and end - start <= MAX_RECORD_BYTES:
            pieces.append(Piece(start, end))
        elif end == 0 and len(data) - start <= MAX_RECORD_BYTES:
            break
        else:
            end = data.find(b"\n", start) + 1 or len(data)
            is_long = end - start > MAX_RECORD_BYTES
            pieces.append(Piece(start, end, TOO_LONG if is_long else NEVER_CLOSED))
            if data[end - 1 : end] != b"\n":
                return Cut(pieces, end, True)
        start = end
    return Cut(pieces, start, False)


def _quoted_end(data: bytes, start: int) -> int:
    """Where the record ends, 0: not in `data`, -1: it has too many lines. A quote within quotes is doubled."""
    end = start
    is_open = False
    for _ in range(MAX_RECORD_LINES):
        line, end = end, data.find(b"\n", end) + 1
        if not end:
            return 0
        is_open ^= data.count(b'"', line, end) % 2 == 1
        if not is_open:
            return end
    return -1
