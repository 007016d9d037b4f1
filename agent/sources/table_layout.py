"""What a `cdr` or `cel` table is like: FreePBX, Issabel and everybody's own differ, so it is looked at once."""

import codecs
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from agent.pbx.asterisk.cdr import COLUMNS as CDR_COLUMNS
from agent.pbx.asterisk.cel import CEL_COLUMNS
from agent.pbx.text import decoded
from agent.sources.mariadb import ReadOnly, TableAddress, TableTrouble
from agent.sources.table_clock import RowClock
from agent.sources.table_ledger import Raw

# Their own bytes tell what is UTF-8; what is not, is as the settings say.
_NOT_TELLING: Final = frozenset({"latin1", "ascii", "binary", "utf8", "utf8mb3", "utf8mb4"})


class TableKind(StrEnum):
    """What the rows of a table are."""

    CDR = "cdr"
    CEL = "cel"


@dataclass(frozen=True, slots=True)
class _Needs:
    """What a kind of table has to have; one of each set of names."""

    known: frozenset[str]
    needed: tuple[frozenset[str], ...]
    times: frozenset[str]


_CDR: Final = _Needs(
    CDR_COLUMNS | {"calldate"},
    (frozenset({"calldate", "start"}), frozenset({"disposition"}), frozenset({"uniqueid"})),
    frozenset({"calldate", "start"}),
)
# Tables of older FreePBX have both `channame` and a `channel` in which nothing ever stands.
_CEL: Final = _Needs(
    frozenset({*CEL_COLUMNS, "channame", "eventextra", "eventname"}),
    (frozenset({"eventtime"}), frozenset({"eventtype", "eventname"}), frozenset({"uniqueid"})),
    frozenset({"eventtime"}),
)
_NEEDS: Final = {TableKind.CDR: _CDR, TableKind.CEL: _CEL}


def known_columns(kind: TableKind) -> frozenset[str]:
    """The columns of a table that mean something here, in lower case."""
    return _NEEDS[kind].known


def lacking(names: Set[str], kind: TableKind) -> str | None:
    """The column, or those of which one is needed, that a table with columns of these names has not."""
    return next((" or ".join(sorted(one_of)) for one_of in _NEEDS[kind].needed if not one_of & names), None)


@dataclass(frozen=True, slots=True)
class Column:
    """One of them; its name is in lower case."""

    name: str
    type: str
    encoding: str  # of what is no UTF-8
    is_number: bool  # counted by the server, row by row


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns that are read, in the order in which they are asked for."""

    table: str  # quoted
    columns: tuple[Column, ...]
    names: tuple[str, ...]  # of the columns
    time: Column
    number: Column | None

    @classmethod
    def of(cls, connection: ReadOnly, address: TableAddress, kind: TableKind, encoding: str) -> "Layout":
        """Look. Raises TableTrouble if it cannot be read, or is no such table."""
        table = f"{quoted(address.database)}.{quoted(address.table)}"
        connection.rows(f"SELECT 1 FROM {table} LIMIT 0")  # noqa: S608 - quoted; tells what is missing
        found = [_column(row, encoding) for row in connection.rows(_COLUMNS, address.database, address.table)]
        names = {column.name for column in found}
        if lacks := lacking(names, kind):
            raise TableTrouble(
                f"{address.database}.{address.table} has no column {lacks}; is it a table of {kind.upper()}?"
            )
        columns = tuple(column for column in found if column.name in known_columns(kind))
        if "channame" in names:
            columns = tuple(column for column in columns if column.name != "channel")
        timed = next(column for column in columns if column.name in _NEEDS[kind].times)
        number = next((column for column in found if column.is_number), None)
        if number is None and kind is TableKind.CEL:
            name = f"{address.database}.{address.table}"
            raise TableTrouble(
                f"{name} has no auto_increment column, so nobody knows the order of its rows; give it one: "
                f"ALTER TABLE {name} ADD COLUMN id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY"
            )
        if number is None and timed.type not in {"datetime", "timestamp"}:
            raise TableTrouble(
                f"{address.database}.{address.table} has a {timed.name} of type {timed.type}; it has to be datetime"
            )
        return cls(table, columns, tuple(column.name for column in columns), timed, number)

    @property
    def is_utc(self) -> bool:
        """Whether its times are moments, which come in UTC, and not what the PBX's clock showed."""
        return self.time.type == "timestamp"

    @property
    def selected(self) -> str:
        """The columns as a query asks for them."""
        return ", ".join(quoted(column.name) for column in self.columns)

    def index(self, name: str) -> int | None:
        """Where a column stands in a row."""
        return self.names.index(name) if name in self.names else None

    def values(self, raw: Raw, clock: RowClock) -> dict[str, str]:
        """Texts by the columns' names."""
        try:
            texts = [value.decode() if value else "" for value in raw]
        except UnicodeDecodeError:
            texts = [decoded(value or b"", column.encoding) for column, value in zip(self.columns, raw, strict=True)]
        told = dict(zip(self.names, texts, strict=True))
        name = self.time.name
        if name == "eventtime" or self.is_utc:
            told[name] = clock.told(told[name], told["uniqueid"])
        return told


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return "`" + name.replace("`", "``") + "`"


_COLUMNS: Final = (
    "SELECT COLUMN_NAME, DATA_TYPE, CHARACTER_SET_NAME, EXTRA FROM information_schema.COLUMNS "
    "WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION"
)


def _column(row: Raw, encoding: str) -> Column:
    name, kind, charset, extra = ((value or b"").decode("utf-8", "replace").lower() for value in row)
    with suppress(LookupError):
        if charset and charset not in _NOT_TELLING:
            encoding = codecs.lookup(charset).name
    return Column(name, kind, encoding, "auto_increment" in extra)


def number_of(value: bytes | None) -> int | None:
    """A number as the server writes it."""
    return int(value) if value is not None else None
