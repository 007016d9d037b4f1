"""The services' API fuzzed from its own OpenAPI document: every answer is one it names, no call of others changes.

`SENTIRIC_FUZZ_EXAMPLES=1000` is the long form: so many examples of each operation, as long as it takes.
"""

import asyncio
import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, given, seed, settings
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

_WISHED = os.environ.get("SENTIRIC_FUZZ_EXAMPLES")
_EXAMPLES = int(_WISHED or 90)  # of each operation, half of them as the document has it and half not
_AT_ONCE = 15  # of them; then it is seen whether there is time for more
_SECONDS = 20.0 if _WISHED is None else _EXAMPLES * 2.0  # for all; what is not begun by then is left out
_STREAM_SECONDS = 0.5  # of silence, after which nothing more is awaited
_STREAM_BYTES = 65_536
_CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
_LIMITS = Limits(max_tasks=8, max_interactions=40, max_value_bytes=2048, max_context_bytes=65_536)
OVER = facts(2)
OTHERS = facts(3, tenant="globex")
_SIDS = [CALL.call_sid, CALL.call_sid, OVER.call_sid, OTHERS.call_sid]


class Attacker:
    """Somebody with a token, who sends whatever it is given."""

    def __init__(self, url: str, token: str) -> None:
        self.told: Counter[tuple[str, int]] = Counter()  # how often each operation was answered how
        self.heard = 0  # events
        self._url = url
        self._token = token
        self._session = requests.Session()
        self._changes = requests.Session()

    def send(self, case: Any, *, shows_token: bool) -> None:  # Any: schemathesis' own
        """Send it, and hold the answer against the document."""
        request = case.as_transport_kwargs(base_url=self._url)
        headers = {name: value for name, value in request.pop("headers").items() if name.lower() != "authorization"}
        if shows_token:
            headers["Authorization"] = f"Bearer {self._token}"
        is_stream = case.operation.path == "/v1/events"
        timeout = (5.0, _STREAM_SECONDS if is_stream else 30.0)
        with self._session.request(**request, headers=headers, stream=is_stream, timeout=timeout) as answer:
            self.told[case.operation.label, answer.status_code] += 1
            if is_stream and answer.status_code == requests.codes.ok:
                self._listen(answer)
            else:
                case.validate_response(answer, checks=_CHECKS)

    def _listen(self, answer: requests.Response) -> None:
        """A stream has no end: to its first event, which a change of each call brings about, or until it is silent."""
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        for sid in (CALL.call_sid, OVER.call_sid):
            change = {"variables": {"heard": self.heard}}
            headers = {"Authorization": f"Bearer {self._token}"}
            self._changes.patch(f"{self._url}/v1/calls/{sid}/context", json=change, headers=headers).raise_for_status()
        text = b"".join(_until_event(answer)).decode()
        names = {line.partition(":")[0] for line in text.splitlines()}
        assert names <= {"id", "event", "data", "retry", ""}, text
        assert OTHERS.call_sid not in text
        self.heard += "event:" in text


def _until_event(answer: requests.Response) -> Iterator[bytes]:
    read = 0
    with contextlib.suppress(requests.ConnectionError):  # so it calls that no more came in time
        for piece in answer.iter_content(chunk_size=None):
            yield piece
            read += len(piece)
            if b"event:" in piece or read > _STREAM_BYTES:
                return


def fuzz(attacker: Attacker, operations: Sequence[Any]) -> None:  # Any: as below
    """Call everything with everything."""
    for operation in operations:
        _fuzz_operation(attacker, operation, ends_at=time.monotonic() + _SECONDS / len(operations))


