"""Holds what a PBX placed against what a site's SQLite and the centre's PostgreSQL hold, call by call."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import JSON, Boolean

from agent.simulator.truth import SimulatedCall
from agent.store.moments import moment_of
from agent.store.tables import table_of
from sync.models import Call, UtcDateTime
from tests.postgres import PostgresDatabase
from tests.unit.simulator.played import differences

Row = dict[str, Any]  # Any: columns

_COLUMNS: Final = table_of(Call).columns
_KEYS: Final = frozenset({"id", "tenant_id"})  # each side has its own
_CHILDREN: Final = {
    "tasks": ("task", ("position", "task_name", "state_data", "start_time")),
    "interactions": ("interaction", ("position", "data")),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: `what` is lost, doubled, differing or unequal (SQLite and PostgreSQL), or a word
    for what else went wrong."""

    what: str
    call_sid: str
    detail: str

    def __str__(self) -> str:
        return f"{self.what} {self.call_sid}: {self.detail}"


def local_calls(database: Path) -> dict[str, Row]:
    """Every call of a site's database, as Python's values."""
    with closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT call.*, tenant.name AS tenant FROM call LEFT JOIN tenant ON tenant.id = tenant_id"
        rows = {row["id"]: _call(dict(row)) for row in connection.execute(query)}
        for member, (table, columns) in _CHILDREN.items():
            query = f"SELECT call_id, {', '.join(columns)} FROM {table} ORDER BY call_id, position"
            for call_id, *values in connection.execute(query):
                rows[call_id][member].append(_child(columns, values))
    return {row["call_sid"]: row for row in rows.values()}


async def central_calls(database: PostgresDatabase, site: str) -> tuple[dict[str, Row], list[Finding]]:
    """Every call the centre has of a site, and those it has twice."""
    query = "SELECT call.*, tenant.name AS tenant FROM call JOIN tenant ON tenant.id = tenant_id WHERE site = $1"
    rows = {row["id"]: _call(dict(row)) for row in await database.fetch(query, site)}
    for member, (table, columns) in _CHILDREN.items():
        query = f"""SELECT call_id, {", ".join(f"{table}.{column}" for column in columns)} FROM {table}
            JOIN call ON call.id = call_id WHERE site = $1 ORDER BY call_id, position"""
        for call_id, *values in await database.fetch(query, site):
            rows[call_id][member].append(_child(columns, values))
    counted = Counter(row["call_sid"] for row in rows.values())
    doubled = [Finding("doubled", sid, f"{times} times at the centre") for sid, times in counted.items() if times > 1]
    return {row["call_sid"]: row for row in rows.values()}, doubled


def unequal(local: Mapping[str, Row], central: Mapping[str, Row]) -> list[Finding]:
    """Where the centre does not hold what the site does; calls without a tenant stay at the site."""
    found = [
        Finding("lost", sid, "at the centre, though the site sent it")
        for sid, row in local.items()
        if row["tenant"] is not None and sid not in central
    ]
    found += [Finding("lost", sid, "at the site, though the centre has it") for sid in central.keys() - local.keys()]
    for sid in local.keys() & central.keys():
        other = {name: value for name, value in local[sid].items() if central[sid][name] != value}
        if other:
            detail = ", ".join(f"{name}: {value!r} here, {central[sid][name]!r} there" for name, value in other.items())
            found.append(Finding("unequal", sid, detail))
    return found


def unknown(local: Mapping[str, Row], truths: Mapping[str, SimulatedCall]) -> list[Finding]:
    """Calls that nobody placed: a call under a second name."""
    return [Finding("doubled", sid, "no such call was placed") for sid in local.keys() - truths.keys()]


def differing(truths: Mapping[str, SimulatedCall], local: Mapping[str, Row], *, of: Iterable[str]) -> list[Finding]:
    """Calls that are not told as they were."""
    found = []
    for sid in of:
        if sid in local and (wrong := differences(truths[sid], local[sid])):
            detail = ", ".join(f"{name}: {was!r}, told {told!r}" for name, (was, told) in wrong.items())
            found.append(Finding("differing", sid, detail))
    return found


def _call(row: Row) -> Row:
    told = {name: _value(name, value) for name, value in row.items() if name not in _KEYS and name in _COLUMNS}
    return {**told, "tenant": row["tenant"], "tasks": [], "interactions": []}


def _value(name: str, value: Any) -> Any:  # Any: columns
    kind = _COLUMNS[name].type
    if value is None:
        return None
    if isinstance(kind, UtcDateTime):
        return _moment(value)
    if isinstance(kind, JSON):
        return json.loads(value)
    return bool(value) if isinstance(kind, Boolean) else value


def _child(columns: Sequence[str], values: Sequence[Any]) -> Row:  # Any: columns
    row = dict(zip(columns, values, strict=True))
    for name, value in row.items():
        if name in {"state_data", "data"}:
            row[name] = json.loads(value)
        elif name == "start_time":
            row[name] = _moment(value)
    return row


def _moment(value: str | datetime) -> datetime:
    return moment_of(value) if isinstance(value, str) else value.astimezone(UTC)
