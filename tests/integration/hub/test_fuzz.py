"""The hub's API fuzzed from its own OpenAPI document: every answer is one it names, and nothing foreign is stored."""

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import openapi
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from sync import wire
from sync.hub.limits import Limits
from sync.records import CallRecord
from tests.fakes_sync import a_record
from tests.hub_server import RunningHub, running_hub
from tests.postgres import PostgresDatabase

_EXAMPLES = 80  # of each operation, half of them as the document has it and half not
_SECONDS = 32.0  # for all, each with its share; what is not begun by then is left out
_ANSWERED = {"POST /v1/batches", "POST /v1/handshake", "GET /v1/reconcile/days"}  # each has to be done at least once
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

_TEXTS = st.text() | st.sampled_from(["other", "ankara", "ankara:asterisk:1.1", "istanbul:", "\0", "\ud800", "'; --"])
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS
    | st.datetimes().map(lambda moment: f"{moment}Z"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=6,
)
_CHANGES = st.dictionaries(st.sampled_from(CallRecord._fields), _VALUES, max_size=3)


def fuzz(url: str, headers: dict[str, str], lease: str) -> Counter[tuple[str, int]]:
    """Call everything with everything; return how often each operation answered how."""
    schema = openapi.from_url(f"{url}/openapi.json")
    told: Counter[tuple[str, int]] = Counter()
    operations: list[Any] = [found.ok() for found in list[Any](schema.get_all_operations())]  # Any: as below
    for operation in operations:
        ends_at = time.monotonic() + _SECONDS / len(operations)
        _fuzz_operation(operation, headers=headers, lease=lease, told=told, ends_at=ends_at)
    return told


def _fuzz_operation(
    operation: Any,  # Any: schemathesis' own type has parameters that are none of our business
    *,
    headers: dict[str, str],
    lease: str,
    told: Counter[tuple[str, int]],
    ends_at: float,
) -> None:
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))

    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, is_ours=st.booleans(), changes=st.lists(_CHANGES, max_size=6))
    def attack(case: Any, is_ours: bool, changes: list[dict[str, Any]]) -> None:  # Any: as above
        if time.monotonic() > ends_at and (told[operation.label, 200] or operation.label not in _ANSWERED):
            return
        case.headers = {name: value for name, value in (case.headers or {}).items() if name != "Authorization"}
        if is_ours and isinstance(case.body, dict):
            _as_ours(case.body, lease, changes)
        answer = case.call(headers=headers)
        told[operation.label, answer.status_code] += 1
        case.validate_response(answer, checks=_CHECKS)

    attack()


def _as_ours(body: dict[str, Any], lease: str, changes: list[dict[str, Any]]) -> None:  # Any: JSON
    """What gets past the first wall: the site's own name and lease, and calls of which most is right."""
    body |= {"site": "istanbul", "holder": "holder", "lease": lease}
    if "records" in body:
        calls = [json.loads(wire.encode_record(a_record(number))) for number in range(len(changes))]
        body["records"] = [call | change for call, change in zip(calls, changes, strict=True)]
        body |= {"high_water": 1, "receipts": 0}


@pytest.mark.timeout(180)
async def test_whatever_is_sent_is_answered_and_nothing_foreign_is_stored(
    central_database: PostgresDatabase,
) -> None:
    limits = Limits(enrolments_per_minute=1_000_000, refusals_per_minute=1_000_000, stop_seconds=2)
    async with running_hub(central_database, limits=limits) as hub:
        await central_database.add_site("ankara", "other")
        welcome = await hub.greet()
        url = f"http://127.0.0.1:{hub.port}"

        told = await asyncio.to_thread(fuzz, url, hub.authorized, welcome.lease)

    assert {status for _, status in told if status >= 500} == set()
    assert {label for label, status in told if status == 200} >= _ANSWERED
    await _assert_nothing_foreign(hub)


async def _assert_nothing_foreign(hub: RunningHub) -> None:
    foreign = await hub.database.fetch(
        "SELECT call_sid FROM call JOIN tenant ON tenant.id = call.tenant_id"
        " WHERE call.site <> 'istanbul' OR NOT starts_with(call_sid, 'istanbul:') OR tenant.name <> 'acme'"
    )
    assert foreign == []
    assert {row["name"] for row in await hub.database.fetch("SELECT name FROM site")} == {"istanbul", "ankara"}
    assert {row["site"] for row in await hub.database.fetch("SELECT site FROM credential")} == {"istanbul"}
    assert await hub.database.fetch("SELECT name FROM site WHERE name = 'ankara' AND last_seen_at IS NOT NULL") == []
