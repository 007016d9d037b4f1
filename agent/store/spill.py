"""The spill: what cannot be committed now, in a plain file beside the database that only grows until it is taken up.

    magic       b"sentiric-edge spill\\n"
    pieces      as `agent.store.pieces` frames them; unknown kinds are passed over
    kind 1      the header, JSON, always the first: `format`, and `id`, which tells this file from earlier ones
    kind 2, 3   groups and raw segments: `agent.store.spilled`

After them stand zeros, where room is held: at first the file is the reserve's, renamed. A group is whole on the disk
before it leaves memory. Taking up is committing the same groups in the same order; how far that has come is kept by
the same transactions, in the database's counters. Where the file was cut off, by a kill or a full disk, the last whole
piece is the end.

Only the holder of the database's lease may use it, and one task at a time.
"""

import asyncio
import json
import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Final, NamedTuple, Self

from agent.errors import StoreUnavailable
from agent.store.faults import faults_of
from agent.store.files import reserve_file, spill_file, sync_directory
from agent.store.pieces import PieceReader, piece
from agent.store.recording import MAX_SEGMENT_BYTES, segment_of
from agent.store.segment import Segment, SegmentDamaged
from agent.store.spilled import GROUP, RAW, head_of_group, pack_group, pack_segment, unpack_group
from agent.store.writer import Group
from config import failpoints

log = logging.getLogger(__name__)

MAGIC: Final = b"sentiric-edge spill\n"
FORMAT: Final = 1

