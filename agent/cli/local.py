"""The local database as commands read it: short reads in plain SQL, whether an agent runs or not.

SQLAlchemy alone takes longer to import than most commands take in all, so it stays out of here; a test holds what is
read here against the tables' own definition.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from agent.cli.faults import CommandFailed
from agent.errors import StoreUnavailable

if TYPE_CHECKING:
    from config.settings import Settings

Row = dict[str, Any]  # a row as Python values, by column

JSONS: Final = frozenset({"legs", "timeline", "full_transcript", "state_data", "data"})
MOMENTS: Final = frozenset(
    {
        "start_time", "pbx_answer_time", "answer_time", "end_time", "created_at", "updated_at",
        "enqueued_at", "at", "oldest_at", "from_at", "to_at", "backfilled_at", "read_until",
    }
)  # fmt: skip
# A call's own columns, all but those that are long.
BRIEF: Final = (
    "call_sid", "trace_id", "site", "pbx", "direction", "caller_id", "caller_e164", "caller_name",
    "caller_presentation", "callee_id", "callee_e164", "answered_by", "last_answered_by", "status", "disposition",
    "start_time", "pbx_answer_time", "answer_time", "end_time", "ring_seconds", "talk_seconds", "hold_seconds",
    "total_seconds", "hangup_cause", "hangup_source", "queue", "queue_position", "queue_wait_seconds", "conference",
    "transferred", "recording", "merged_into", "source", "start_estimated", "end_estimated", "revision", "created_at",
    "updated_at",
)  # fmt: skip
NUMBERS: Final = ("caller_id", "caller_e164", "callee_id", "callee_e164", "answered_by", "last_answered_by")
TRUTHS: Final = frozenset({"transferred", "start_estimated", "end_estimated"})
_BUSY_SECONDS: Final = 5.0
_CHUNK: Final = 500  # calls read at once, so that a long export never holds up the writer's checkpoints


class NoSuchCall(CommandFailed):
    """The database holds no such call; it may still go on."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls; None: whatever it is."""

    tenant: str | None = None
    unassigned: bool = False
    status: str | None = None  # a status or a disposition
    direction: str | None = None
    number: str | None = None  # how the caller's, callee's or answering number ends
    since: datetime | None = None
    until: datetime | None = None

    def where(self) -> tuple[str, list[object]]:
        """As a condition in SQL and its parameters."""
        conditions = ["1"]
        values: list[object] = []

        def add(condition: str, *parameters: object) -> None:
            conditions.append(condition)
            values.extend(parameters)

        if self.tenant is not None:
            add("tenant.name = ?", self.tenant)
        if self.unassigned:
            add("call.tenant_id IS NULL")
        if self.status is not None:
            add("(call.status = ? OR call.disposition = ?)", self.status, self.status)
        if self.direction is not None:
            add("call.direction = ?", self.direction)
        if self.number is not None:
            ending = f"%{literally(self.number)}"
            likes = " OR ".join(f"call.{column} LIKE ? ESCAPE ?" for column in NUMBERS)
            add(f"({likes})", *(ending, "\\") * len(NUMBERS))
        if self.since is not None:
            add("call.start_time >= ?", _stored(self.since))
        if self.until is not None:
            add("call.start_time < ?", _stored(self.until))
        return " AND ".join(conditions), values


