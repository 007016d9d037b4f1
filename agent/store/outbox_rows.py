"""How SQLite tells a call as it goes to the centre: by its values, as the JSON that a hub takes, or as the row that
PostgreSQL's COPY takes.

JSON members pass through as text, never parsed, so what one call has wrong in them is found later, and alone.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Boolean, Float
from sqlalchemy.types import TypeEngine

from agent.store.moments import moment_of
from agent.store.tables import table_of
from sync.central import copying
from sync.models import Call, UtcDateTime
from sync.records import CallRecord, CopyRecord, EncodedRecord
from sync.wire import JSON_MEMBERS

# Most calls have no children, and to look whether there are any costs a third of gathering none.
_TASKS = """iif(EXISTS (SELECT 1 FROM task WHERE call_id = call.id), (SELECT '[' || group_concat(printf(
    '{"position":%d,"task_name":%s,"state_data":%s,"start_time":"%sT%s+00:00"}',
    position, json_quote(task_name), state_data, substr(start_time, 1, 10), substr(start_time, 12))) || ']'
    FROM (SELECT * FROM task WHERE call_id = call.id ORDER BY position)), '[]')"""
_INTERACTIONS = """iif(EXISTS (SELECT 1 FROM interaction WHERE call_id = call.id),
    (SELECT '[' || group_concat(printf('{"position":%d,"data":%s}', position, data)) || ']'
    FROM (SELECT * FROM interaction WHERE call_id = call.id ORDER BY position)), '[]')"""
_NOT_IN_CALL = {"tenant": "tenant.name", "tasks": _TASKS, "interactions": _INTERACTIONS}
_EXPRESSIONS: Final = {name: _NOT_IN_CALL.get(name, f"call.{name}") for name in CallRecord._fields}
RECORD: Final = ", ".join(_EXPRESSIONS.values())


def record_of(values: Sequence[object]) -> CallRecord:
    """The record whose columns `RECORD` selects. What is no moment stays as it is, and is refused at the centre."""
    fields: list[Any] = list(values)  # Any: whatever the columns hold
    with suppress(ValueError):
        for position in _MOMENTS:
            if fields[position] is not None:
                fields[position] = moment_of(fields[position])
    for position in _FLAGS:
        fields[position] = bool(fields[position])
    return CallRecord._make(fields)


def _positions(kind: type[TypeEngine[Any]]) -> tuple[int, ...]:  # Any: whatever the columns hold
    columns = table_of(Call).columns
    return tuple(
        at for at, name in enumerate(CallRecord._fields) if name in columns and isinstance(columns[name].type, kind)
    )


_MOMENTS: Final = _positions(UtcDateTime)
_FLAGS: Final = _positions(Boolean)
_REALS: Final = _positions(Float)


def _as_json(position: int, name: str) -> str:
    expression = _EXPRESSIONS[name]
    if name in JSON_MEMBERS:
        return expression
    if position in _MOMENTS:
        return f"""coalesce('"' || replace({expression}, ' ', 'T') || '+00:00"', 'null')"""
    if position in _FLAGS:
        return f"iif({expression}, 'true', 'false')"
    # Of a REAL, SQLite's JSON has 15 digits, and quote() as many as it takes.
    return f"quote({expression})" if position in _REALS else f"json_quote({expression})"


_MEMBERS: Final = ",".join(f'"{name}":%s' for name in CallRecord._fields)
_TEXT: Final = ", ".join(_as_json(position, name) for position, name in enumerate(CallRecord._fields))


class Form(NamedTuple):
    """What is selected of a call, and what becomes of it."""

    columns: str
    record_of: Callable[[Sequence[Any]], CallRecord | EncodedRecord | CopyRecord]  # Any: whatever the columns hold


VALUES: Final = Form(RECORD, record_of)
# Raises sqlite3.OperationalError if a call has a BLOB where text should be.
ENCODED: Final = Form(
    f"call.call_sid, call.revision, tenant.name, CAST(printf('{{{_MEMBERS}}}', {_TEXT}) AS BLOB)", EncodedRecord._make
)

_EPOCH: Final = copying.EPOCH.replace(tzinfo=None)
_HEAD: Final = CopyRecord._fields[:-1]
_NUMBERS: Final = len(_HEAD)
_MOMENTS_AT: Final = _NUMBERS + len(copying.NUMBERS)
_NUMBERS_OR_NULL: Final = _MOMENTS_AT + len(copying.MOMENTS) + len(copying.MOMENTS_OR_NULL)
_TEXTS: Final = _NUMBERS_OR_NULL + len(copying.NUMBERS_OR_NULL)


def _copy_record_of(values: Sequence[Any]) -> CopyRecord:  # Any: whatever the columns hold
    row = copying.row(
        values[_NUMBERS:_MOMENTS_AT],
        [None if text is None else _microseconds(text) for text in values[_MOMENTS_AT:_NUMBERS_OR_NULL]],
        values[_NUMBERS_OR_NULL:_TEXTS],
        values[_TEXTS:],
    )
    return CopyRecord._make((*values[:_NUMBERS], row))


def _microseconds(text: str) -> int:
    since = datetime.fromisoformat(text) - _EPOCH  # without the zone: two thirds of the time
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


_NOT_TEXT: Final = (name for name in copying.COLUMNS if name not in copying.TEXTS)
# Raises ValueError or TypeError if a call holds what does not fit its column.
COPIED: Final = Form(
    ", ".join(
        [
            *(_EXPRESSIONS[name] for name in (*_HEAD, *_NOT_TEXT)),
            *(f"CAST({_EXPRESSIONS[name]} AS BLOB)" for name in copying.TEXTS),
        ]
    ),
    _copy_record_of,
)
