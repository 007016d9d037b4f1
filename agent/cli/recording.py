"""Segments of the journal on their way into a recording."""

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from agent.cli.faults import CommandFailed
from agent.cli.local import LocalCalls
from agent.cli.output import moment
from agent.cli.version import DISTRIBUTION
from agent.store.history import id_at, span
from agent.store.moments import moment_of
from agent.store.recording import RecordedPbx, RecordingHeader, StoredSegment, head_of, piece_of, told_rules

if TYPE_CHECKING:
    from config.settings import Settings

SEGMENTS: Final = (
    "SELECT id, pbx, boot_id, connection, first_at, last_at, monotonic_ns, frame_count, raw_size, blob "
    "FROM journal_segment WHERE id > ? AND id <= ? ORDER BY id LIMIT 64"
)
Row = tuple[int, str, str, int, str, str, int, int, int, bytes]  # the columns of SEGMENTS
_LAST: Final = "SELECT max(id) FROM journal_segment"


class Recorder:
    """Copies segments as they stand; counts what they hold."""

    def __init__(
        self, connection: sqlite3.Connection, pbxes: Sequence[str], stream: BufferedWriter, file: Path
    ) -> None:
        self._connection = connection
        self._pbxes = frozenset(pbxes)
        self._stream = stream
        self._file = file
        self._spans = {pbx: found for pbx in pbxes if (found := span(connection, pbx)) is not None}
        self._last_id = self._newest_id()
        self.frames = 0
        self.frame_bytes = 0
        self.first_at: datetime | None = None
        self.last_at: datetime | None = None
        self.journal_begins_later = False

    @classmethod
    @contextmanager
    def of(cls, settings: "Settings", pbxes: Sequence[str], file: Path, *, force: bool) -> Iterator[Self]:
        """Begin a recording. Raises CommandFailed if the file is there, StoreUnavailable without a database."""
        with LocalCalls.of(settings) as calls, _new_file(file, force=force) as stream:
            recorder = cls(calls.connection, pbxes, stream, file)
            recorder._write(head_of(_header(settings, pbxes)))
            yield recorder

    def take_past(self, since: datetime, until: datetime | None) -> None:
        """What the journal holds from a moment to another, or to now."""
        self.journal_begins_later = all(since < held.first_at for held in self._spans.values())
        last = self._newest_id()
        heard = [pbx for pbx, held in self._spans.items() if held.last_at >= since]
        first = min((id_at(self._connection, pbx, since) for pbx in heard), default=last + 1)
        if until is not None:
            ends = [id_at(self._connection, pbx, until) for pbx in self._spans]
            last = min(last, max(ends, default=last))
        self._last_id = last
        self._copy(first - 1, last, since=since, until=until)

    def take_new(self) -> None:
        """What has been committed since the last time."""
        last = self._newest_id()
        self._copy(self._last_id, last)
        self._last_id = last

    def extent(self) -> str:
        """How far back the journal goes, for people."""
        begins = [held.first_at for held in self._spans.values()]
        return f"the journal begins at {moment(min(begins))}" if begins else "the journal holds nothing of it yet"

    def nothing_told(self) -> str:
        """Why nothing of the past could be taken, for people."""
        return f"the journal holds nothing of that time; {self.extent()}" if self._spans else self.extent()

    def discard(self) -> None:
        """Leave no file."""
        self._file.unlink()

    def _newest_id(self) -> int:
        return int(self._connection.execute(_LAST).fetchone()[0] or 0)

    def _copy(self, after: int, last: int, *, since: datetime | None = None, until: datetime | None = None) -> None:
        while found := self._connection.execute(SEGMENTS, (after, last)).fetchall():
            for row in found:
                after = row[0]
                first_at, last_at = moment_of(row[4]), moment_of(row[5])
                is_wanted = row[1] in self._pbxes and (since is None or last_at >= since)
                if is_wanted and (until is None or first_at < until):
                    self._append(row, first_at, last_at)
        self._flush()

    def _append(self, row: Row, first: datetime, last: datetime) -> None:
        _, pbx, boot_id, connection, _, _, monotonic_ns, frame_count, raw_size, blob = row
        self._write(piece_of(StoredSegment(pbx, boot_id, connection, first, monotonic_ns, blob)))
        self.frames += frame_count
        self.frame_bytes += raw_size
        self.first_at = self.first_at or first
        self.last_at = last

    def _write(self, data: bytes) -> None:
        with _told(self._file):
            self._stream.write(data)

    def _flush(self) -> None:
        with _told(self._file):
            self._stream.flush()


def wanted_pbxes(settings: "Settings", pbx: str | None) -> list[str]:
    """The PBXes to record. Raises CommandFailed for one that the settings do not know."""
    names = [each.name for each in settings.pbx]
    if pbx is None:
        return names
    if pbx not in names:
        raise CommandFailed(f"no PBX is named {pbx!r}; there is {', '.join(names) or 'none'}")
    return [pbx]


def _header(settings: "Settings", pbxes: Sequence[str]) -> RecordingHeader:
    from agent.daemon import rules_of

    return RecordingHeader(
        program=version(DISTRIBUTION),
        made_at=datetime.now(UTC),
        site=settings.site,
        tenancy=settings.tenancy,
        pbx=tuple(
            RecordedPbx(
                name=pbx.name,
                kind=pbx.kind,
                encoding=settings.encoding_of(pbx),
                rules=told_rules(rules_of(settings)[pbx.name]),
            )
            for pbx in settings.pbx
            if pbx.name in pbxes
        ),
    )


@contextmanager
def _new_file(file: Path, *, force: bool) -> Iterator[BufferedWriter]:
    """A file for its owner alone; one that is there is replaced only by force, and then at once."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    if not force:
        try:
            handle = os.open(file, flags, 0o600)
        except FileExistsError:
            what = "is a directory; name a file in it" if file.is_dir() else "is there already; --force replaces it"
            raise CommandFailed(f"{file} {what}") from None
    else:
        if os.path.lexists(file) and not (file.is_file() or file.is_symlink()):
            raise CommandFailed(f"{file} is no plain file; name another")
        part = file.with_name(f".{file.name}.{os.getpid()}.part")
        handle = os.open(part, flags, 0o600)
        try:
            part.replace(file)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
    os.fchmod(handle, 0o600)
    with os.fdopen(handle, "wb") as stream:
        yield stream


@contextmanager
def _told(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise CommandFailed(f"{file}: {exc.strerror or exc}; what is in it can be replayed up to there") from exc
