"""What the centre has confirmed: by which receipt, for a day on which it turns out to have lost some of it."""

import sqlite3
from collections.abc import Sequence

from config import failpoints
from sync.outbox import Standing
from sync.records import RecordReceipt, Verdict

_STEP = 500

# The calls of a JSON array of [call_sid, revision].
TOLD = "json_each(?) AS told CROSS JOIN call ON call.call_sid = told.value ->> 0"
_KEEP = f"""INSERT INTO call_receipt (number, call_id) SELECT ?, call.id FROM {TOLD} WHERE true
    ON CONFLICT (call_id) DO UPDATE SET number = excluded.number"""  # noqa: S608 - our own words
_COUNT = """INSERT INTO centre (id, receipts) VALUES (1, ?)
    ON CONFLICT (id) DO UPDATE SET receipts = max(receipts, excluded.receipts)"""
_KEEP_STANDING = """INSERT INTO centre (id, identity, lease, receipts) VALUES (1, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET
        identity = excluded.identity, lease = excluded.lease, receipts = excluded.receipts"""
# The revision that was sent becomes the one that the centre holds; what came after it stays after it.
_CATCH_UP = "UPDATE call SET revision = :held + (revision > :sent) WHERE call_sid = :sid AND revision <= :held"
_CATCH_UP_WAITING = """UPDATE outbox SET revision = (SELECT revision FROM call WHERE id = call_id)
    WHERE call_id = (SELECT id FROM call WHERE call_sid = ?)"""
LOST = f"SELECT call_id FROM call_receipt WHERE number > ? ORDER BY number LIMIT {_STEP}"  # noqa: S608 - a number
SEND_AGAIN = """INSERT INTO outbox (call_id, revision, enqueued_at) SELECT id, revision, ? FROM call WHERE id = ?
    AND tenant_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM quarantine WHERE call_id = call.id)
    AND NOT EXISTS (SELECT 1 FROM dropped_call AS dropped
        WHERE dropped.call_sid = call.call_sid AND dropped.revision >= call.revision)
    ON CONFLICT DO NOTHING"""


def keep_receipt(connection: sqlite3.Connection, passed: Sequence[RecordReceipt], told: str, *, number: int) -> None:
    """Note the receipt's number beside its calls, `told` as in TOLD, and let those go on from the revision that the
    centre holds."""
    connection.execute(_KEEP, (number, told))
    connection.execute(_COUNT, (number,))
    for one in passed:
        held = one.held_revision
        if one.verdict is Verdict.SUPERSEDED and held is not None and held > one.revision:
            connection.execute(_CATCH_UP, {"held": held, "sent": one.revision, "sid": one.call_sid})
            connection.execute(_CATCH_UP_WAITING, (one.call_sid,))


def read_standing(connection: sqlite3.Connection) -> Standing:
    """How the site stands with its centre."""
    found = connection.execute("SELECT identity, lease, receipts FROM centre WHERE id = 1").fetchone()
    return Standing(*found) if found else Standing()


def keep_standing(standing: Standing, connection: sqlite3.Connection) -> None:
    """Remember it."""
    connection.execute(_KEEP_STANDING, (standing.centre, standing.lease, standing.receipts))


def refill(after: int, now: str, connection: sqlite3.Connection) -> int:
    """Have some calls that were confirmed by a later receipt than `after` wait again; returns how many."""
    ids = connection.execute(LOST, (after,)).fetchall()
    connection.executemany(SEND_AGAIN, [(now, call_id) for (call_id,) in ids])
    failpoints.hit("outbox.refill")
    connection.executemany("DELETE FROM call_receipt WHERE call_id = ?", ids)
    return len(ids)
