"""Writes one batch of call records into the central tables: the only upsert there is.

A batch is one transaction: its admission (lease, receipt number, high-water mark), its calls and their children become
visible together. Rows are copied into a temporary table and merged from there; a row with a newer or the same revision
stays as it is. They are copied before the admission, which locks the site's row: so a site's next batch crosses the
line and is read by the server while the one before is merged.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import asyncpg

from sync.central.connection import condition, is_about_the_record
from sync.central.copying import COLUMNS, HEADER, TRAILER, row_of
from sync.central.presence import admit
from sync.central.schema import SCHEMA_REVISION
from sync.central.transaction import for_site
from sync.records import Batch, CallRecord, CopyRecord, Receipt, RecordReceipt, Verdict

UNKNOWN_TENANT = "unknown_tenant"
WRONG_SITE = "wrong_site"

_JSON = frozenset({"legs", "timeline", "full_transcript"})
_COLUMNS = tuple(name for name in COLUMNS if name != "tenant")
_UPDATED = tuple(name for name in _COLUMNS if name != "call_sid")
# How much of a batch's time the search for refused records may take; the rest is for the commit and its answer.
_SEARCH_SHARE = 0.6
_ROWS_AT_ONCE = 50  # encoded before other tasks get their turn: about 1 ms

# Lives as long as the session, empty between transactions: making one per batch would bloat the catalogue. The name
# carries the revision because a pooler may hand the session to a program of another version. JSON stays text here,
# so that only the merge parses it, and rows that fit into a page are not compressed for their short time here.
_INCOMING = f"incoming_{SCHEMA_REVISION}"

# Constraints are checked at once, so that a deferred one fails where its record can be found. Joins go from the few
# rows of a batch into large tables by key; without these three settings a plan made while the tables were empty reads
# them whole, and it is kept as long as the connection.
_BEGIN = f"""
SET CONSTRAINTS ALL IMMEDIATE;
SET LOCAL enable_seqscan = off;
SET LOCAL enable_hashjoin = off;
SET LOCAL enable_mergejoin = off;
SET LOCAL client_min_messages = warning;
CREATE TEMPORARY TABLE IF NOT EXISTS {_INCOMING}
    ({", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())})
    WITH (toast_tuple_target = 8160) ON COMMIT DELETE ROWS;
SAVEPOINT begun
"""
_NOT_AT_ONCE = "ROLLBACK TO SAVEPOINT begun"
_BEGIN_PART = f"TRUNCATE {_INCOMING}; SAVEPOINT part"
_KEEP_PART = "RELEASE SAVEPOINT part"
_DROP_PART = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part"

_HELD_REVISION = "(SELECT max(revision) FROM call WHERE call.call_sid = incoming.call_sid)"
_TENANT_ID = "($1::jsonb ->> incoming.tenant)::integer"  # by an object of names and keys
# What is held already is passed over before it is parsed, so a batch that is sent again is cheap. It is looked up under
# every tenant: a late, older revision must not come back under the tenant the call had before. No other transaction can
# change the answer before the row is written, since the site's row is locked and nobody else writes its calls.
_MERGE = f"""
INSERT INTO call (tenant_id, {", ".join(_COLUMNS)})
SELECT {_TENANT_ID}, {", ".join(f"{name}::jsonb" if name in _JSON else name for name in _COLUMNS)}
FROM {_INCOMING} AS incoming
WHERE coalesce({_HELD_REVISION} < incoming.revision, true)
ON CONFLICT (tenant_id, call_sid) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _UPDATED)}
WHERE call.revision < excluded.revision
RETURNING call_sid, tenant_id, id, xmax <> 0 AS replaced
"""  # noqa: S608 - built from field names
_HELD = f"""
SELECT incoming.call_sid, {_HELD_REVISION} AS revision
FROM {_INCOMING} AS incoming
WHERE {_HELD_REVISION} >= incoming.revision
"""  # noqa: S608 - constants
_LEAVE_FORMER_TENANT = f"""
DELETE FROM call USING {_INCOMING} AS incoming
WHERE call.call_sid = incoming.call_sid AND call.tenant_id <> {_TENANT_ID} AND call.revision < incoming.revision
"""  # noqa: S608 - constants

# Else a moment without an offset would mean the session's time zone, and "now" or "infinity" would pass. What is none
# becomes NULL, which the column refuses.
_MOMENT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)$"
_OF_CALLS = "unnest($1::integer[], $2::bigint[]) AS merged (tenant_id, call_id)"
_CLEAR = {
    "tasks": f"DELETE FROM task USING {_OF_CALLS} WHERE (task.tenant_id, task.call_id) = (merged.tenant_id, merged.call_id)",  # noqa: E501, S608
    "interactions": f"DELETE FROM interaction USING {_OF_CALLS} WHERE (interaction.tenant_id, interaction.call_id) = (merged.tenant_id, merged.call_id)",  # noqa: E501, S608
}
_ADD = {
    "tasks": f"""
