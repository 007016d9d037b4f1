"""How SQLite tells a call as it goes to the centre: by its values, or as the JSON that a hub takes.

JSON members pass through as text, never parsed, so what one call has wrong in them is found later, and alone.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sqlalchemy import Boolean, Float
from sqlalchemy.types import TypeEngine

from agent.store.moments import moment_of
from agent.store.tables import table_of
from sync.models import Call, UtcDateTime
from sync.records import CallRecord, EncodedRecord
from sync.wire import JSON_MEMBERS

_TASKS = """coalesce((SELECT '[' || group_concat(printf(
    '{"position":%d,"task_name":%s,"state_data":%s,"start_time":"%sT%s+00:00"}',
    position, json_quote(task_name), state_data, substr(start_time, 1, 10), substr(start_time, 12))) || ']'
    FROM (SELECT * FROM task WHERE call_id = call.id ORDER BY position)), '[]')"""
_INTERACTIONS = """coalesce((SELECT '[' || group_concat(printf('{"position":%d,"data":%s}', position, data)) || ']'
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
    record_of: Callable[[Sequence[Any]], CallRecord | EncodedRecord]  # Any: whatever the columns hold


VALUES: Final = Form(RECORD, record_of)
# Raises sqlite3.OperationalError if a call has a BLOB where text should be.
ENCODED: Final = Form(
    f"call.call_sid, call.revision, tenant.name, CAST(printf('{{{_MEMBERS}}}', {_TEXT}) AS BLOB)", EncodedRecord._make
)
