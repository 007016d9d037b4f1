"""Python values as SQLite stores them, exactly as the SQLModel tables would: the writer's fast way round the ORM.

A table model costs 60 µs to make and an ORM flush a millisecond; a commit of a hundred calls has some three
milliseconds in all. So the SQL text is compiled once from the tables, and tuples are bound to it. Tests hold both ways
together: what is written here is what SQLModel reads, and the other way round.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import JSON, String, bindparam, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import Insert, Update
from sqlmodel import AutoString

from agent.calls.context import TaskState
from agent.store.moments import moment_text
from agent.store.tables import JournalSegment, table_of
from sync.models import Call, UtcDateTime

# An encoded value: what sqlite3 binds without asking anybody.
Encoded = str | int | float | bytes | None
EncodedCall = dict[str, Encoded]
EncodedTask = tuple[int, str, str, str]  # position, task_name, state_data, start_time
EncodedInteraction = tuple[int, str]  # position, data

_CALL = table_of(Call)
_KEPT_BY_THE_STORE = frozenset({"id", "tenant_id", "revision", "created_at", "updated_at"})
# What a caller says of a call. Everything but the call_sid is compared to tell whether a call has changed.
TOLD = frozenset(column.name for column in _CALL.columns) - _KEPT_BY_THE_STORE
CONTENT = tuple(column.name for column in _CALL.columns if column.name in TOLD and column.name != "call_sid")

MOMENTS = tuple(name for name in CONTENT if isinstance(_CALL.c[name].type, UtcDateTime))
JSONS = tuple(name for name in CONTENT if isinstance(_CALL.c[name].type, JSON))
_AS_TEXT = frozenset(name for name in TOLD if isinstance(_CALL.c[name].type, String | AutoString))
_AS_MOMENT, _AS_JSON = frozenset(MOMENTS), frozenset(JSONS)
_DEFAULTS: EncodedCall = {
    name: "[]" if name in JSONS else field.default
    for name, field in Call.model_fields.items()
    if name in TOLD and not field.is_required()
}
_REQUIRED = TOLD - _DEFAULTS.keys()
_NUL_IN_JSON = b"\\u0000"  # a backslash before it may be escaped itself: then the slow way only takes longer


def json_text(value: object) -> str:
    """JSON as the JSON columns store it, and PostgreSQL's jsonb takes it."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        # Integers beyond 64 bits, lone surrogates, keys that are no text: rare, and no reason to lose a call.
        return _careful_json(value)
    # To look for one byte takes a tenth of looking for six.
    has_nul = b"\\" in text and _NUL_IN_JSON in text
    return _careful_json(orjson.loads(text)) if has_nul else text.decode()


def _careful_json(value: object) -> str:
    return json.dumps(_sendable(value), separators=(",", ":"), default=lambda other: plain_text(str(other)))


def _sendable(value: Any) -> Any:  # Any: what JSON can hold
    """The same without what PostgreSQL's JSON cannot hold."""
    match value:
        case str():
            return plain_text(value)
        case dict():
            return {plain_text(str(key)): _sendable(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_sendable(inner) for inner in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


def plain_text(value: str) -> str:
    """Text that SQLite and PostgreSQL take: enum members as their value, halves of surrogate pairs as question marks,
    NUL as what cannot be told."""
    text = str(value)
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    return text if "\0" not in text else text.replace("\0", "\ufffd")


def encode_call(row: Mapping[str, Any]) -> EncodedCall:  # Any: the columns' own types
    """The told columns of a call, encoded. Raises ValueError for a column that is not the caller's to tell."""
    if not row.keys() <= TOLD:
        raise ValueError(f"no columns of a call to be told: {', '.join(sorted(row.keys() - TOLD))}")
    encoded = dict(row)
    for name, value in row.items():
        if name in _AS_JSON:
            encoded[name] = json_text(value)
        elif value is None:
            continue
        elif name in _AS_TEXT:
            if type(value) is not str or not value.isascii() or "\0" in value:
                encoded[name] = plain_text(value)
        elif name in _AS_MOMENT:
            encoded[name] = moment_text(value)
    return encoded


def with_defaults(encoded: EncodedCall) -> EncodedCall:
    """A new call's row. Raises ValueError if it is not told enough to be one."""
    if not encoded.keys() >= _REQUIRED:
        raise ValueError(f"a new call lacks {', '.join(sorted(_REQUIRED - encoded.keys()))}")
    return {**_DEFAULTS, **encoded}


def encode_tasks(tasks: Sequence[TaskState]) -> list[EncodedTask]:
    """A call's tasks, in order."""
    return [
        (position, plain_text(task.task_name), json_text(task.state_data), moment_text(task.start_time))
        for position, task in enumerate(tasks)
    ]


def encode_interactions(interactions: Sequence[Mapping[str, Any]]) -> list[EncodedInteraction]:
    """A call's interactions, in order."""
    return [(position, json_text(data)) for position, data in enumerate(interactions)]


def same_json(one: Encoded, other: Encoded) -> bool:
    """Whether two JSON texts mean the same."""
    if one == other:
        return True
    return isinstance(one, str) and isinstance(other, str) and bool(json.loads(one) == json.loads(other))


Row = tuple[Encoded, ...]


def _compiled(statement: Insert | Update) -> tuple[str, Callable[[EncodedCall], Row]]:
    compiled = statement.compile(dialect=sqlite.dialect())
    return str(compiled), itemgetter(*(compiled.positiontup or ()))  # SQLite's parameters are positional


# Each statement with the function that puts a mapping's values into its order.
INSERT_CALL, call_values = _compiled(sqlite.insert(_CALL))
UPDATE_CALL, update_values = _compiled(
    update(_CALL)
    .where(_CALL.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in (*CONTENT, "tenant_id", "revision", "updated_at")})
)
INSERT_SEGMENT, segment_values = _compiled(sqlite.insert(table_of(JournalSegment)).on_conflict_do_nothing())
INSERT_TASK = (
    "INSERT INTO task (tenant_id, call_id, position, task_name, state_data, start_time) VALUES (?, ?, ?, ?, ?, ?)"
)
INSERT_INTERACTION = "INSERT INTO interaction (tenant_id, call_id, position, data) VALUES (?, ?, ?, ?)"
INSERT_OUTBOX = (
    "INSERT INTO outbox (call_id, revision, enqueued_at) SELECT value ->> 0, value ->> 1, ? FROM json_each(?)"
)
