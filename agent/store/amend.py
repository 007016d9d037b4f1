"""Stored calls and what the journal tells of them now: what differs is written, as a new revision, and sent again.

Only columns that the PBX's words tell are looked at, and only those that differ are written; so a transcript, a
recording or what services did stays as it is, and doing it twice changes nothing the second time.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from agent.calls.reclocking import SET_RIGHT
from agent.calls.traces import minted_trace_id
from agent.store import accounts, rows
from agent.store.accounts import Retelling
from agent.store.moments import moment_of
from agent.store.rows import Encoded, EncodedCall
from agent.store.writer import enqueue, tenant_id_of

Told = str | int | float | None  # a value as JSON tells it


class Left(StrEnum):
    """Why a call was left as it is."""

    JOURNAL_BEGINS_LATER = "it began before the journal does"
    PARTLY_HEARD = "the journal does not hold all of it"
    KNOWN_BETTER = "the stored record knows its beginning or end, which the journal does not"
    OTHER_SOURCE = "another source told of it too, and what each of them told was not kept"
    STILL_LIVE = "it is still going on"
    NOT_TOLD = "the journal tells no such call"
    ERASED = "its person was erased"
    CLOCK_SET_RIGHT = "its times were put right after it had ended, when the clock was"


@dataclass(frozen=True, slots=True)
class Retold:
    """A call as the journal tells it now. `noise`: how far its times may be off without meaning anything."""

    row: Mapping[str, Any]  # Any: the columns' own types
    tenant: str | None
    is_whole: bool = True
    noise: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Amended:
    """What came of one call."""

    call_sid: str
    start_time: datetime
    tenant: str | None
    revision: int  # as it is, or would be, afterwards
    left: Left | None = None
    # What differs: before and after by column, None for columns that are too long to be told.
    changes: dict[str, tuple[Told, Told] | None] = field(default_factory=dict)
    tenant_kept: str | None = None  # the tenant by the present rules, which it did not get: the centre may have it

    @property
    def is_changed(self) -> bool:
        """Whether anything differs."""
        return bool(self.changes)

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        fields = {
            name: None if change is None else {"before": change[0], "after": change[1]}
            for name, change in self.changes.items()
        }
        return {
            "call_sid": self.call_sid,
            "start_time": self.start_time.isoformat(),
            "tenant": self.tenant,
            "revision": self.revision,
            "fields": fields,
            "tenant_kept_from": self.tenant_kept,
        }


def amend(calls: Sequence[Retold], *, now: str, connection: sqlite3.Connection) -> list[Amended]:
    """Write what differs; to be run as one transaction. Calls that are not stored are passed over."""
    results = []
    for call, known in _found(connection, calls):
        retelling = _retelling(connection, call, known)
        amended = _compare(call, known, retelling)
        if amended.is_changed:
            _write(connection, known, retelling, amended, now)
        results.append(amended)
    return results


def compare(calls: Sequence[Retold], *, connection: sqlite3.Connection) -> list[Amended]:
    """The same without writing anything."""
    return [_compare(call, known, _retelling(connection, call, known)) for call, known in _found(connection, calls)]


@dataclass(frozen=True, slots=True)
class _Known:
    id: int
    tenant_id: int | None
    tenant: str | None
    revision: int
    is_live: bool
    is_unsent: bool  # the centre cannot have confirmed it under its tenant's name
    has_accounts: bool  # of several sources, each by itself
    is_erased: bool
    row: EncodedCall


# Of a call's first revision the centre has nothing while it waits, or after it was refused.
_READ: Final = f"""SELECT call.id, call.tenant_id, tenant.name, call.revision,
    EXISTS (SELECT 1 FROM live_call WHERE live_call.call_sid = call.call_sid),
    call.revision = 1 AND (EXISTS (SELECT 1 FROM outbox WHERE outbox.call_id = call.id)
        OR EXISTS (SELECT 1 FROM quarantine WHERE quarantine.call_id = call.id AND quarantine.revision = 1)),
    EXISTS (SELECT 1 FROM account WHERE account.call_id = call.id),
    EXISTS (SELECT 1 FROM erased_call WHERE erased_call.call_sid = call.call_sid),
    call.call_sid, {", ".join(f"call.{name}" for name in rows.CONTENT)}
    FROM call LEFT JOIN tenant ON tenant.id = call.tenant_id WHERE call.call_sid = ?"""  # noqa: S608 - our own words


def _found(connection: sqlite3.Connection, calls: Sequence[Retold]) -> list[tuple[Retold, _Known]]:
    found = []
    for call in calls:
        read = connection.execute(_READ, (call.row["call_sid"],)).fetchone()
        if read is not None:
            row = dict(zip(("call_sid", *rows.CONTENT), read[8:], strict=True))
            is_live, is_unsent, has_accounts, is_erased = map(bool, read[4:8])
            key, tenant_id, tenant, revision = read[:4]
            known = _Known(key, tenant_id, tenant, revision, is_live, is_unsent, has_accounts, is_erased, row)
            found.append((call, known))
    return found


def _retelling(connection: sqlite3.Connection, call: Retold, known: _Known) -> Retelling:
    """What becomes of a record that other sources told too; of one that is the live feed's alone, what it tells now."""
    told = rows.encode_call(call.row)
    if told["trace_id"] == minted_trace_id(str(call.row["call_sid"])):
        told["trace_id"] = known.row["trace_id"]  # the one that came with the call, whatever the settings are now
    if known.row["source"] == told["source"] and not known.has_accounts:
        return Retelling(told, {}, accounts_differ=False)
    return accounts.retell(connection, known.id, known.row, call.row)


