"""Reads the records of a file that grows, each once, from a place that outlives the reader.

The file may be away, be renamed for a new one, be copied and cut to nothing, or be replaced. What was written behind
the place is looked for first in the file of the same inode, then in any rotated one beside it in which the same bytes
stand before the place, then in those written since, the oldest first; after them comes the new file from its
beginning. What cannot be known: lines written between the copy and the cut of a copy-truncate, lines of a file that
was cut before anything of it had been read, and what was compressed or deleted before it was read to its end; the
last two are noted.
"""

import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, Self

from agent.sources.lines import cut

_BEHIND_BYTES: Final = 256  # before a place; by them it is known again
_CHUNK_BYTES: Final = 128 * 1024  # more than any record
_SHOWN_BYTES: Final = 4096  # of what is no record
# A writer goes on in a renamed file until it is told to open the new one.
LINGER_SECONDS: Final = 5.0
_GROUP: Final = "SupplementaryGroups=asterisk (systemctl edit sentiric-edge-agent)"
_UNFINISHED: Final = "the file was rotated and its last line has no end"
ROTATED: Final = re.compile(r"[.-](\d{1,3}|\d{8,14}|\d{4}-\d\d-\d\d([T_-]?[\d:-]+)?)")
COMPRESSED: Final = (".gz", ".bz2", ".xz", ".zst")


@dataclass(frozen=True, slots=True)
class FilePlace:
    """Up to where a file was read, in terms that survive its being renamed or copied."""

    inode: int = 0  # 0: nothing was ever read
    offset: int = 0
    fingerprint: str = ""  # of up to 256 bytes before the offset
    skipping: bool = False  # inside a record that was too long

    def as_json(self) -> dict[str, Any]:  # Any: as JSON tells it
        """The same, for JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:  # Any: as JSON tells it
        """What `as_json` told."""
        return cls(**told)


@dataclass(frozen=True, slots=True)
class Record:
    """One record without its line end. `fault` says why it is none; then `data` may be only its beginning."""

    data: bytes
    at: FilePlace  # reading from here gives it again
    after: FilePlace
    fault: str | None = None

    @property
    def raw(self) -> bytes:
        """What stands there."""
        return self.data

    @property
    def position(self) -> str:
        """For people."""
        return f"byte {self.at.offset} (inode {self.at.inode})"


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one look at the file gave."""

    place: FilePlace
    records: tuple[Record, ...] = ()
    is_at_end: bool = False  # the present file was read to its end
    trouble: str | None = None  # why nothing can be read, a sentence
    notes: tuple[str, ...] = ()  # what may be lost
    rest_seconds: float = 0.0