INSERT INTO task (tenant_id, call_id, position, task_name, state_data, start_time)
SELECT merged.tenant_id, merged.call_id, child.position, child.task_name, child.state_data,
    CASE WHEN child.start_time ~ '{_MOMENT}' THEN child.start_time::timestamptz END
FROM unnest($1::integer[], $2::bigint[], $3::text[]) AS merged (tenant_id, call_id, children),
     jsonb_to_recordset(merged.children::jsonb)
     AS child (position integer, task_name text, state_data jsonb, start_time text)
""",  # noqa: S608 - a constant pattern
    "interactions": """
INSERT INTO interaction (tenant_id, call_id, position, data)
SELECT merged.tenant_id, merged.call_id, child.position, child.data
FROM unnest($1::integer[], $2::bigint[], $3::text[]) AS merged (tenant_id, call_id, children),
     jsonb_to_recordset(merged.children::jsonb) AS child (position integer, data jsonb)
""",
}


class _Decision(NamedTuple):
    verdict: Verdict
    code: str | None = None
    reason: str | None = None
    held_revision: int | None = None


_ACCEPTED = _Decision(Verdict.ACCEPTED)
_ABOUT_A_RECORD = (asyncpg.PostgresError, ValueError, TypeError, OverflowError)


@dataclass(slots=True)
class Ingest:
    """One batch on its way into the tables, on a connection of which it is the only user.

    The search for refused records ends after a part of `timeout_seconds`; those not decided by then get no verdict
    and come again. After an exception, but one of `presence.admit`, the connection is in the middle of a transaction
    and must be dropped.
    """

    connection: asyncpg.Connection
    batch: Batch
    agent_version: str | None
    timeout_seconds: float
    _decided: dict[int, _Decision] = field(default_factory=dict)
    _tenants: dict[str, int] = field(default_factory=dict)

    async def run(self) -> Receipt:
        """Write what can be written, commit, and return the verdicts; raises as `presence.admit` does."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.timeout_seconds * _SEARCH_SHARE
        async with for_site(self.connection, self.batch.site, self.timeout_seconds, _BEGIN):
            parts, number = self._rounds(), None
            if len(parts) == 1:
                number, parts = await self._place_at_once(parts[0])
            if number is None:
                number = await self._admit()
                left = deque(known for part in parts if (known := self._of_known_tenants(part)))
                while left and clock() < deadline:
                    left.extendleft(reversed(await self._place(left.popleft())))
        return self._receipt(number)

    async def _place_at_once(self, part: list[int]) -> tuple[int | None, list[list[int]]]:
        """The usual case, which keeps the site's row locked for three round trips only; returns the receipt's number.

        If there is anything among these records that is not to be placed, nothing is done, and there is no number but
        the parts in which they are to be tried.
        """
        try:
            await self._copy(part)
            number = await self._admit()
            if self._of_known_tenants(part) is part:
                await self._merge(part)
                return number, []
            parts = [part]
        except _ABOUT_A_RECORD as exc:
            if not is_about_the_record(exc):
                raise
            parts = _halved(part)
        await self.connection.execute(_NOT_AT_ONCE)
        return None, parts

    async def _admit(self) -> int:
        names = {record.tenant for record in self.batch.for_copy}
        number, self._tenants = await admit(
            self.connection,
            self.batch,
            agent_version=self.agent_version,
            tenants=sorted(name for name in names if _is_sendable(name)),
        )
        return number

    def _of_known_tenants(self, part: list[int]) -> list[int]:
        """The same list, or a shorter one."""
        records = self.batch.for_copy
        strangers = {position for position in part if records[position].tenant not in self._tenants}
        for position in strangers:
            self._decided[position] = _unknown_tenant(records[position].tenant, self.batch.site)
        return [position for position in part if position not in strangers] if strangers else part

    def _rounds(self) -> list[list[int]]:
        """Positions in the batch, one list as a rule. Earlier revisions of a call in the same batch come in later
        lists: they find the newest there, or take its place if that was refused."""
        rounds: list[list[int]] = []
        seen: dict[str, int] = {}
        records, site = self.batch.for_copy, self.batch.site
        own = f"{site}:"
        order = [(record.call_sid, -record.revision) for record in records]
        # By call_sid, so that two batches with the same calls wait for each other instead of locking each other out.
        for position in sorted(range(len(records)), key=order.__getitem__):
            call_sid, _ = order[position]
            # Nobody writes another site's calls: its call_sid could take the place of theirs.
            if records[position].site != site or not call_sid.startswith(own):
                self._decided[position] = _wrong_site(site)
                continue
            turn = seen.get(call_sid, 0)
            seen[call_sid] = turn + 1
            if turn == len(rounds):
                rounds.append([])
            rounds[turn].append(position)
        return rounds

    async def _place(self, part: list[int]) -> list[list[int]]:
        """Write these records; if PostgreSQL refuses, reject the one there is or return the halves to be tried."""
        await self.connection.execute(_BEGIN_PART)
        try:
            await self._copy(part)
            await self._merge(part)
        except _ABOUT_A_RECORD as exc:
            if not is_about_the_record(exc):
                raise
            await self.connection.execute(_DROP_PART)
            if len(part) > 1:
                return _halved(part)
            self._decided[part[0]] = _refused(exc)
            return []
        await self.connection.execute(_KEEP_PART)
        return []

    async def _merge(self, part: list[int]) -> None:
        """Write those of the copied records that are newer than what is held, and decide on each."""
        records = self._records(part)
        tenants = json.dumps(self._tenants)
        merged = await self.connection.fetch(_MERGE, tenants)
        if any(record.revision > 1 for record in records):
            await self.connection.execute(_LEAVE_FORMER_TENANT, tenants)
        await self._replace_children(records, merged)
        if len(merged) == len(records):
            self._decided |= dict.fromkeys(part, _ACCEPTED)
            return
        written = {row["call_sid"] for row in merged}
        held: dict[str, int] = {row["call_sid"]: row["revision"] for row in await self.connection.fetch(_HELD)}
        for position, record in zip(part, records, strict=True):
            # A trigger of the centre's own may pass over a row: what was not written is not called accepted.
            self._decided[position] = (
                _ACCEPTED if record.call_sid in written else _superseded(held.get(record.call_sid, record.revision))
            )

    async def _copy(self, part: list[int]) -> None:
        await self.connection.copy_to_table(
            _INCOMING, source=_rows(self._records(part)), columns=COLUMNS, format="binary"
        )

    def _records(self, part: list[int]) -> list[CallRecord | CopyRecord]:
        records = self.batch.for_copy
        return [records[position] for position in part]

    async def _replace_children(
        self, records: Sequence[CallRecord | CopyRecord], merged: Sequence[asyncpg.Record]
    ) -> None:
        replaced = [(row["tenant_id"], row["id"]) for row in merged if row["replaced"]]
        if replaced:
            for clear in _CLEAR.values():
                await self.connection.execute(clear, *_transposed(replaced))
        for kind, add in _ADD.items():
            texts = {record.call_sid: text for record in records if (text := getattr(record, kind)) != "[]"}
            written = [row for row in merged if row["call_sid"] in texts] if texts else []
            if written:
                children = [(row["tenant_id"], row["id"], texts[row["call_sid"]]) for row in written]
                await self.connection.execute(add, *_transposed(children))

    def _receipt(self, number: int) -> Receipt:
        return Receipt(
            [
                RecordReceipt(record.call_sid, record.revision, *self._decided[position])
                for position, record in enumerate(self.batch.for_copy)
                if position in self._decided
            ],
            number,
        )


