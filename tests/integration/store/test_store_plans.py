"""What is read often is found by an index, however much there is."""

import pytest
from sqlalchemy.dialects import sqlite

from agent.store import history, journal, outbox, receipts
from agent.store.engine import Store
from agent.store.outbox_rows import COPIED, ENCODED, VALUES
from agent.store.repository import unassigned_query
from sync.models import Call
from tests.integration.store.facts import row

FORMS = (VALUES, ENCODED, COPIED)


async def _plan(store: Store, query: str) -> str:
    def explain(connection: object) -> str:
        rows = connection.execute(f"EXPLAIN QUERY PLAN {query}", [1] * query.count("?")).fetchall()  # type: ignore[attr-defined]
        return "; ".join(row[3] for row in rows)

    return await store.reader.run(explain)


@pytest.mark.parametrize(
    "query",
    [
        *(f"SELECT {form.columns} {outbox.OLDEST}" for form in FORMS),
        *(f"SELECT {form.columns} {outbox.FRESHEST}" for form in FORMS),
        "SELECT enqueued_at FROM outbox ORDER BY sequence LIMIT 1",
        outbox._TAKE_AWAY,
        outbox._CLEAR,
        receipts.LOST,
        receipts.SEND_AGAIN,
        receipts._KEEP,
        history.SEGMENTS,
        history.OLDEST,
        history.NEWEST,
        history.FROM_ID,
        journal.OLDEST_ANCHOR,
        journal.PRUNABLE,
        "SELECT last_at FROM journal_segment WHERE pbx = ? ORDER BY id DESC LIMIT 1",
        "SELECT id FROM call WHERE call_sid IN (SELECT value FROM json_each(?))",
        "DELETE FROM task WHERE call_id = ?",
        "DELETE FROM outbox WHERE call_id = ?",
        "SELECT coalesce(max(id), 0) + 1 FROM call",
    ],
)
async def test_statements_of_every_commit_and_batch_use_indexes(store: Store, query: str) -> None:
    plan = await _plan(store, query)

    assert "USE TEMP B-TREE" not in plan
    for table in ("call", "task", "interaction", "quarantine", "journal_segment", "live_call"):
        assert f"SCAN {table}" not in plan.replace(f"SCAN {table} USING", "")
    # The outbox itself is read from one of its ends.
    assert "SCAN outbox USING" not in plan


async def test_fresh_calls_are_found_by_their_beginning_and_not_among_the_backlog(store: Store) -> None:
    plan = await _plan(store, f"SELECT {VALUES.columns} {outbox.FRESH}")

    assert plan.startswith("SEARCH call USING INDEX ix_call_start_time (start_time>?)")
    assert "SEARCH outbox USING" in plan


@pytest.mark.parametrize("last", [None, Call(id=1, **row(1))])
async def test_unassigned_calls_come_in_order_from_their_index(store: Store, last: Call | None) -> None:
    plan = await _plan(store, str(unassigned_query(last).compile(dialect=sqlite.dialect())))

    assert plan.startswith("SEARCH call USING INDEX ix_call_tenant_id_start_time (tenant_id=?")
    assert "TEMP B-TREE" not in plan
