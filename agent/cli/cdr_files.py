"""CDR files as they lie about: CSV with or without a header, compressed or not, and SQLite; read piece by piece."""

import gzip
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import IO, Final, NamedTuple

from agent.cli.faults import CommandFailed
from agent.pbx.asterisk.cdr import CdrFault, CdrReader, CdrRow, UnknownColumns
from agent.pbx.asterisk.cdr_lines import Cut, RecordCutter
from agent.pbx.text import decoded

_PIECE_BYTES: Final = 1024 * 1024
_SQLITE: Final = b"SQLite format 3\0"
_GZIP: Final = b"\x1f\x8b"
_OWN_REMARK: Final = b"# "  # in a file of rejected lines, which may be imported once it is mended


class Reject(NamedTuple):
    """A line that is no CDR."""

    line: int
    raw: bytes
    reason: str


class Line(NamedTuple):
    """A CDR and where it stands."""

    number: int
    row: CdrRow


@dataclass(frozen=True, slots=True)
class CdrFile:
    """One file, and how it is to be read. `advanced` is told how many bytes of it were read, now and then."""

    path: Path
    zone: tzinfo
    encoding: str
    columns: tuple[str, ...] | None
    advanced: Callable[[int], None]

    def lines(self) -> Iterator[Line | Reject | None]:
        """Every CDR and what is none; None for a last line that is not finished. Raises CommandFailed."""
        try:
            with self.path.open("rb") as file:
                begin = file.read(16)
                file.seek(0)
                if begin == _SQLITE:
                    yield from self._of_table()
                elif begin.startswith(_GZIP):
                    with gzip.open(file) as inner:
                        yield from self._of_text(inner, file)
                else:
                    yield from self._of_text(file, file)
        except (EOFError, gzip.BadGzipFile) as exc:
            raise CommandFailed(f"{self.path}: the compressed file is damaged ({exc})") from None
        except UnknownColumns:
            raise CommandFailed(
                f"{self.path}: what its columns are cannot be told; say it with --columns start,answer,end,src,…"
            ) from None

    def _of_text(self, file: "IO[bytes] | gzip.GzipFile", on_disk: IO[bytes]) -> Iterator[Line | Reject | None]:
        reader, cutter = CdrReader(self.zone, self.columns), RecordCutter()
        done = 0
        while piece := file.read(_PIECE_BYTES):
            for cut in cutter.feed(piece):
                yield from self._read(reader, cut)
            self.advanced(on_disk.tell() - done)
            done = on_disk.tell()
        for cut in cutter.finish():
            yield from self._read(reader, cut)
        if reader.knows_nothing:
            raise UnknownColumns

    def _read(self, reader: CdrReader, cut: Cut) -> Iterator[Line | Reject | None]:
        number, raw, fault, is_half = cut
        if is_half and (fault is not None or not reader.has_header):
            yield None  # Asterisk is just writing it, or was stopped while it did
            return
        if fault is not None:
            yield Reject(number, raw, fault)
            return
        if b"\0" in raw:  # what a power cut leaves
            raw = raw.replace(b"\0", b"")
        if not raw or raw.startswith(_OWN_REMARK):
            return
        try:
            row = reader.row(decoded(raw.removesuffix(b"\r"), self.encoding))
        except CdrFault as exc:
            yield from self._rejected(reader, cut, str(exc))
            return
        if row is not None:
            yield Line(number, row)

    def _rejected(self, reader: CdrReader, cut: Cut, reason: str) -> Iterator[Line | Reject | None]:
        """A record over several lines that is none may hold records of one."""
        first, newline, rest = cut.raw.partition(b"\n")
        if cut.is_half:
            yield None
            return
        yield Reject(cut.line, first, reason)
        if newline:
            for number, line in enumerate(rest.split(b"\n"), start=cut.line + 1):
                yield from self._read(reader, Cut(number, line))

    def _of_table(self) -> Iterator[Line | Reject | None]:
        with (
            _faults(self.path),
            closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as database,
        ):
            table, names = _table_of_cdrs(database, self.path)
            reader = CdrReader(self.zone, self.columns or names)
            total = max(1, database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0])  # noqa: S608 - a table's name
            database.text_factory = bytes
            per_row, told = self.path.stat().st_size / total, 0
            for number, values in enumerate(database.execute(f'SELECT * FROM "{table}" ORDER BY rowid'), start=1):  # noqa: S608
                fields = [self._text(value) for value in values]
                try:
                    row = reader.row_of(fields)
                except CdrFault as exc:
                    yield Reject(number, ",".join(fields).encode("utf-8", "replace"), str(exc))
                else:
                    if row is not None:
                        yield Line(number, row)
                if number % 1000 == 0:
                    self.advanced(int(number * per_row) - told)
                    told = int(number * per_row)

    def _text(self, value: object) -> str:
        if isinstance(value, bytes):
            return decoded(value.replace(b"\0", b""), self.encoding)
        return "" if value is None else str(value)


class _faults:  # noqa: N801 - reads as a word
    """SQLite's complaints about somebody else's file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error):
            raise CommandFailed(f"{self._path}: SQLite cannot read it ({error})") from error


def _table_of_cdrs(database: sqlite3.Connection, path: Path) -> tuple[str, tuple[str, ...]]:
    from agent.pbx.asterisk.cdr import header_of

    tables = [str(name) for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    for table in sorted(tables, key=lambda name: name != "cdr"):
        quoted = table.replace('"', '""')
        names = tuple(str(row[1]) for row in database.execute(f'PRAGMA table_info("{quoted}")'))
        if header_of(names) is not None:
            return quoted, names
    raise CommandFailed(f"{path}: no table in it has the columns of CDRs")
