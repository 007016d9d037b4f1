"""A file that is written, rotated, cut and read in any order, with crashes between: every record comes once."""

import os
import shutil
from itertools import count
from pathlib import Path
from tempfile import mkdtemp

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.sources.tail import LINGER_SECONDS, FilePlace, Tail

NAME = "queue_log"


class GrowingFile(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(mkdtemp())
        self.path = self.directory / NAME
        self.written: list[bytes] = []
        self.kept: list[bytes] = []  # what came of the reader, up to the place that was kept
        self.place = FilePlace()
        self.numbers = count()
        self.moments = count(1_700_000_000)
        self.clock = 0.0
        self.lost: set[bytes] = set()  # by what nobody can know
        self.half = b""
        self.tail = self._tail()

    def teardown(self) -> None:
        self._read_all()
        missing = [record for record in self.written if record not in self.lost]
        found = [record for record in self.kept if record not in self.lost]
        self.tail.close()
        shutil.rmtree(self.directory)
        assert found == missing
        assert len(set(self.kept)) == len(self.kept)

    def _tail(self) -> Tail:
        return Tail(self.path, self.place, quotes=True, monotonic=lambda: self.clock)

    def _append(self, data: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(data)
        self._touch(self.path)

    def _touch(self, path: Path) -> None:
        moment = next(self.moments)
        os.utime(path, (moment, moment))

    def _shift(self) -> None:
        rotated = sorted(self.directory.glob(f"{NAME}.*"), key=lambda path: -int(path.suffix[1:]))
        for path in rotated:
            path.rename(self.path.with_suffix(f".{int(path.suffix[1:]) + 1}"))

    @rule(count=st.integers(1, 5), breaks=st.booleans())
    def write(self, count: int, breaks: bool) -> None:
        for _ in range(count):
            record = b'%d,"%s"' % (next(self.numbers), b"x\ny" if breaks else b"")
            self._append(self._rest_of_half() + record + b"\n")
            self.written.append(record)

    @precondition(lambda self: not self.half)
    @rule()
    def write_half(self) -> None:
        self.half = b'%d,"half\n' % next(self.numbers)
        self._append(self.half)

    def _rest_of_half(self) -> bytes:
        if not self.half:
            return b""
        self.written.append(self.half + b'way"')
        self.half = b""
        return b'way"\n'

    @precondition(lambda self: self.path.exists() and not self.half)
    @rule(create=st.booleans())
    def rename(self, create: bool) -> None:
        self._shift()
        if self.place.inode == 0:
            self.lost.update(self._records_in(self.path))  # reading begins with the file that is there
        self.path.rename(self.path.with_suffix(".1"))
        if create:
            self._append(b"")

    @precondition(lambda self: self.path.exists() and not self.half)
    @rule()
    def copy_and_cut(self) -> None:
        self._shift()
        copy = self.path.with_suffix(".1")
        copy.write_bytes(self.path.read_bytes())
        self._touch(copy)
        if self.place.offset == 0 and self.place.inode in {0, self.path.stat().st_ino}:
            # Nothing of it was read, so nothing tells its copy from any other file.
            self.lost.update(self._records_in(copy))
        os.truncate(self.path, 0)
        self._touch(self.path)

    def _records_in(self, path: Path) -> list[bytes]:
        return [record for record in self.written if record + b"\n" in path.read_bytes()]

    @rule(keep=st.integers(0, 100))
    def read(self, keep: int) -> None:
        """Read once, keep what came only up to somewhere, and go on from there if it was not all."""
        self.clock += LINGER_SECONDS
        chunk = self.tail.read()
        good = chunk.records
        if keep >= len(good):
            self._keep([record.data for record in good], chunk.place)
            return
        self._keep([record.data for record in good[:keep]], good[keep].at)
        self._crash()

    @rule()
    def crash(self) -> None:
        self._crash()

    def _crash(self) -> None:
        self.tail.close()
        self.tail = self._tail()

    def _keep(self, records: list[bytes], place: FilePlace) -> None:
        self.kept += records
        self.place = FilePlace.from_json(place.as_json())

    def _read_all(self) -> None:
        while True:
            self.clock += LINGER_SECONDS
            chunk = self.tail.read()
            self._keep([record.data for record in chunk.records], chunk.place)
            if chunk.is_at_end or chunk.trouble:
                return

    @invariant()
    def nothing_comes_twice(self) -> None:
        assert len(set(self.kept)) == len(self.kept)


GrowingFile.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
test_every_record_comes_once = GrowingFile.TestCase