def _compare(call: Retold, known: _Known, retelling: Retelling) -> Amended:
    left = _reason_to_leave(call, known)
    changes: dict[str, tuple[Told, Told] | None] = {}
    kept = None
    if left is None:
        for name, value in retelling.changes.items():
            if name in known.row and not _same(name, known.row[name], value, call.noise):
                changes[name] = None if name in rows.JSONS else (_told(name, known.row[name]), _told(name, value))
        if call.tenant is not None and call.tenant != known.tenant:
            if known.tenant is None or known.is_unsent:
                changes["tenant"] = (known.tenant, call.tenant)
            else:
                kept = call.tenant
    return Amended(
        call_sid=str(known.row["call_sid"]),
        start_time=moment_of(str(known.row["start_time"])),
        tenant=call.tenant if "tenant" in changes else known.tenant,
        revision=known.revision + bool(changes),
        left=left,
        changes=changes,
        tenant_kept=kept,
    )


def _reason_to_leave(call: Retold, known: _Known) -> Left | None:
    if known.is_live:
        return Left.STILL_LIVE
    if known.is_erased or _is_set_right(known):
        return Left.ERASED if known.is_erased else Left.CLOCK_SET_RIGHT
    if "+" in str(known.row["source"]) and not known.has_accounts:
        return Left.OTHER_SOURCE
    if not call.is_whole:
        return Left.PARTLY_HEARD
    is_alone = known.row["source"] == call.row["source"] and not known.has_accounts
    if is_alone and any(call.row[mark] and not known.row[mark] for mark in ("start_estimated", "end_estimated")):
        return Left.KNOWN_BETTER
    return None


def _is_set_right(known: _Known) -> bool:
    """Whether its times were put right after it had ended: hearing it again, alone, would tell the wrong ones."""
    return f'"{SET_RIGHT}"' in str(known.row["timeline"])


def _write(connection: sqlite3.Connection, known: _Known, retelling: Retelling, amended: Amended, now: str) -> None:
    tenant_id = known.tenant_id
    if "tenant" in amended.changes:
        tenant_id = tenant_id_of(connection, str(amended.tenant))
        for table in ("task", "interaction"):
            connection.execute(f"UPDATE {table} SET tenant_id = ? WHERE call_id = ?", (tenant_id, known.id))  # noqa: S608 - our own words
    if retelling.accounts_differ:
        accounts.keep(connection, [(known.id, retelling.accounts)])
    told = {name: value for name, value in retelling.changes.items() if name in amended.changes}
    row: EncodedCall = {**known.row, **told, "key": known.id, "tenant_id": tenant_id}
    row |= {"revision": amended.revision, "updated_at": now}
    connection.execute(rows.UPDATE_CALL, rows.update_values(row))
    if tenant_id is not None:
        enqueue(connection, [(known.id, amended.revision)], at=now)


def _told(name: str, value: Encoded) -> Told:
    if name in rows.MOMENTS and value is not None:
        return moment_of(str(value)).isoformat()
    return value.decode() if isinstance(value, bytes) else value


# What counts as the same


def _same(name: str, stored: Encoded, told: Encoded, noise: timedelta) -> bool:
    if stored == told or (name in rows.JSONS and rows.same_json(stored, told)):
        return True
    if not noise or stored is None or told is None:
        return False
    if name in rows.JSONS:
        return _alike(json.loads(str(stored)), json.loads(str(told)), noise)
    return _alike(stored, told, noise)


def _alike(one: Any, other: Any, noise: timedelta) -> bool:  # Any: JSON
    """Whether the two are the same but for what the noise does to times and lengths of time."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(_alike(one[key], other[key], noise) for key in one)
        case list(), list():
            return len(one) == len(other) and all(_alike(*pair, noise) for pair in zip(one, other, strict=True))
        case str(), str():
            return one == other or _near(one, other, noise)
        case (float(), int() | float()) | (int(), float()):
            return bool(abs(one - other) <= 2 * noise.total_seconds())
        case _:
            same: bool = one == other
            return same


def _near(one: str, other: str, noise: timedelta) -> bool:
    try:
        return abs(_moment(one) - _moment(other)) <= noise
    except ValueError:
        return False


def _moment(text: str) -> datetime:
    """As columns hold it, without a zone, or as legs and timeline do."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo is not None else moment_of(text)