async def _rows(records: Sequence[CallRecord | CopyRecord]) -> AsyncIterator[bytes]:
    yield HEADER
    for first in range(0, len(records), _ROWS_AT_ONCE):
        await asyncio.sleep(0)
        yield b"".join(map(row_of, records[first : first + _ROWS_AT_ONCE]))
    yield TRAILER


def _halved(part: list[int]) -> list[list[int]]:
    middle = len(part) // 2
    return [part[:middle], part[middle:]] if middle else [part]


def _superseded(held_revision: int) -> _Decision:
    return _Decision(Verdict.SUPERSEDED, held_revision=held_revision)


def _unknown_tenant(name: str, site: str) -> _Decision:
    """The same words whether or not there is such a tenant, so that nobody learns others' names."""
    shown = name.encode("ascii", "backslashreplace").decode()
    return _Decision(
        Verdict.REJECTED,
        UNKNOWN_TENANT,
        f"the centre takes no calls of tenant {shown!r} from this site; grant it with "
        f"`edge-hub sites grant {site} {shown}`, if need be after `edge-hub tenants add {shown}`",
    )


def _wrong_site(site: str) -> _Decision:
    return _Decision(
        Verdict.REJECTED,
        WRONG_SITE,
        f"the call is not of site {site!r}, which sent it; if the site was renamed, give it its former name back",
    )


def _refused(exc: Exception) -> _Decision:
    """SQLSTATE and kind of an error, and where it happened: the message itself may quote what was in the record."""
    if not isinstance(exc, asyncpg.PostgresError):
        return _Decision(Verdict.REJECTED, "22000", "a value does not fit its column's type")
    where = [
        f"{word} {value}"
        for word, value in (
            ("table", exc.table_name),
            ("column", exc.column_name),
            ("constraint", exc.constraint_name),
            ("type", exc.data_type_name),
        )
        if value
    ]
    told = f"PostgreSQL refuses it: {condition(exc)}"
    return _Decision(Verdict.REJECTED, exc.sqlstate, f"{told} ({', '.join(where)})" if where else told)


def _is_sendable(text: str) -> bool:
    """Whether PostgreSQL could hold the text at all: no NUL, no half of a surrogate pair."""
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _transposed(rows: Sequence[tuple[object, ...]]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