class Tail:
    """One file and the place in it; implements `agent.sources.source.Source`."""

    def __init__(
        self,
        path: Path,
        place: FilePlace | None = None,
        *,
        quotes: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self.place = place or FilePlace()
        self._quotes = quotes  # line breaks inside quotes belong to the record
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._left_since: float | None = None  # a newer file is there and nothing more came to this one
        self._left_size = 0
        self._notes: list[str] = []

    def read(self) -> Chunk:
        """The next records; never raises for the world's faults. May take long on a slow disk."""
        with self._lock:
            self._notes = []
            try:
                chunk = self._read()
            except OSError as exc:
                self._close()
                chunk = Chunk(self.place, trouble=trouble_with(self.path, exc))
            if self._notes:
                chunk = Chunk(chunk.place, chunk.records, chunk.is_at_end, chunk.trouble, tuple(self._notes))
            return chunk

    def close(self) -> None:
        """Let go of the file; waits for a read that is under way."""
        with self._lock:
            self._close()

    def _read(self) -> Chunk:
        fd = self._fd if self._fd is not None else self._attach()
        place = self.place
        begin = max(0, place.offset - _BEHIND_BYTES)
        data = os.pread(fd, _BEHIND_BYTES + _CHUNK_BYTES, begin)
        behind = place.offset - begin
        if len(data) < behind or _fingerprint(data[:behind]) != place.fingerprint:
            self._close()  # cut or overwritten: what is to be read next is looked for as after a start
            return Chunk(self.place)
        found = cut(data[behind:], quotes=self._quotes, skipping=place.skipping)
        if found.used == 0:
            return self._at_end(fd, data[behind:])
        self._left_since = None
        records = []
        for piece in found.pieces:
            start, end = behind + piece.start, behind + piece.end
            at = place if start == behind else self._place_at(data, begin, start)
            skipping = found.skipping and piece is found.pieces[-1]
            place = self._place_at(data, begin, end, skipping=skipping)
            told = data[start:end] if piece.fault is None else data[start : min(end, start + _SHOWN_BYTES)]
            # A file system that lost power may hold NULs where a block was never written.
            records.append(Record(told.rstrip(b"\r\n").lstrip(b"\0"), at, place, piece.fault))
        self.place = self._place_at(data, begin, behind + found.used, skipping=found.skipping)
        return Chunk(self.place, tuple(records))

    def _place_at(self, data: bytes, begin: int, end: int, *, skipping: bool = False) -> FilePlace:
        behind = data[max(0, end - _BEHIND_BYTES) : end]
        return FilePlace(self.place.inode, begin + end, _fingerprint(behind), skipping)

    def _at_end(self, fd: int, rest: bytes) -> Chunk:
        """Nothing is complete behind the place: wait, or go on to the file that was begun after this one."""
        own = os.fstat(fd)
        successor = self._successor(own)
        if successor is None:
            self._left_since = None
            return Chunk(self.place, is_at_end=True)
        now = self._monotonic()
        if self._left_since is None or own.st_size != self._left_size:
            self._left_since, self._left_size = now, own.st_size
        if now - self._left_since < LINGER_SECONDS:
            return Chunk(self.place)
        at = self.place
        self._open(successor)
        self._go_to(0)
        if not rest or at.skipping:
            return Chunk(self.place)
        return Chunk(self.place, (Record(rest[:_SHOWN_BYTES], at, self.place, _UNFINISHED),))

    def _successor(self, own: os.stat_result) -> Path | None:
        """The file that was begun next after this one, if this one is no longer written."""
        with suppress(FileNotFoundError):
            if self.path.stat().st_ino == own.st_ino:
                return None
        for sibling in self._rotated():
            with suppress(FileNotFoundError):
                found = sibling.stat()
                if found.st_ino != own.st_ino and found.st_mtime_ns > own.st_mtime_ns:
                    return sibling
        return self.path if self.path.exists() else None

    def _attach(self) -> int:
        """Open the file in which the place is; where it is nowhere, the present one from its beginning."""
        if self.place.inode:
            for sibling in self._latest_first():
                if self._opened_if(sibling, same_inode=True):
                    return self._held()
            for sibling in self._latest_first() if self.place.offset else ():
                if self._opened_if(sibling, same_inode=False):
                    return self._held()
        self._open(self.path)
        if self.place.inode and self.place.offset:
            self._notes.append(self._loss())
        self._go_to(0)
        return self._held()

    def _opened_if(self, path: Path, *, same_inode: bool) -> bool:
        """Open a file if the place is in it."""
        with suppress(FileNotFoundError):
            if same_inode and path.stat().st_ino != self.place.inode:
                return False
            self._open(path)
            begin = max(0, self.place.offset - _BEHIND_BYTES)
            length = self.place.offset - begin
            behind = os.pread(self._held(), length, begin)
            if len(behind) == length and _fingerprint(behind) == self.place.fingerprint:
                inode = os.fstat(self._held()).st_ino
                self.place = FilePlace(inode, self.place.offset, self.place.fingerprint, self.place.skipping)
                return True
            self._close()
        return False

    def _open(self, path: Path) -> None:
        self._close()
        # Whoever put a pipe there must not hold us up.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise IsADirectoryError
        self._fd = fd

    def _held(self) -> int:
        assert self._fd is not None  # noqa: S101 - opened just before
        return self._fd

    def _go_to(self, offset: int) -> None:
        self.place = FilePlace(os.fstat(self._held()).st_ino, offset, _fingerprint(b""))

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None
        self._left_since = None

    def _rotated(self) -> list[Path]:
        """Files beside it that were once it, the one written first in front."""
        found = []
        for path in self._siblings():
            if ROTATED.fullmatch(path.name[len(self.path.name) :]):
                with suppress(FileNotFoundError):
                    found.append((path.stat().st_mtime_ns, path))
        return [path for _, path in sorted(found)]

    def _latest_first(self) -> Iterator[Path]:
        """The file and those that were it. The directory is not looked into before that is needed."""
        yield self.path
        yield from reversed(self._rotated())

    def _siblings(self) -> Iterator[Path]:
        with suppress(FileNotFoundError), os.scandir(self.path.parent) as entries:
            for entry in entries:
                if entry.name.startswith(self.path.name):
                    yield self.path.parent / entry.name

    def _loss(self) -> str:
        lost = f"{self.path} is not the file that was read before, and that one is not beside it"
        packed = sorted(path.name for path in self._siblings() if path.suffix in COMPRESSED)
        if packed:
            return f"{lost}; {packed[0]} is compressed and left alone: add delaycompress to its logrotate section"
        return f"{lost}; what was written to it behind byte {self.place.offset} is not known"


def trouble_with(path: Path, exc: OSError) -> str:
    """Why a PBX's file cannot be read, and what to do."""
    match exc:
        case FileNotFoundError():
            return f"{path} does not exist; it is read as soon as it does"
        case PermissionError():
            where = exc.filename or path
            return f"{where} cannot be read by the agent's user; add it to the file's group by {_GROUP}"
        case IsADirectoryError() | NotADirectoryError():
            return f"{path} is no file; name the file itself"
        case _:
            return f"{path} cannot be read: {exc.strerror or exc}"


def _fingerprint(behind: bytes) -> str:
    return blake2b(behind, digest_size=12).hexdigest()
