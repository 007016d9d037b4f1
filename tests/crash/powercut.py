"""Power cuts: what `powercut.c` noted becomes the disk as a power cut at any moment would have left it.

What was synced is there. Of what was written since, any part may be there, sector by sector and in any order; names are
made, changed and taken away in their order, and are sure once their directory was synced.
"""

import random
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from pathlib import Path
from typing import Final, NamedTuple, Self

_SOURCE: Final = Path(__file__).with_name("powercut.c")
_HEAD: Final = struct.Struct("=IIQQQ")
_SECTORS: Final = (512, 4096)
_INDEX_OF_LOG: Final = "-shm"


class _Kind(IntEnum):
    CREATED = 1
    WRITTEN = 2
    TRUNCATED = 3
    RENAMED = 4
    REMOVED = 5
    SYNC_BEGUN = 6
    SYNC_DONE = 7


class Unsynced(Enum):
    """What becomes of it."""

    LOST = auto()
    KEPT = auto()
    TORN = auto()


class Operation(NamedTuple):
    """One record of the log; `end` is where the next one begins."""

    kind: _Kind
    inode: int
    offset: int
    path: str
    data: bytes
    end: int


def build(directory: Path) -> Path:
    """The shim, compiled."""
    shim = directory / "powercut.so"
    command = ["gcc", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(shim), str(_SOURCE)]
    subprocess.run(command, check=True)
    return shim


def read_log(log: Path) -> Iterator[Operation]:
    """Every whole record; the last one may be cut, as its writer was killed."""
    text, at = log.read_bytes(), 0
    while at + _HEAD.size <= len(text):
        number, path_length, inode, offset, length = _HEAD.unpack_from(text, at)
        kind = _Kind(number)
        path_at = at + _HEAD.size
        data_at = path_at + path_length
        at = data_at + (length if kind in {_Kind.WRITTEN, _Kind.RENAMED} else 0)
        if at > len(text):
            return
        yield Operation(kind, inode, offset, text[path_at:data_at].decode(), text[data_at:at], at)


@dataclass
class _Change:
    """A write, or (without data) a new length."""

    offset: int
    data: bytes | None


@dataclass
class _File:
    content: bytearray = field(default_factory=bytearray)  # what is synced
    pending: list[_Change] = field(default_factory=list)
    syncing: list[int] = field(default_factory=list)  # how many changes were there when a sync began

    def sync_begins(self) -> None:
        self.syncing.append(len(self.pending))

    def synced(self) -> None:
        if not self.syncing:
            return
        count = self.syncing.pop(0)
        for change in self.pending[:count]:
            _apply(self.content, change)
        del self.pending[:count]
        self.syncing = [max(0, each - count) for each in self.syncing]

    def after_cut(self, unsynced: Unsynced, dice: random.Random) -> bytes:
        content = bytearray(self.content)
        if unsynced is not Unsynced.LOST:
            for change in self.pending:
                if unsynced is Unsynced.KEPT or (change.data is None and dice.random() < 0.5):
                    _apply(content, change)
                elif change.data is not None:
                    _apply_torn(content, change.offset, change.data, dice)
        return bytes(content)


class Disk:
    """A directory as it is on the disk, and as it is in memory only; `happened` is fed with a log's operations."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[int, _File] = {}
        self._sure: dict[str, int] = {}  # names that are on the disk, and which file bears them
        self._names: list[Operation] = []  # changes of names that are not
        self._naming: dict[str, list[int]] = {}

    @classmethod
    def at_rest(cls, directory: Path) -> Self:
        """A directory all of which is on the disk, as after a start of the machine."""
        disk = cls(directory)
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.name.endswith(_INDEX_OF_LOG):
                inode = path.stat().st_ino
                disk._files[inode] = _File(bytearray(path.read_bytes()))
                disk._sure[str(path)] = inode
        return disk

    def happened(self, operation: Operation) -> None:
        """One operation more."""
        match operation.kind:
            case _Kind.CREATED:
                self._files[operation.inode] = _File()
                self._names.append(operation)
            case _Kind.RENAMED | _Kind.REMOVED:
                self._names.append(operation)
            case _Kind.WRITTEN:
                self._file(operation).pending.append(_Change(operation.offset, operation.data))
            case _Kind.TRUNCATED:
                self._file(operation).pending.append(_Change(operation.offset, None))
            case _Kind.SYNC_BEGUN if operation.inode in self._files:
                self._files[operation.inode].sync_begins()
            case _Kind.SYNC_BEGUN:
                self._naming.setdefault(operation.path, []).append(len(self._names))
            case _Kind.SYNC_DONE if operation.inode in self._files:
                self._files[operation.inode].synced()
            case _Kind.SYNC_DONE:
                self._names_synced(operation.path)

    def after_cut(self, unsynced: Unsynced, dice: random.Random) -> dict[str, bytes]:
        """What is found at the next start, by path."""
        names = dict(self._sure)
        match unsynced:
            case Unsynced.LOST:
                count = 0
            case Unsynced.KEPT:
                count = len(self._names)
            case Unsynced.TORN:
                count = dice.randint(0, len(self._names))
        for operation in self._names[:count]:
            _name(names, operation)
        return {path: self._files[inode].after_cut(unsynced, dice) for path, inode in names.items()}

    def _file(self, operation: Operation) -> _File:
        return self._files.setdefault(operation.inode, _File())

    def _names_synced(self, directory: str) -> None:
        begun = self._naming.get(directory)
        if not begun:
            return
        count, still = begun.pop(0), []
        for number, operation in enumerate(self._names):
            if number < count and _directory_of(operation) == directory:
                _name(self._sure, operation)
            else:
                still.append(operation)
        self._names = still
        self._naming = {}  # the numbers of syncs that go on would be wrong: they make nothing sure


def write_image(image: dict[str, bytes], directory: Path, target: Path) -> None:
    """Lay an image of `directory` out in another one."""
    target.mkdir(parents=True, mode=0o700)
    for path, content in image.items():
        file = target / Path(path).relative_to(directory)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(0o600)


def _directory_of(operation: Operation) -> str:
    path = operation.data.split(b"\0")[1].decode() if operation.kind is _Kind.RENAMED else operation.path
    return str(Path(path).parent)


def _name(names: dict[str, int], operation: Operation) -> None:
    match operation.kind:
        case _Kind.CREATED:
            names[operation.path] = operation.inode
        case _Kind.REMOVED:
            names.pop(operation.path, None)
        case _Kind.RENAMED:
            old, new = (name.decode() for name in operation.data.split(b"\0"))
            names.pop(old, None)
            names[new] = operation.inode


def _apply(content: bytearray, change: _Change) -> None:
    if change.data is None:
        del content[change.offset :]
        content.extend(bytes(change.offset - len(content)))
        return
    _write(content, change.offset, change.data)


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if offset > len(content):
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _apply_torn(content: bytearray, offset: int, data: bytes, dice: random.Random) -> None:
    """Each sector of the write has come to the disk, or has not."""
    sector = dice.choice(_SECTORS)
    if dice.random() < 0.3:
        return  # none of it
    at = offset
    while at < offset + len(data):
        end = min((at // sector + 1) * sector, offset + len(data))
        if dice.random() < 0.5:
            _write(content, at, data[at - offset : end - offset])
        at = end