class LocalCalls:
    """What the local database holds. Raises StoreUnavailable for the world's faults."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection

    @property
    def connection(self) -> sqlite3.Connection:
        """For reads of other tables than those of calls."""
        return self._connection

    @classmethod
    @contextmanager
    def of(cls, settings: "Settings") -> Iterator[Self]:
        """Open the database that the settings name, for reading."""
        with cls.at(settings.database_file.absolute()) as calls:
            yield calls

    @classmethod
    @contextmanager
    def at(cls, path: Path) -> Iterator[Self]:
        """Open a database for reading."""
        with _faults(path), closing(_connect(path)) as connection:
            yield cls(path, connection)

    def newest(self, wanted: Filter, *, limit: int) -> list[Row]:
        """The calls that began last, the newest first, without legs, timeline and transcript."""
        where, values = wanted.where()
        order = "ORDER BY call.start_time DESC, call.id DESC LIMIT ?"
        return [_without_key(row) for row in self._rows(f"{_BRIEFLY} WHERE {where} {order}", *values, limit)]

    def all(self, wanted: Filter, *, limit: int | None = None) -> Iterator[Row]:
        """Every such call, the oldest first, read piece by piece."""
        return self._in_pieces(_CALLS, wanted, limit)

    def all_briefly(self, wanted: Filter, *, limit: int | None = None) -> Iterator[Row]:
        """The same without legs, timeline and transcript, which takes half the time."""
        return self._in_pieces(_BRIEFLY, wanted, limit)

    def _in_pieces(self, select: str, wanted: Filter, limit: int | None) -> Iterator[Row]:
        where, values = wanted.where()
        query = f"{select} WHERE {where} AND (call.start_time, call.id) > (?, ?) {_OLDEST_FIRST}"
        last: tuple[object, object] = ("", 0)
        left = limit
        while left is None or left > 0:
            chunk = self._rows(query, *values, *last, _CHUNK if left is None else min(left, _CHUNK))
            if not chunk:
                return
            yield from (_without_key(row) for row in chunk)
            last = (_stored(chunk[-1]["start_time"]), chunk[-1]["id"])
            left = None if left is None else left - len(chunk)

    def find(self, sid: str) -> Row:
        """The call of this id, or the only one whose id ends so, with its tasks, interactions and how its sync is."""
        if not sid.strip():
            raise CommandFailed("the call's id is empty; name a call by its id or how that ends: edge-agent calls list")
        found = self._rows(f"{_CALLS} WHERE call.call_sid = ?", sid)
        if not found:
            # All ids are looked through; they stand close together in their index, the calls themselves do not.
            ids = "SELECT id FROM call WHERE call_sid LIKE ? ESCAPE '\\' LIMIT 6"
            found = self._rows(f"{_CALLS} WHERE call.id IN ({ids})", f"%{literally(sid)}")
        if not found:
            raise NoSuchCall(f"no call here has an id that ends in {sid!r}; calls under way: edge-agent live")
        if len(found) > 1:
            some = ", ".join(row["call_sid"] for row in found[:5])
            raise CommandFailed(f"several calls have an id that ends in {sid!r}: {some}{' …' if found[5:] else ''}")
        row = found[0]
        key = row["id"]
        of_call = "FROM {} WHERE call_id = ? ORDER BY position"
        row["tasks"] = self._rows(f"SELECT position, task_name, state_data, start_time {of_call.format('task')}", key)
        row["interactions"] = self._rows(f"SELECT position, data {of_call.format('interaction')}", key)
        row["sync"] = self._sync_of(row)
        return _without_key(row)

    def _sync_of(self, row: Row) -> Row:
        refused = self._rows("SELECT code, reason, at FROM quarantine WHERE call_id = ?", row["id"])
        waiting = self._rows("SELECT revision, enqueued_at FROM outbox WHERE call_id = ?", row["id"])
        dropped = self._rows(
            'SELECT "by", at FROM dropped_call WHERE call_sid = ? AND revision >= ?', row["call_sid"], row["revision"]
        )
        if refused:
            return {"state": "refused", **refused[0]}
        if waiting:
            return {"state": "waiting", **waiting[0]}
        if dropped:
            return {"state": "dropped", **dropped[0]}
        return {"state": "unassigned" if row["tenant"] is None else "sent"}

    def count_by_tenant(self) -> dict[str | None, int]:
        """How many calls each tenant has here; None: no tenant's."""
        counts = self._rows(f"SELECT tenant.name AS tenant, count(*) AS calls {_FROM} GROUP BY call.tenant_id")
        return {row["tenant"]: row["calls"] for row in counts}

    def count_since(self, since: datetime) -> dict[str, int]:
        """How many calls began since, by status."""
        query = "SELECT status, count(*) AS calls FROM call WHERE start_time >= ? GROUP BY status"
        return {row["status"]: row["calls"] for row in self._rows(query, _stored(since))}

    def count_unassigned(self) -> int:
        """How many calls no tenant rule matched."""
        return int(self._one("SELECT count(*) FROM call WHERE tenant_id IS NULL") or 0)

    def counter(self, name: str) -> int:
        """One of the numbers that triggers keep."""
        return int(self._one("SELECT value FROM counter WHERE name = ?", name) or 0)

    def backlog(self) -> Row:
        """What waits to be sent."""
        oldest = self._rows("SELECT enqueued_at AS oldest_at FROM outbox ORDER BY sequence LIMIT 1")
        return {
            "waiting": self.counter("outbox_records"),
            "oldest_at": oldest[0]["oldest_at"] if oldest else None,
            "quarantined": self.counter("quarantine_records"),
        }

    def refused(self) -> list[Row]:
        """Calls that the centre refused, the latest first."""
        # CROSS JOIN keeps SQLite from beginning with the calls, of which there are many more.
        return self._rows(
            "SELECT call.call_sid, tenant.name AS tenant, quarantine.revision, code, reason, at FROM quarantine "
            "CROSS JOIN call ON call.id = quarantine.call_id LEFT JOIN tenant ON tenant.id = call.tenant_id "
            "ORDER BY at DESC, call.id"
        )

    def last_call_at(self, pbx: str) -> datetime | None:
        """When the last call kept of a PBX began."""
        found = self._rows("SELECT start_time FROM call WHERE pbx = ? ORDER BY start_time DESC LIMIT 1", pbx)
        return found[0]["start_time"] if found else None

    def open_gap_since(self, pbx: str) -> datetime | None:
        """Since when a PBX is not heard."""
        found = self._rows("SELECT from_at FROM gap WHERE pbx = ? AND to_at IS NULL", pbx)
        return found[0]["from_at"] if found else None

    def gaps(self, *, pbx: str | None = None, since: datetime | None = None, unfilled: bool = False) -> list[Row]:
        """Times in which a PBX was not heard, the latest first; `since`: those that ended later."""
        return self._rows(
            "SELECT id, pbx, from_at, to_at, reason, detail, backfilled_at, filled_by, calls_found FROM gap "
            "WHERE (?1 IS NULL OR pbx = ?1) AND (?2 IS NULL OR to_at IS NULL OR to_at >= ?2) "
            "AND NOT (?3 AND backfilled_at IS NOT NULL) ORDER BY id DESC",
            pbx,
            _stored(since) if since is not None else None,
            unfilled,
        )

    def source_rejects(self, *, pbx: str | None = None) -> list[Row]:
        """What stands in second sources and is no record, the latest first; `raw` as bytes."""
        return self._rows(
            "SELECT pbx, source, position, reason, raw, at FROM source_reject WHERE ?1 IS NULL OR pbx = ?1 "
            "ORDER BY id DESC",
            pbx,
        )

    def source_places(self) -> list[Row]:
        """How far second sources were read."""
        return self._rows("SELECT pbx, source, read_until, records, rejects FROM source_place")

    def _rows(self, query: str, *values: object) -> list[Row]:
        return [
            {name: _value(name, value) for (name, *_), value in zip(cursor.description, row, strict=True)}
            for cursor in (self._connection.execute(query, values),)
            for row in cursor.fetchall()
        ]

    def _one(self, query: str, *values: object) -> Any:  # Any: whatever the one column holds
        row = self._connection.execute(query, values).fetchone()
        return row[0] if row else None


