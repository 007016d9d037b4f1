"""What services write during calls, as it is kept until the calls' rows hold what came of it."""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import blake2b
from typing import Any, Final, Self

from agent.calls.context import CallContext, CallState
from agent.calls.operations import (
    Found,
    Logged,
    Recall,
    apply,
    from_json,
    kind_of,
    to_json,
    told_tasks,
    told_transcript,
)
from agent.calls.tenancy import Sees, sees_all
from agent.calls.traces import traceparent
from agent.store import erasures, rows
from agent.store.engine import Store
from agent.store.moments import moment_of, moment_text
from agent.store.writer import FinishedCall, Writer, move_operations, write_finished
from config import failpoints

Row = Sequence[Any]  # Any: columns

_COLUMNS: Final = "number, call_sid, kind, content, service, at, revision, idempotency_key"
_INSERT: Final = f"INSERT INTO context_operation ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 - our own words
_OF_LIVE: Final = f"""SELECT {_COLUMNS} FROM context_operation
    WHERE call_sid IN (SELECT call_sid FROM live_call) ORDER BY number"""  # noqa: S608 - our own words
_OF_CALL: Final = f"SELECT {_COLUMNS} FROM context_operation WHERE call_sid = ? ORDER BY number"  # noqa: S608 - as above
_UNFINISHED: Final = """SELECT DISTINCT call_sid FROM context_operation
    WHERE call_sid IN (SELECT call_sid FROM call) AND call_sid NOT IN (SELECT call_sid FROM live_call)"""
# The last operation of each call is found in the index alone; what it says of the time, by its number.
_EXPIRED: Final = """SELECT latest.call_sid FROM (
    SELECT call_sid, max(number) AS number FROM context_operation GROUP BY call_sid) AS latest
    JOIN context_operation ON context_operation.number = latest.number WHERE at < ?1
    AND latest.call_sid NOT IN (SELECT call_sid FROM live_call)
    AND latest.call_sid NOT IN (SELECT value FROM json_each(?2))"""
_TENANT: Final = "SELECT name FROM call LEFT JOIN tenant ON tenant.id = call.tenant_id WHERE call_sid = ?"
_CALL: Final = """SELECT call.id, call.call_sid, trace_id, tenant.name, site, pbx, direction, caller_id, caller_name,
    callee_id, merged_into, start_time, coalesce(end_time, start_time), full_transcript,
    (SELECT json_extract(value, '$.sampled') FROM json_each(call.timeline)
     WHERE json_extract(value, '$.event') = 'traced') AS sampled
    FROM call LEFT JOIN tenant ON tenant.id = call.tenant_id WHERE call.call_sid = ?"""


class ContextLog:
    """The table of operations; implements `agent.live.neighbours.OperationLog`."""

    def __init__(self, store: Store, writer: Writer, *, last_number: int) -> None:
        self._store = store
        self._writer = writer
        self._last = last_number

    @classmethod
    async def over(cls, store: Store, writer: Writer) -> Self:
        """The log of an open store."""
        return cls(store, writer, last_number=await store.connection.run(_last_number))

    def next_number(self) -> int:
        """A number for an operation to come; numbers grow and are never given twice."""
        self._last += 1
        return self._last

    async def keep(self, operations: Sequence[Logged]) -> None:
        """Make them durable, all or none."""
        values = [_values(logged) for logged in operations]
        failpoints.hit("desk.keep.before")
        await self._writer.transact(lambda connection: connection.executemany(_INSERT, values))
        failpoints.hit("desk.keep.after")

    async def of_live_calls(self) -> list[Logged]:
        """The operations on calls that were live when the agent stopped, in order."""
        found = await self._store.reader.run(lambda reader: reader.execute(_OF_LIVE).fetchall())
        return [_logged(row) for row in found]

    async def find(self, call_sid: str, sees: Sees = sees_all) -> Found | None:
        """What is known of a call that has ended; None if there is no such call, or `sees` says no to its tenant."""
        return await self._store.reader.run(partial(_find, call_sid, sees))

    async def move(self, call_sid: str, into: str) -> None:
        """What was written for a call that turned out to be none belongs to another."""
        await self._writer.transact(partial(move_operations, moved=[(call_sid, into)]))

    async def amend(self, context: CallContext) -> bool:
        """Write what services noted into the ended call's row; whether it changed and waits to be sent."""
        failpoints.hit("desk.amend")
        return await self._writer.transact(partial(_amend, context, self._writer.now_text()))

    async def unfinished(self) -> list[str]:
        """Ended calls of which operations are kept."""
        found = await self._store.reader.run(lambda reader: reader.execute(_UNFINISHED).fetchall())
        return [str(sid) for (sid,) in found]

    async def expire(self, before: datetime, *, but: Iterable[str]) -> int:
        """Delete the operations of ended calls to which nothing was written since then, but for these calls'; of how
        many calls."""
        limit = moment_text(before)
        values = (limit, rows.json_text(list(but)))
        found = await self._store.reader.run(lambda reader: reader.execute(_EXPIRED, values).fetchall())
        for (sid,) in found:
            await self._writer.transact(partial(_delete, sid, limit))
        return len(found)


