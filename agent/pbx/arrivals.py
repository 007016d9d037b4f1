"""When the bytes of a capture came: an index beside it, one line a piece, with its offset in bytes and epoch seconds.

    offset,epoch
    0,1763812800.000000
    1448,1763812800.104211

says that the bytes from 0 on came at the one moment, those from 1448 on at the other. The two may stand in either
order, parted by spaces, a tab, a comma or a semicolon; `#` begins a comment.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedIOBase
from typing import Final

_MAX_LINE_BYTES: Final = 1000
_MAX_LINES: Final = 10_000_000
_READ_BYTES: Final = 64 * 1024
# The years 2000 to 2100, as in events.
_OLDEST: Final = 946_684_800.0
_NEWEST: Final = 4_102_444_800.0
_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{0,12})?", re.ASCII)


class IndexUnreadable(ValueError):
    """The index cannot be used; the text says which line and why, without the file's name."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Pieces of a stream in order: where each begins, and when it came in seconds since 1970."""

    offsets: "array[int]" = field(default_factory=lambda: array("q"))
    moments: "array[float]" = field(default_factory=lambda: array("d"))

    def pieces(self, stream: BufferedIOBase) -> Iterator[tuple[datetime, bytes]]:
        """The stream's bytes with the moment they came. What is before the first piece came with it."""
        at = 0
        for place, moment in enumerate(self.moments, start=1):
            came = datetime.fromtimestamp(moment, UTC)
            end = self.offsets[place] if place < len(self.offsets) else None
            while end is None or at < end:
                data = stream.read(_READ_BYTES if end is None else min(_READ_BYTES, end - at))
                if not data:
                    return
                at += len(data)
                yield came, data


def read_arrivals(stream: BufferedIOBase, *, capture_bytes: int) -> Arrivals:
    """The index of a capture of so many bytes. Raises IndexUnreadable."""
    arrivals = Arrivals()
    order: tuple[int, int] | None = None  # the places of offset and moment in a line
    has_header = False
    last = -1
    for number, line in enumerate(_lines(stream), start=1):
        text = line.partition(b"#")[0].decode("ascii", "replace").strip(" \t\r\n\ufeff\ufffd")
        if not text:
            continue
        words = [word for word in re.split(r"[\s,;]+", text) if word]
        if not any(_NUMBER.fullmatch(word) for word in words) and not has_header and last < 0:
            has_header = True
            continue
        if len(words) != 2 or not all(_NUMBER.fullmatch(word) for word in words):
            raise IndexUnreadable(f"line {number} does not hold an offset in bytes and a moment in seconds since 1970")
        order = order or _order(words, capture_bytes, number)
        offset, moment = words[order[0]], float(words[order[1]])
        if "." in offset or not _OLDEST <= moment < _NEWEST:
            raise IndexUnreadable(f"line {number} does not hold an offset in bytes and a moment in seconds since 1970")
        if int(offset) < last:
            raise IndexUnreadable(f"line {number}: offset {offset} comes after {last}; they have to grow")
        last = int(offset)
        arrivals.offsets.append(last)
        arrivals.moments.append(moment)
    if not arrivals.offsets:
        raise IndexUnreadable("it holds no line with an offset in bytes and a moment in seconds since 1970")
    return arrivals


def _lines(stream: BufferedIOBase) -> Iterator[bytes]:
    for number in range(1, _MAX_LINES + 1):
        line = stream.readline(_MAX_LINE_BYTES)
        if not line:
            return
        if len(line) == _MAX_LINE_BYTES and not line.endswith(b"\n"):
            raise IndexUnreadable(f"line {number} is longer than any line of an index")
        yield line
    raise IndexUnreadable(f"it has more than {_MAX_LINES} lines")


def _order(words: list[str], capture_bytes: int, number: int) -> tuple[int, int]:
    """Which of the two is the offset and which the moment: only one can be either in nearly every file."""
    fitting = [
        (offset, moment)
        for offset, moment in ((0, 1), (1, 0))
        if "." not in words[offset]
        and int(words[offset]) <= max(capture_bytes, 0)
        and _OLDEST <= float(words[moment]) < _NEWEST
    ]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise IndexUnreadable(f"line {number}: which is the offset and which the moment cannot be told; begin with 0")
    raise IndexUnreadable(
        f"line {number} does not hold an offset within the capture's {capture_bytes} bytes "
        "and a moment in seconds since 1970"
    )