_FROM: Final = "FROM call LEFT JOIN tenant ON tenant.id = call.tenant_id"
_CALLS: Final = f"SELECT call.*, tenant.name AS tenant {_FROM}"
_BRIEFLY: Final = f"SELECT call.id, {', '.join(f'call.{name}' for name in BRIEF)}, tenant.name AS tenant {_FROM}"
_OLDEST_FIRST: Final = "ORDER BY call.start_time, call.id LIMIT ?"


def _connect(path: Path) -> sqlite3.Connection:
    from agent.store import schema

    if not path.exists():
        raise StoreUnavailable(f"{path} does not exist; start the agent once, or check state_directory")
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        found = schema.revision_of(connection)
        schema.check_known(found, connection, path)
        if found != schema.HEAD:
            raise StoreUnavailable(f"{path} was written by an older version; start the agent once to upgrade it")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        from agent.store.faults import faults_of

        with faults_of(path):
            raise exc


def _without_key(row: Row) -> Row:
    """The call as the world knows it: the tenant by name, no local keys."""
    return {name: value for name, value in row.items() if name not in {"id", "tenant_id"}}


def _value(name: str, value: Any) -> Any:  # Any: what SQLite holds, and what it means
    read = _READ.get(name)
    if read is None or value is None:
        return value
    try:
        return read(value)
    except (ValueError, TypeError):  # spoilt on the disk; what else is known of the call is no worse for that
        return None if name in MOMENTS else [{"unreadable": value}]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    **dict.fromkeys(JSONS, json.loads),
    **dict.fromkeys(MOMENTS, _moment),
    **dict.fromkeys(TRUTHS, bool),
}


def _stored(value: datetime) -> str:
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def literally(text: str) -> str:
    """Text as it is meant in a LIKE pattern with backslash as its escape."""
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


async def reassign_without_agent(settings: "Settings") -> Row:
    """Apply the tenant rules to unassigned calls, holding the database meanwhile."""
    from agent.daemon import tenants_by
    from agent.store.engine import open_store
    from agent.store.repository import Repository
    from agent.store.writer import Writer

    async with open_store(database_of(settings)) as store:
        result = await Repository(store, await Writer.over(store.connection)).reassign(tenants_by(settings))
    told: Row = result.as_dict()
    return told


def database_of(settings: "Settings") -> Path:
    """The database, to be opened for writing.

    A command must not make an empty one where there is none (and root must not make it its own).
    """
    if not settings.database_file.exists():
        raise StoreUnavailable(
            f"{settings.database_file} does not exist; start the agent once, or check state_directory"
        )
    return settings.database_file