def finished_with(call: FinishedCall, context: CallContext) -> FinishedCall:
    """The call with what services noted of it."""
    return FinishedCall(
        row={**call.row, "full_transcript": told_transcript(context)},
        tenant=call.tenant,
        tasks=told_tasks(context),
        interactions=context.interaction_history,
    )


def _last_number(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'context_operation'").fetchone()
    return int(found[0]) if found else 0


def _values(logged: Logged) -> Row:
    return (
        logged.number,
        logged.call_sid,
        kind_of(logged.operation),
        to_json(logged.operation).decode(),
        logged.service,
        moment_text(logged.at),
        logged.revision,
        logged.idempotency_key,
    )


def _logged(row: Row) -> Logged:
    number, call_sid, kind, content, service, at, revision, key = row
    return Logged(number, call_sid, from_json(kind, content), service, moment_of(at), revision, key)


def _find(call_sid: str, sees: Sees, reader: sqlite3.Connection) -> Found | None:
    tenant = reader.execute(_TENANT, (call_sid,)).fetchone()  # so that it takes no longer to hide a long call
    if tenant is None or not sees(tenant[0]):
        return None
    call = reader.execute(_CALL, (call_sid,)).fetchone()
    if call is None or erasures.sealed(reader, [call_sid]):
        return None
    operations = [_logged(row) for row in reader.execute(_OF_CALL, (call_sid,))]
    recall = Recall([], [], None) if operations else _recall(reader, call)
    return Found(_facts(call), operations, recall)


def _facts(call: Row) -> CallContext:
    _, call_sid, trace_id, tenant, site, pbx, direction, caller_id, caller_name, callee_id, into, began, *more = call
    ended, _, sampled = more
    return CallContext(
        call_sid=call_sid,
        trace_id=trace_id,
        traceparent=traceparent(call_sid, trace_id, sampled=sampled != 0),
        tenant_id=tenant,
        site=site,
        pbx=pbx,
        direction=direction,
        state=CallState.ENDED,
        caller_id=caller_id,
        caller_name=caller_name,
        callee_id=callee_id,
        merged_into=into,
        call_start_time=moment_of(began),
        last_interaction_time=moment_of(ended),
    )


def _recall(reader: sqlite3.Connection, call: Row) -> Recall:
    call_id, call_sid, transcript = call[0], call[1], json.loads(call[-2])
    tasks = reader.execute(
        "SELECT position, task_name, state_data, start_time FROM task WHERE call_id = ? ORDER BY position", (call_id,)
    )
    said = reader.execute("SELECT position, data FROM interaction WHERE call_id = ? ORDER BY position", (call_id,))
    recall = Recall(
        tasks=[
            {
                "id": _derived_id(call_sid, "task", position),
                "task_name": name,
                "state_data": json.loads(state_data),
                "start_time": moment_of(begun).isoformat(),
            }
            for position, name, state_data, begun in tasks
        ],
        interactions=[
            {"id": _derived_id(call_sid, "interaction", position), **json.loads(data)} for position, data in said
        ],
        transcript=None,
    )
    was_said = told_transcript(apply(_facts(call), recall, moment_of(call[-3])))
    return recall if transcript == was_said else replace(recall, transcript=transcript)


def _derived_id(call_sid: str, kind: str, position: int) -> str:
    return blake2b(f"{call_sid} {kind} {position}".encode(), digest_size=12).hexdigest()


def _delete(call_sid: str, limit: str, connection: sqlite3.Connection) -> None:
    """Unless something was written to the call meanwhile."""
    (latest,) = connection.execute("SELECT max(at) FROM context_operation WHERE call_sid = ?", (call_sid,)).fetchone()
    if latest is not None and latest < limit:
        connection.execute("DELETE FROM context_operation WHERE call_sid = ?", (call_sid,))


def _amend(context: CallContext, now: str, connection: sqlite3.Connection) -> bool:
    found = connection.execute(
        "SELECT EXISTS (SELECT 1 FROM live_call WHERE call_sid = ?1) FROM call WHERE call_sid = ?1", (context.call_sid,)
    ).fetchone()
    if found is None or found[0]:
        return False
    told = finished_with(FinishedCall({"call_sid": context.call_sid}, tenant=None), context)
    return bool(write_finished(connection, [told], now=now).enqueued)
