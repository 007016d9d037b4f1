"""How SQLite tells a call as it goes to the centre; JSON passes through as text, never parsed."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Boolean
from sqlalchemy.types import TypeEngine

from agent.store.moments import moment_of
from agent.store.tables import table_of
from sync.models import Call, UtcDateTime
from sync.records import CallRecord

_TASKS = """(SELECT json_group_array(json_object('position', position, 'task_name', task_name,
    'state_data', json(state_data), 'start_time', replace(start_time, ' ', 'T') || '+00:00'))
    FROM (SELECT * FROM task WHERE call_id = call.id ORDER BY position))"""
_INTERACTIONS = """(SELECT json_group_array(json_object('position', position, 'data', json(data)))
    FROM (SELECT * FROM interaction WHERE call_id = call.id ORDER BY position))"""
_NOT_IN_CALL = {"tenant": "tenant.name", "tasks": _TASKS, "interactions": _INTERACTIONS}
RECORD = ", ".join(_NOT_IN_CALL.get(name, f"call.{name}") for name in CallRecord._fields)


def record_of(values: Sequence[object]) -> CallRecord:
    """The record whose columns `RECORD` selects."""
    fields: list[Any] = list(values)  # Any: whatever the columns hold
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


_MOMENTS = _positions(UtcDateTime)
_FLAGS = _positions(Boolean)