_HEADER: Final = 1
_PART_BYTES: Final = 1 << 20
_MAX_HEADER_BYTES: Final = 1 << 16
_MAX_PIECE_BYTES: Final = 2 * MAX_SEGMENT_BYTES
_KEEP_POSITION: Final = (
    "INSERT INTO counter (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_READ_POSITION: Final = "SELECT name, value FROM counter WHERE name IN ('spill_id', 'spill_groups', 'spill_raw')"


class SpillFull(StoreUnavailable):
    """The spill has grown as far as it may: what comes now waits in memory, then at the PBX."""


class Position(NamedTuple):
    """Offsets in the file up to which groups are committed, and raw segments heard."""

    groups: int
    raw: int


class Pending(NamedTuple):
    """A piece that is not taken up, and the position once it is. None: it is damaged, and left out."""

    content: Group | Segment | None
    end: int


def count_set_aside(database: Path) -> int:
    """How many spills beside a database could not be read, or not wholly."""
    return sum(1 for _ in database.parent.glob(f"{spill_file(database).name}.aside-*"))


def read_position(connection: sqlite3.Connection) -> tuple[int, Position]:
    """How far a spill was taken up, and which."""
    found = dict(connection.execute(_READ_POSITION).fetchall())
    return found.get("spill_id", 0), Position(found.get("spill_groups", 0), found.get("spill_raw", 0))


class Spill:
    """Append, read back what is pending, clear."""

    def __init__(self, database: Path, *, max_bytes: int) -> None:
        self._path = spill_file(database)
        self._reserve = reserve_file(database)
        self._max_bytes = max_bytes
        self._handle: int | None = None
        self._id = 0
        self._begin = 0  # of what comes after the header
        self._end = 0  # of the last whole piece
        self._groups_end = 0  # of the last group
        self._raw_end = 0
        self._taken = Position(0, 0)
        self._is_damaged = False  # something of it cannot be read
        self.last_segment_id = 0

    @classmethod
    async def open(cls, database: Path, *, max_bytes: int) -> Self:
        """What an earlier process left, or nothing yet: the file is made, of the reserve, when it is needed.

        A file that this program cannot read is set aside. Raises StoreUnavailable.
        """
        spill = cls(database, max_bytes=max_bytes)
        with faults_of(spill._path):
            await asyncio.to_thread(spill._look)
        return spill

    @property
    def path(self) -> Path:
        """The file, whether it is there or not."""
        return self._path

    @property
    def size(self) -> int:
        """Bytes that were spilled and not cleared; 0 without a file."""
        return self._end

    @property
    def holds_groups(self) -> bool:
        """Whether groups are to be committed."""
        return self._groups_end > self._taken.groups

    @property
    def holds_raw(self) -> bool:
        """Whether raw segments are to be heard."""
        return self._raw_end > self._taken.raw

    def begin_at(self, spill_id: int, position: Position) -> None:
        """What the database remembers of taking up."""
        if spill_id == self._id:
            self._taken = Position(max(self._taken.groups, position.groups), max(self._taken.raw, position.raw))

    async def append(self, group: Group, *, heard: int = 0) -> None:
        """Make a group durable; `heard` tells up to which raw segment it was made of them.

        Raises StoreUnavailable, with nothing of the group in the file, or ValueError, TypeError and OverflowError for
        facts that cannot be written at all.
        """
        failpoints.hit("spill.append.before")
        body = await asyncio.to_thread(partial(pack_group, group, heard=heard))
        await self._append([(GROUP, body)])
        self._groups_end = self._end
        self.last_segment_id = max(self.last_segment_id, head_of_group(body).last_segment_id)
        self._taken = self._taken._replace(raw=max(self._taken.raw, heard))
        failpoints.hit("spill.append.after")

    async def append_raw(self, segments: Sequence[Segment]) -> None:
        """Make segments durable that nobody has interpreted. Raises StoreUnavailable, with none of them in the file."""
        failpoints.hit("spill.append.before")
        bodies = await asyncio.to_thread(lambda: [(RAW, pack_segment(segment)) for segment in segments])
        await self._append(bodies)
        self._raw_end = self._end
        failpoints.hit("spill.append.after")

    async def groups(self, *, after: int | None = None, max_bytes: int) -> list[Pending]:
        """The next groups that are to be committed, at least one if there is any; `after`: from this offset on."""
        return await self._pending(GROUP, self._taken.groups if after is None else after, max_bytes)

    async def raw(self, *, max_bytes: int) -> list[Pending]:
        """The next raw segments that are to be heard."""
        return await self._pending(RAW, self._taken.raw, max_bytes)

    def taken_up(self, *, groups: int | None = None, raw: int | None = None) -> None:
        """Everything of a kind up to an offset is committed."""
        self._taken = Position(groups or self._taken.groups, raw or self._taken.raw)

    def mark(self, *, groups: int | None = None, raw: int | None = None) -> Callable[[sqlite3.Connection], None]:
        """What has to stand in the database once everything up to these offsets is committed."""
        place = Position(groups or self._taken.groups, raw or self._taken.raw)
        values = [("spill_id", self._id), ("spill_groups", place.groups), ("spill_raw", place.raw)]

        def keep(connection: sqlite3.Connection) -> None:
            connection.executemany(_KEEP_POSITION, values)

        return keep

    async def clear(self) -> None:
        """Everything is taken up: let the file go. One of which a part cannot be read is set aside instead."""
        failpoints.hit("spill.taken_up")
        with faults_of(self._path):
            await asyncio.to_thread(self._clear)

    def close(self) -> None:
        """Let go of the file; what it holds stays."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    # In a thread

    def _look(self) -> None:
        try:
            with self._path.open("rb") as stream:
                is_known, is_torn = self._read_header(stream)
        except FileNotFoundError:
            return
        if is_known:
            self._scan()
        elif is_torn:
            self._path.rename(self._reserve)  # the power failed before the first group
        else:
            self._set_aside("it is no spill that this version of the program can read")

    def _read_header(self, stream: BufferedReader) -> tuple[bool, bool]:
        """Whether this program knows the file, and else whether it ends within its header."""
        magic = stream.read(len(MAGIC))
        if magic != MAGIC:
            return False, MAGIC.startswith(magic.rstrip(b"\0"))
        reader = PieceReader(stream)
        found = reader.next(_MAX_HEADER_BYTES)
        if found is None or found.body is None:
            return False, reader.was_cut or not stream.read(_MAX_HEADER_BYTES).strip(b"\0")
        try:
            facts = json.loads(found.body)
            is_known = found.kind == _HEADER and facts["format"] <= FORMAT
            self._id = int(facts["id"])
        except (ValueError, KeyError, TypeError):
            return False, False
        if is_known:
            self._begin = self._end = len(MAGIC) + reader.read
            self._taken = Position(self._begin, self._begin)
        return is_known, False

    def _scan(self) -> None:
        """Find the ends, and what the next segment's id must be beyond."""
        for kind, body, end in self._pieces(self._begin):
            if kind == GROUP:
                if body is not None:
                    head = head_of_group(body)
                    self.last_segment_id = max(self.last_segment_id, head.last_segment_id)
                    self._taken = self._taken._replace(raw=max(self._taken.raw, head.heard))
                self._groups_end = end
            elif kind == RAW:
                self._raw_end = end
            self._is_damaged = self._is_damaged or body is None
            self._end = end
        self._blank_rest()

    def _blank_rest(self) -> None:
        handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self._blank(handle)
            os.fsync(handle)
        finally:
            os.close(handle)

    def _blank(self, handle: int) -> None:
        """What was cut off goes, so that it is never taken for a piece after all; the room that is held stays."""
        at = self._end
        while part := os.pread(handle, _PART_BYTES, at):
            if part.strip(b"\0"):
                _write_all(handle, bytes(len(part)), at)
            at += len(part)

    async def _append(self, bodies: Sequence[tuple[int, bytes]]) -> None:
        data = b"".join(piece(kind, body) for kind, body in bodies)
        if self._end + len(data) > self._max_bytes:
            raise SpillFull(
                f"{self._path} has reached store.spill_max_megabytes = {self._max_bytes >> 20}: make room, so that the "
                "database can be written again"
            )
        with faults_of(self._path):
            await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        handle = self._handle = self._open() if self._handle is None else self._handle
        try:
            _write_all(handle, data, self._end)
            os.fsync(handle)
        except OSError:
            # A part of a piece must not stand before the next one, nor count as kept after a failed fsync.
            with suppress(OSError):
                self._blank(handle)
            raise
        self._end += len(data)

    def _open(self) -> int:
        is_new = self._end == 0
        if is_new:
            # The reserve's room goes over as it is: what is given up for a moment, whoever fills the disk takes.
            with suppress(FileNotFoundError):
                self._reserve.rename(self._path)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if is_new:
                spill_id = secrets.randbits(62)
                head = MAGIC + piece(_HEADER, json.dumps({"format": FORMAT, "id": spill_id}).encode())
                _write_all(handle, head, 0)
                os.fsync(handle)
                sync_directory(self._path.parent)
                self._id, self._begin, self._end = spill_id, len(head), len(head)
                self._groups_end = self._raw_end = 0
                self._taken = Position(len(head), len(head))
        except OSError:
            os.close(handle)
            if is_new:
                with suppress(OSError):
                    self._path.rename(self._reserve)
            raise
        return handle

    async def _pending(self, kind: int, begin: int, max_bytes: int) -> list[Pending]:
        if begin >= (self._groups_end if kind == GROUP else self._raw_end):
            return []
        with faults_of(self._path):
            return await asyncio.to_thread(self._read, kind, begin, max_bytes)

    def _read(self, kind: int, begin: int, max_bytes: int) -> list[Pending]:
        found: list[Pending] = []
        total = 0
        for each, body, end in self._pieces(begin):
            if end > self._end or total >= max_bytes:
                break
            if each == kind:
                found.append(Pending(self._unpacked(kind, body), end))
                total += len(body or b"")
        return found

    def _pieces(self, begin: int) -> Iterator[tuple[int, bytes | None, int]]:
        """Each piece's kind, body (None: damaged) and end; one that is damaged at the very end was cut off."""
        damaged: list[tuple[int, bytes | None, int]] = []
        # By the open file, if there is one: somebody may have deleted it under our hands.
        with self._path.open("rb") if self._handle is None else os.fdopen(os.dup(self._handle), "rb") as stream:
            stream.seek(begin)
            reader = PieceReader(stream)
            while (found := reader.next(_MAX_PIECE_BYTES)) is not None:
                if found.body is None:
                    damaged.append((found.kind, None, begin + reader.read))
                    continue
                yield from damaged
                damaged = []
                yield found.kind, found.body, begin + reader.read

    def _unpacked(self, kind: int, body: bytes | None) -> Group | Segment | None:
        try:
            if body is None:
                raise SegmentDamaged("the checksum is wrong")
            return unpack_group(body) if kind == GROUP else segment_of(0, body)
        except SegmentDamaged as exc:
            self._is_damaged = True
            log.error("a part of the spill is damaged and left out: %s", exc, extra={"file": str(self._path)})
            return None

    def _clear(self) -> None:
        self.close()
        if self._is_damaged:
            self._set_aside("a part of it is damaged")
        else:
            with suppress(FileNotFoundError):
                self._path.unlink()
        sync_directory(self._path.parent)
        self._id = self._begin = self._end = self._groups_end = self._raw_end = 0
        self._taken = Position(0, 0)
        self._is_damaged = False

    def _set_aside(self, why: str) -> None:
        aside = self._path.with_name(f"{self._path.name}.aside-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
        self._path.rename(aside)
        log.error("%s is kept as %s: %s", self._path, aside.name, why)


def _write_all(handle: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(handle, left, at)
        left, at = left[written:], at + written
