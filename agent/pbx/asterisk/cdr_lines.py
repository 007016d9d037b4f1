"""Cuts a CDR file into records without I/O: lines, those with line breaks inside quotes, and what is no record.

A quote that was never closed, as after a crash, must not swallow the rest of the file: the line it stands in is set
aside and the next one begins a new record.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_RECORD_BYTES: Final = 64 * 1024  # Asterisk's own lines have at most a few KiB
_MAX_LINES: Final = 50  # of one record with line breaks inside quotes
_ENOUGH_COLUMNS: Final = 8  # a line with that many commas is no continuation of a name

TOO_LONG: Final = f"it is longer than {MAX_RECORD_BYTES // 1024} KiB"
NEVER_CLOSED: Final = "a quote in it is never closed"


class Cut(NamedTuple):
    """One record, or what is none; `line` is where it begins, counted from 1."""

    line: int
    raw: bytes
    fault: str | None = None
    is_half: bool = False  # the file ends within it, or at least without a line break


class RecordCutter:
    """Is fed a file in pieces; holds at most one unfinished record."""

    def __init__(self) -> None:
        self._tail = b""
        self._line = 0
        self._skipping = False
        self._open: list[tuple[int, bytes]] = []  # lines of a record whose quote is not closed yet
        self._open_bytes = 0

    def feed(self, data: bytes) -> Iterator[Cut]:
        """The records completed by `data`."""
        lines = (self._tail + data).split(b"\n")
        self._tail = lines.pop()
        for line in lines:
            self._line += 1
            if self._skipping:
                self._skipping = False
                yield Cut(self._line, line, TOO_LONG)
            elif self._open or line.count(b'"') & 1:
                yield from self._continued(self._line, line)
            elif len(line) > MAX_RECORD_BYTES:
                yield Cut(self._line, line[:MAX_RECORD_BYTES], TOO_LONG)
            else:
                yield Cut(self._line, line)
        if len(self._tail) > MAX_RECORD_BYTES:
            self._skipping = True
            self._tail = self._tail[:MAX_RECORD_BYTES] if len(self._tail) < 2 * MAX_RECORD_BYTES else b""

    def finish(self) -> Iterator[Cut]:
        """What is left at the end of the file."""
        last, self._tail = self._tail, b""
        if not self._open:
            if last:
                yield Cut(self._line + 1, last, TOO_LONG if self._skipping else None, is_half=True)
            return
        begun, raw = self._open[0][0], b"\n".join([*(line for _, line in self._open), last])
        self._open = []
        yield Cut(begun, raw, NEVER_CLOSED if raw.count(b'"') & 1 else None, is_half=True)

    def _continued(self, number: int, line: bytes) -> Iterator[Cut]:
        closes = bool(line.count(b'"') & 1)
        if self._open and not closes and line.count(b",") >= _ENOUGH_COLUMNS:
            # A whole record of its own: the one before was cut off.
            yield from self._broken()
            yield Cut(number, line)
            return
        self._open.append((number, line))
        self._open_bytes += len(line) + 1
        if closes and len(self._open) > 1:
            raw = b"\n".join(part for _, part in self._open)
            begun = self._open[0][0]
            self._open, self._open_bytes = [], 0
            yield Cut(begun, raw)
        elif len(self._open) > _MAX_LINES or self._open_bytes > MAX_RECORD_BYTES:
            yield from self._broken()

    def _broken(self) -> Iterator[Cut]:
        """The first of the open lines is no record; the others may be."""
        (number, line), *rest = self._open
        self._open, self._open_bytes = [], 0
        yield Cut(number, line[:MAX_RECORD_BYTES], NEVER_CLOSED)
        yield from split_up(rest)


def split_up(lines: list[tuple[int, bytes]]) -> Iterator[Cut]:
    """Each line for itself."""
    for number, line in lines:
        yield Cut(number, line, NEVER_CLOSED if line.count(b'"') & 1 else None)
