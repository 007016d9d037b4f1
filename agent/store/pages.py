"""Reads the pages of a SQLite file itself, for a damaged one: https://www.sqlite.org/fileformat2.html.

Nothing here trusts a byte: whatever cannot be is left out, and no page is followed twice.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from typing import Final

Value = None | int | float | str | bytes
INTERIOR: Final = 5
LEAF: Final = 13

_MAGIC: Final = b"SQLite format 3\0"
_SIZES: Final = {512 << n for n in range(8)}
_MAX_PAYLOAD: Final = 1 << 28
_USUAL_PAGE: Final = 8192
_WAL_MAGIC: Final = {0x377F0682: "<", 0x377F0683: ">"}


class Unreadable(ValueError):
    """These bytes are no row."""


@dataclass(slots=True)
class Walk:
    """What was found of one b-tree."""

    leaves: list[int] = field(default_factory=list)
    lost: list[tuple[int | None, int | None]] = field(default_factory=list)  # row ids after the first, up to the last


class Pages:
    """A database file with the committed part of its write-ahead log over it."""

    def __init__(self, stream: BufferedReader, *, size: int, wal: BufferedReader | None = None) -> None:
        self._stream = stream
        self._wal = wal
        self._over: dict[int, int] = {}
        head = stream.read(100)
        self.size = _page_size(head)
        self._usable = self.size - (head[20] if head[:16] == _MAGIC and len(head) > 20 and head[20] < 32 else 0)
        self.count = -(-size // self.size)
        if wal is not None:
            self._read_wal(wal)
        if self._over:
            self.count = max(self.count, *self._over)

    def page(self, number: int) -> bytes:
        """A page, shorter or empty if the file ends there or the disk refuses it."""
        if number < 1 or number > self.count:
            return b""
        try:
            if self._wal is not None and number in self._over:
                self._wal.seek(self._over[number])
                return self._wal.read(self.size)
            self._stream.seek((number - 1) * self.size)
            return self._stream.read(self.size)
        except OSError:
            return b""

    def is_pointer_map(self, number: int) -> bool:
        """Whether a page of an auto-vacuumed file only tells where others are."""
        return number >= 2 and (number - 2) % (self._usable // 5 + 1) == 0

    def kind(self, number: int) -> int:
        """What a page says it is."""
        page, start = self.page(number), _start(number)
        return page[start] if len(page) > start and not self.is_pointer_map(number) else 0

    def walk(self, root: int, seen: bytearray) -> Walk:
        """The leaves of a table's b-tree that can be reached, in order; `seen` is by page number and filled in."""
        found = Walk()
        todo: list[tuple[int, int | None, int | None]] = [(root, None, None)]
        while todo:
            number, low, high = todo.pop()
            if not 1 <= number <= self.count or seen[number]:
                found.lost.append((low, high))
                continue
            kind = self.kind(number)
            if kind == LEAF:
                seen[number] = 1
                found.leaves.append(number)
            elif kind == INTERIOR:
                seen[number] = 1
                todo += reversed(self._children(number, low, high))
            else:
                found.lost.append((low, high))
        return found

    def rows(self, number: int) -> Iterator[tuple[int, list[Value]] | None]:
        """Row id and values of each row of a leaf; None for one that cannot be read."""
        page, start = self.page(number), _start(number)
        if len(page) < start + 8:
            return
        (cells,) = struct.unpack_from(">H", page, start + 3)
        if cells > (self.size - start - 8) // 4:  # at least a pointer and a cell of two bytes each
            yield None
            return
        for index in range(cells):
            try:
                (at,) = struct.unpack_from(">H", page, start + 8 + 2 * index)
                yield self._row(page, at)
            except (Unreadable, struct.error, IndexError):
                yield None

    def _children(self, number: int, low: int | None, high: int | None) -> list[tuple[int, int | None, int | None]]:
        page, start = self.page(number), _start(number)
        children: list[tuple[int, int | None, int | None]] = []
        try:
            cells, _, _, last = struct.unpack_from(">HHBI", page, start + 3)
            for index in range(min(cells, self.size // 6)):
                (at,) = struct.unpack_from(">H", page, start + 12 + 2 * index)
                (child,) = struct.unpack_from(">I", page, at)
                key, _ = _varint(page, at + 4)
                children.append((child, low, key))
                low = key
            children.append((last, low, high))
        except (struct.error, IndexError):
            pass
        return children

    def _row(self, page: bytes, at: int) -> tuple[int, list[Value]]:
        length, at = _varint(page, at)
        row_id, at = _varint(page, at)
        if not 0 < length <= _MAX_PAYLOAD:
            raise Unreadable
        return row_id, _values(self._payload(page, at, length))

    def _payload(self, page: bytes, at: int, length: int) -> bytes:
        usable = self._usable
        if length <= usable - 35:
            if at + length > len(page):
                raise Unreadable
            return page[at : at + length]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (length - least) % (usable - 4)
        if local > usable - 35:
            local = least
        parts = [page[at : at + local]]
        (following,) = struct.unpack_from(">I", page, at + local)
        left, steps = length - local, 0
        while left > 0:
            over = self.page(following)
            steps += 1
            if len(over) < usable or steps > self.count:
                raise Unreadable
            parts.append(over[4 : 4 + min(left, usable - 4)])
            left -= usable - 4
            (following,) = struct.unpack_from(">I", over)
        return b"".join(parts)

    def _read_wal(self, wal: BufferedReader) -> None:
        """Which frames stand for which pages, up to the last commit whose checksums hold."""
        head = wal.read(32)
        if len(head) < 32:
            return
        magic, _, size, _, salt1, salt2, sum1, sum2 = struct.unpack(">8I", head)
        if magic not in _WAL_MAGIC or size != self.size:
            return
        order = _WAL_MAGIC[magic]
        sums = _checksum(head[:24], order, (0, 0))
        if sums != (sum1, sum2):
            return
        waiting: dict[int, int] = {}
        while True:
            at = wal.tell() + 24
            try:
                frame = wal.read(24 + size)
            except OSError:
                return
            if len(frame) < 24 + size:
                return
            number, commit, *rest = struct.unpack_from(">6I", frame)
            sums = _checksum(frame[:8] + frame[24:], order, sums)
            if rest != [salt1, salt2, *sums] or not number:
                return
            waiting[number] = at
            if commit:
                self._over.update(waiting)
                waiting.clear()


def _page_size(head: bytes) -> int:
    if head[:16] == _MAGIC and len(head) == 100:
        (size,) = struct.unpack_from(">H", head, 16)
        size = 65536 if size == 1 else size
        if size in _SIZES:
            return int(size)
    return _USUAL_PAGE


def _start(number: int) -> int:
    return 100 if number == 1 else 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    value = value << 8 | data[at + 8]
    return value - (1 << 64) if value >> 63 else value, at + 9


_INTEGERS: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _values(payload: bytes) -> list[Value]:
    end, at = _varint(payload, 0)
    if not at <= end <= len(payload):
        raise Unreadable
    kinds = []
    while at < end:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    place, values = end, []
    for kind in kinds:
        value, place = _value(payload, place, kind)
        values.append(value)
    if place != len(payload):
        raise Unreadable
    return values


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind in _INTEGERS:
        end = at + _INTEGERS[kind]
        _check(end, payload)
        return int.from_bytes(payload[at:end], "big", signed=True), end
    if kind == 7:
        _check(at + 8, payload)
        (number,) = struct.unpack_from(">d", payload, at)
        return float(number), at + 8
    if kind < 12:
        raise Unreadable
    end = at + (kind - 12) // 2
    _check(end, payload)
    if kind % 2 == 0:
        return payload[at:end], end
    try:
        return payload[at:end].decode(), end
    except UnicodeDecodeError:
        raise Unreadable from None


def _check(end: int, payload: bytes) -> None:
    if end > len(payload):
        raise Unreadable


def _checksum(data: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    one, two = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for index in range(0, len(words), 2):
        one = (one + words[index] + two) & 0xFFFFFFFF
        two = (two + words[index + 1] + one) & 0xFFFFFFFF
    return one, two