def _fuzz_operation(
    attacker: Attacker,
    operation: Any,  # Any: schemathesis' own type has parameters that are none of our business
    *,
    ends_at: float,
) -> None:
    cases = st.one_of(*(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    queries = st.fixed_dictionaries(
        {},
        optional={
            "tenant": st.sampled_from(["acme", "acme", "globex"]),
            "call": st.sampled_from(_SIDS),
            "state": st.sampled_from(["answered", "ended", "x"]),
        },
    )

    @settings(
        max_examples=_AT_ONCE,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(
        case=cases,
        shows_token=st.sampled_from([True] * 9 + [False]),
        sid=st.sampled_from([*_SIDS, None]),
        query=st.none() | queries,
        wait=st.sampled_from(["0", "0.01", "x"]),
    )
    def attack(
        case: Any, *, shows_token: bool, sid: str | None, query: dict[str, str] | None, wait: str
    ) -> None:  # Any: as above
        if operation.path == "/v1/calls/next":
            case.query = {**(case.query or {}), "wait": wait}
        if sid is not None and case.path_parameters:
            case.path_parameters = {**case.path_parameters, "sid": sid}
            if "id" in case.path_parameters:
                case.path_parameters["id"] = "top"
        elif query is not None:
            named = {parameter.name for parameter in operation.query}
            case.query = {**(case.query or {}), **{name: value for name, value in query.items() if name in named}}
        attacker.send(case, shows_token=shows_token)

    for part in range(max(1, _EXAMPLES // _AT_ONCE)):
        if time.monotonic() > ends_at:
            break
        seed(part)(attack)()


@pytest.mark.timeout(90 if _WISHED is None else _EXAMPLES * 3)
async def test_whatever_is_sent_is_answered_and_no_call_of_others_changes(tmp_path: Path) -> None:
    async with running_api(tmp_path, limits=_LIMITS, seconds=_SECONDS + 30) as api:
        await api.site.begin(CALL, OVER, OTHERS)
        await api.site.end(OVER)
        attacker = Attacker(f"http://127.0.0.1:{api.port}", await api.add("dialogue", "acme"))

        found: list[Any] = list(openapi.from_dict(document()).get_all_operations())
        await asyncio.to_thread(fuzz, attacker, [each.ok() for each in found])

        others = await api.site.desk.read(OTHERS.call_sid)
    told = attacker.told
    assert {status for _, status in told if status >= 500} == set()
    assert told["PATCH /v1/calls/{sid}/context", 200] > 0
    assert told["POST /v1/calls/{sid}/interactions", 201] > 0
    assert told["POST /v1/calls/{sid}/tasks", 201] > 0
    assert told["PUT /v1/calls/{sid}/transcript", 200] > 0
    assert told["GET /v1/calls/next", 200] > 0
    assert attacker.heard > 0
    assert (others.operation, others.revision) == (0, 1)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=9), each, max_size=3),
    max_leaves=8,
)
_REQUESTS = st.fixed_dictionaries(
    {
        "method": st.sampled_from(["GET", "HEAD", "PATCH", "POST", "PUT", "DELETE", "OPTIONS"]),
        "path": st.sampled_from(["context", "tasks", "tasks/top", "tasks/x", "interactions", "transcript", "x", ""]),
        "headers": st.fixed_dictionaries(
            {},
            optional={
                "If-Match": st.sampled_from(['"1"', '"2"', "*", "x"]),
                "If-None-Match": st.sampled_from(['"1"', "*"]),
                "Idempotency-Key": st.sampled_from(["k", ""]),
                "Content-Type": st.sampled_from(["application/json", "application/merge-patch+json", "text/plain"]),
                "Content-Encoding": st.sampled_from(["gzip", "identity"]),
            },
        ),
        "data": st.binary(max_size=40) | _VALUES.map(lambda value: json.dumps(value).encode()),
    }
)


@pytest.mark.timeout(60 if _WISHED is None else _EXAMPLES)
async def test_a_call_of_others_cannot_be_told_from_one_that_nobody_knows(tmp_path: Path) -> None:
    over, nobodys = facts(4, tenant="globex"), facts(5, tenant=None)
    hidden = [OTHERS.call_sid, over.call_sid, nobodys.call_sid]

    async with running_api(tmp_path, limits=_LIMITS, seconds=_SECONDS + 30) as api:
        await api.site.begin(CALL, OTHERS, over, nobodys)
        await api.site.say(OTHERS, "secret")
        await api.site.end(over)
        tokens = [await api.add("dialogue", "acme"), await api.add("reader", "acme", read_only=True)]
        session = requests.Session()

        def answer(sid: str, token: str, method: str, path: str, **more: Any) -> tuple[int, list[Any], bytes]:
            url = f"http://127.0.0.1:{api.port}/v1/calls/{sid}/{path}"
            headers = more.pop("headers") | {"Authorization": f"Bearer {token}"}
            told = session.request(method, url, headers=headers, timeout=10, **more)
            return told.status_code, [each for each in told.raw.headers.items() if each[0] != "date"], told.content

        @settings(max_examples=_EXAMPLES // 2, deadline=None, database=None, derandomize=True)
        @given(request=_REQUESTS, token=st.sampled_from(tokens))
        def ask(request: dict[str, Any], token: str) -> None:  # Any: what a request has
            unknown = answer("istanbul-1:main:9", token, **request)
            for sid in hidden:
                assert answer(sid, token, **request) == unknown

        await asyncio.to_thread(ask)
        assert [(await api.site.desk.read(sid)).revision for sid in hidden] == [2, 2, 1]
