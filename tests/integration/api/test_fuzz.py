"""The services' API fuzzed from its own OpenAPI document: every answer is one it names, no call of others changes."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
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

from agent.api.openapi import document
from agent.calls.wishes import Limits
from tests.integration.api.running import running_api
from tests.integration.live.desks import CALL
from tests.unit.live.contexts import facts

_EXAMPLES = 40  # of each operation, half of them as the document has it and half not
_SECONDS = 20.0  # for all; what is not begun by then is left out
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_LIMITS = Limits(max_tasks=8, max_interactions=40, max_value_bytes=2048, max_context_bytes=65_536)
OVER = facts(2)
OTHERS = facts(3, tenant="globex")
_SIDS = st.sampled_from([CALL.call_sid, CALL.call_sid, OVER.call_sid, OTHERS.call_sid])


def fuzz(url: str, headers: dict[str, str], operations: Sequence[Any]) -> Counter[tuple[str, int]]:  # Any: as below
    """Call everything with everything; return how often each operation answered how."""
    told: Counter[tuple[str, int]] = Counter()
    for operation in operations:
        ends_at = time.monotonic() + _SECONDS / len(operations)
        _fuzz_operation(operation, url=url, headers=headers, told=told, ends_at=ends_at)
    return told


def _fuzz_operation(
    operation: Any,  # Any: schemathesis' own type has parameters that are none of our business
    *,
    url: str,
    headers: dict[str, str],
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
    @given(case=cases, is_ours=st.booleans(), sid=_SIDS, wait=st.sampled_from(["0", "0.01", None]))
    def attack(case: Any, is_ours: bool, sid: str, wait: str | None) -> None:  # Any: as above
        if time.monotonic() > ends_at:
            return
        case.headers = {name: value for name, value in (case.headers or {}).items() if name != "Authorization"}
        if "wait" in (case.query or {}) or operation.path == "/v1/calls/next":
            case.query = {**(case.query or {}), "wait": wait if wait is not None else "x"}
        if is_ours and case.path_parameters:
            case.path_parameters = {**case.path_parameters, "sid": sid}
            if "id" in case.path_parameters:
                case.path_parameters["id"] = "top"
            case.headers = {name: value for name, value in case.headers.items() if name == "Content-Type"}
        answer = case.call(base_url=url, headers=headers)
        told[operation.label, answer.status_code] += 1
        case.validate_response(answer, checks=_CHECKS)

    attack()


@pytest.mark.timeout(60)
async def test_whatever_is_sent_is_answered_and_no_call_of_others_changes(tmp_path: Path) -> None:
    async with asyncio.timeout(50), running_api(tmp_path, limits=_LIMITS, seconds=45) as api:
        await api.site.begin(CALL, OVER, OTHERS)
        await api.site.end(OVER)
        token = await api.add("dialogue", "acme")

        found: list[Any] = list(openapi.from_dict(document()).get_all_operations())
        # A good answer of the stream of events has no end.
        operations = [each.ok() for each in found if each.ok().path != "/v1/events"]
        url, headers = f"http://127.0.0.1:{api.port}", {"Authorization": f"Bearer {token}"}
        told = await asyncio.to_thread(fuzz, url, headers, operations)

        others = await api.site.desk.read(OTHERS.call_sid)
    assert {status for _, status in told if status >= 500} == set()
    assert told["PATCH /v1/calls/{sid}/context", 200] > 0
    assert told["POST /v1/calls/{sid}/interactions", 201] > 0
    assert told["POST /v1/calls/{sid}/tasks", 201] > 0
    assert told["PUT /v1/calls/{sid}/transcript", 200] > 0
    assert (others.operation, others.revision) == (0, 1)
