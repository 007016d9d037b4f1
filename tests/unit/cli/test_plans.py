"""What commands read is found by an index, however many calls there are."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from agent.cli.local import Filter, LocalCalls
from agent.cli.settings import load_to_look
from tests.unit.cli.local_site import NOON, LocalSite, call, refused, sid

_BY_TIME = "call USING INDEX ix_call_start_time"
_BY_TENANT = "SEARCH call USING INDEX ix_call_tenant_id_start_time (tenant_id=?"


@pytest.fixture
def plans(site: LocalSite) -> Iterator[Callable[[Callable[[LocalCalls], object]], str]]:
    """Reads as told, and tells the plan of every query that was made."""
    site.keep(call(1), call(2, tenant=None), call(3))
    site.settle(refused(3))
    made: list[str] = []
    with LocalCalls.of(load_to_look(site.file, {})) as calls, closing(sqlite3.connect(site.database)) as beside:

        def plans_of(read: Callable[[LocalCalls], object]) -> str:
            calls._connection.set_trace_callback(made.append)
            read(calls)
            steps = [step for query in made for step in beside.execute(f"EXPLAIN QUERY PLAN {query}")]
            return "; ".join(step[3] for step in steps)

        yield plans_of


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (Filter(), _BY_TIME),
        (Filter(since=NOON), _BY_TIME),
        (Filter(number="0001"), _BY_TIME),
        (Filter(status="busy", direction="inbound"), _BY_TIME),
        (Filter(tenant="acme"), _BY_TENANT),
        (Filter(tenant="acme", since=NOON, until=NOON), f"{_BY_TENANT} AND start_time>? AND start_time<?"),
        (Filter(tenant="acme", number="0001"), _BY_TENANT),
        (Filter(unassigned=True), _BY_TENANT),
        (Filter(unassigned=True, since=NOON), f"{_BY_TENANT} AND start_time>?"),
    ],
)
@pytest.mark.parametrize(
    "read",
    [
        lambda calls, wanted: calls.newest(wanted, limit=5),
        lambda calls, wanted: list(calls.all(wanted)),
        lambda calls, wanted: list(calls.all_briefly(wanted)),
    ],
    ids=["list", "export", "export briefly"],
)
def test_lists_and_exports_come_in_order_from_an_index(
    plans: Callable[[Callable[[LocalCalls], object]], str],
    read: Callable[[LocalCalls, Filter], object],
    wanted: Filter,
    index: str,
) -> None:
    plan = plans(lambda calls: read(calls, wanted))
    assert index in plan
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize("reference", [sid(1), "01.1"])
def test_a_call_is_looked_for_among_ids_alone(
    plans: Callable[[Callable[[LocalCalls], object]], str], reference: str
) -> None:
    plan = plans(lambda calls: calls.find(reference))
    assert "SEARCH call USING INDEX sqlite_autoindex_call_1 (call_sid=?)" in plan
    assert "SCAN call" not in plan.replace("SCAN call USING COVERING INDEX", "")
    assert "TEMP B-TREE" not in plan


@pytest.mark.parametrize(
    ("read", "step"),
    [
        (lambda calls: calls.last_call_at("main"), _BY_TIME),
        (lambda calls: calls.count_since(NOON), "SEARCH call USING INDEX ix_call_start_time (start_time>?)"),
        (
            LocalCalls.count_unassigned,
            "SEARCH call USING COVERING INDEX ix_call_tenant_id_start_time (tenant_id=?)",
        ),
        (LocalCalls.count_by_tenant, "SCAN call USING COVERING INDEX ix_call_tenant_id_start_time"),
        (lambda calls: calls.open_gap_since("main"), "SEARCH gap USING INDEX uq_gap_open (pbx=?)"),
        (LocalCalls.refused, "SEARCH call USING INTEGER PRIMARY KEY (rowid=?)"),
        (LocalCalls.backlog, "SCAN outbox"),  # from its end, for one entry
    ],
    ids=["last call", "today", "unassigned", "by tenant", "gap", "refused", "backlog"],
)
def test_a_status_looks_at_no_more_calls_than_it_tells_of(
    plans: Callable[[Callable[[LocalCalls], object]], str], read: Callable[[LocalCalls], object], step: str
) -> None:
    plan = plans(read)
    assert step in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan or "SCAN quarantine" in plan
