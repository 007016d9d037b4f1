"""What each source told of a call of which several told, so that its record is the same in whatever order they came."""

import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agent.calls.merging import Row, is_part, with_account
from agent.store import rows
from agent.store.moments import moment_of
from agent.store.rows import EncodedCall

# Other services' to tell, and no source's.
OTHERS: Final = frozenset({"full_transcript"})


@dataclass(frozen=True, slots=True)
class Retelling:
    """What becomes of a stored call because a source told of it."""

    changes: EncodedCall  # encoded, only what differs
    accounts: dict[str, str]  # to be kept beside it, by source
    accounts_differ: bool


def are_several(connection: sqlite3.Connection, call_id: int, stored: EncodedCall, told: EncodedCall) -> bool:
    """Whether a record is made of what several sources told, once `told` is too."""
    if is_part(told) or "source" not in told:
        return False
    if told["source"] != stored["source"]:
        return True
    return connection.execute("SELECT 1 FROM account WHERE call_id = ? LIMIT 1", (call_id,)).fetchone() is not None


def retell(connection: sqlite3.Connection, call_id: int, stored: EncodedCall, told: Row) -> Retelling:
    """The stored call (`call_sid` and content) with what `told` says; nothing is written."""
    kept = {
        str(source): str(text)
        for source, text in connection.execute("SELECT source, told FROM account WHERE call_id = ?", (call_id,))
    }
    record = {name: value for name, value in decoded(stored).items() if name not in OTHERS}
    accounts = {source: decoded(json.loads(text)) for source, text in kept.items()}
    row, known = with_account(record, accounts, told)
    if "+" in row["source"] and record["recording"] is not None:
        row["recording"] = record["recording"]  # a service may have told it meanwhile
    changes = {
        name: value
        for name, value in rows.encode_call(row).items()
        if stored[name] != value and not (name in rows.JSONS and rows.same_json(stored[name], value))
    }
    texts = {source: rows.json_text(rows.encode_call(account)) for source, account in known.items()}
    return Retelling(changes, texts, texts != kept)


def keep(connection: sqlite3.Connection, accounts: Iterable[tuple[int, Mapping[str, str]]]) -> None:
    """Write the accounts of calls, by id, in place of those that were kept. Inside the caller's transaction."""
    for call_id, told in accounts:
        connection.execute("DELETE FROM account WHERE call_id = ?", (call_id,))
        connection.executemany(
            "INSERT INTO account (call_id, source, told) VALUES (?, ?, ?)",
            [(call_id, source, text) for source, text in told.items()],
        )


def decoded(row: Mapping[str, Any]) -> dict[str, Any]:  # Any: encoded values, and the columns' own types
    """The values of an encoded call."""
    values = dict(row)
    for name in rows.MOMENTS:
        if values.get(name) is not None:
            values[name] = moment_of(str(values[name]))
    for name in rows.JSONS:
        if name in values:
            values[name] = json.loads(str(values[name]))
    return values
