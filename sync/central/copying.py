"""Call records as rows of PostgreSQL's COPY, in its binary format.

https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format": a row is the number of its columns, then of each
its length in bytes and its value, or the length -1 for NULL. Made here because it is half of what a site's batch costs
it: what has a fixed width and is never NULL comes first and is packed at once.
"""

import struct
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final, get_args, get_type_hints

from sync.records import CallRecord, CopyRecord

HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER: Final = b"\xff\xff"

_TYPES: Final = {str: "text", int: "bigint", float: "double precision", bool: "boolean", datetime: "timestamptz"}
_FORMATS: Final = {int: "q", float: "d", bool: "?", datetime: "q"}
_CHILDREN: Final = ("tasks", "interactions")
EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_HINTS: Final = get_type_hints(CallRecord)


def _kind_of(name: str) -> type:
    hint = _HINTS[name]
    return next(kind for kind in _TYPES if kind in (hint, *get_args(hint)))


def _fields(*kinds: type, may_be_null: bool) -> tuple[str, ...]:
    return tuple(
        name
        for name in CallRecord._fields
        if name not in _CHILDREN and _kind_of(name) in kinds and (type(None) in get_args(_HINTS[name])) == may_be_null
    )


# In the order in which they stand in a row.
NUMBERS: Final = _fields(int, float, bool, may_be_null=False)
MOMENTS: Final = _fields(datetime, may_be_null=False)
MOMENTS_OR_NULL: Final = _fields(datetime, may_be_null=True)
NUMBERS_OR_NULL: Final = _fields(int, may_be_null=True)
TEXTS: Final = tuple(name for name in CallRecord._fields if name not in _CHILDREN and _kind_of(name) is str)

COLUMNS: Final = {
    name: _TYPES[_kind_of(name)] for name in (*NUMBERS, *MOMENTS, *MOMENTS_OR_NULL, *NUMBERS_OR_NULL, *TEXTS)
}  # and their types, of which JSON is text as it is in a record

_FIXED: Final = [_FORMATS[_kind_of(name)] for name in (*NUMBERS, *MOMENTS)]
_pack_fixed: Final = struct.Struct("!h" + "".join(f"i{form}" for form in _FIXED)).pack
_CELLS: Final = (len(COLUMNS), *(part for form in _FIXED for part in (struct.calcsize(f"!{form}"), 0)))
_pack_number: Final = struct.Struct("!iq").pack
_NULL: Final = b"\xff\xff\xff\xff"
_pack_length: Final = struct.Struct("!i").pack
_LENGTHS: Final = tuple(_pack_length(length) for length in range(4096))

_places = CallRecord._fields.index
_numbers_of = itemgetter(*map(_places, NUMBERS))
_moments_of = itemgetter(*map(_places, (*MOMENTS, *MOMENTS_OR_NULL)))
_numbers_or_null_of = itemgetter(*map(_places, NUMBERS_OR_NULL))
_texts_of = itemgetter(*map(_places, TEXTS))


def row_of(record: CallRecord | CopyRecord) -> bytes:
    """The record's row. Raises ValueError or TypeError if a value does not fit its column."""
    if isinstance(record, CopyRecord):
        return record.row
    return row(
        _numbers_of(record),
        [None if moment is None else _microseconds(moment) for moment in _moments_of(record)],
        _numbers_or_null_of(record),
        [None if text is None else str.encode(text) for text in _texts_of(record)],
    )


def row(
    numbers: Sequence[float],
    moments: Sequence[int | None],
    numbers_or_null: Iterable[int | None],
    texts: Iterable[bytes | None],
) -> bytes:
    """A row from its values, in the order of COLUMNS; moments in microseconds since EPOCH.

    Raises ValueError or TypeError if one does not fit its column.
    """
    cells: list[float | None] = [*_CELLS]
    cells[2::2] = (*numbers, *moments[: len(MOMENTS)])
    try:
        pieces = [_one_by_one(cells) if None in cells else _pack_fixed(*cells)]
        add = pieces.append
        for number in (*moments[len(MOMENTS) :], *numbers_or_null):
            add(_NULL if number is None else _pack_number(8, number))
        for text in texts:
            if text is None:
                add(_NULL)
            else:
                length = len(text)
                add(_LENGTHS[length] if length < len(_LENGTHS) else _pack_length(length))
                add(text)
    except struct.error as exc:
        raise ValueError(str(exc)) from exc
    return b"".join(pieces)


def _one_by_one(cells: Sequence[float | None]) -> bytes:
    """With NULL where there should be none, for PostgreSQL to refuse it under the column's name."""
    packed = (
        _NULL if value is None else struct.pack(f"!i{form}", length, value)
        for length, value, form in zip(cells[1::2], cells[2::2], _FIXED, strict=True)
    )
    return struct.pack("!h", cells[0]) + b"".join(packed)


def _microseconds(moment: datetime) -> int:
    since = moment - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
