"""What services are answered: each row of the contract, and each way to be refused."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from agent.calls.traces import span_id
from agent.calls.wishes import Limits
from tests.integration.api.running import RunningApi, running_api
from tests.integration.live.desks import CALL
from tests.unit.live.contexts import facts

SID = CALL.call_sid
AT = f"/v1/calls/{SID}"
SMALL = Limits(max_tasks=2, max_interactions=3, max_value_bytes=1024, max_context_bytes=8192, max_transcript_bytes=2048)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path, limits=SMALL) as api:
        await api.site.begin(CALL)
        yield api


@pytest.fixture
async def service(api: RunningApi) -> httpx.AsyncClient:
    return await api.client("dialogue", "acme")


async def context_of(service: httpx.AsyncClient) -> Any:  # Any: JSON
    return (await service.get(f"{AT}/context")).json()


async def test_a_service_reads_and_writes_a_call_and_each_answer_tells_the_revision(service: httpx.AsyncClient) -> None:
    read = await service.get(f"{AT}/context")
    written = await service.patch(f"{AT}/context", json={"variables": {"vip": True}, "crm": {"id": 7}})

    assert (read.status_code, read.headers["etag"], read.json()["caller_name"]) == (200, '"1"', "Ayşe Yılmaz")
    assert read.headers["traceparent"] == f"00-{CALL.trace_id}-{span_id(CALL.call_sid)}-01"
    assert (written.status_code, written.headers["etag"], written.json()["revision"]) == (200, '"2"', 2)
    context = await context_of(service)
    assert (context["variables"], context["crm"], context["revision"]) == ({"vip": True}, {"id": 7}, 2)
    assert (await service.get(f"{AT}/context", headers={"If-None-Match": '"2"'})).status_code == 304


async def test_a_patch_takes_away_what_is_null_and_merges_the_rest(service: httpx.AsyncClient) -> None:
    await service.patch(f"{AT}/context", json={"variables": {"a": 1, "b": {"c": 2, "d": 3}}, "crm": {"id": 7}})

    await service.patch(
        f"{AT}/context",
        content=b'{"variables": {"a": null, "b": {"c": 4}}, "crm": null}',
        headers={"Content-Type": "application/merge-patch+json"},
    )

    context = await context_of(service)
    assert context["variables"] == {"b": {"c": 4, "d": 3}}
    assert "crm" not in context


async def test_tasks_are_pushed_changed_and_popped_by_their_id_or_as_the_one_on_top(service: httpx.AsyncClient) -> None:
    pushed = await service.post(f"{AT}/tasks", json={"task_name": "book", "state_data": {"step": 1}, "priority": 2})
    await service.post(f"{AT}/tasks", json={"task_name": "identify", "id": "who/is?it"})
    await service.patch(f"{AT}/tasks/who%2Fis%3Fit", json={"state_data": {"name": "Ayşe"}})
    popped = await service.delete(f"{AT}/tasks/top")
    await service.patch(f"{AT}/tasks/{pushed.json()['ids'][0]}", json={"state_data": {"step": 2}, "task_name": "table"})

    assert pushed.status_code == 201
    assert popped.json()["ids"] == ["who/is?it"]
    context = await context_of(service)
    assert [(task["task_name"], task["state_data"], task["priority"]) for task in context["task_stack"]] == [
        ("table", {"step": 2}, 2)
    ]
    assert [task["state_data"] for task in context["tasks_done"]] == [{"name": "Ayşe"}]


async def test_one_interaction_or_several_are_appended_in_their_order_with_what_else_they_hold(
    service: httpx.AsyncClient,
) -> None:
    one = await service.post(f"{AT}/interactions", json={"speaker": "caller", "text": "Merhaba", "loudness": 3})
    two = await service.post(f"{AT}/interactions", json=[{"text": "a"}, {"type": "tool_call", "tool": "crm"}])

    assert (one.status_code, len(one.json()["ids"]), len(two.json()["ids"])) == (201, 1, 2)
    kept = (await context_of(service))["interaction_history"]
    assert [entry.get("text") for entry in kept] == ["Merhaba", "a", None]
    assert (kept[0]["loudness"], kept[0]["service"], kept[2]["type"]) == (3, "dialogue", "tool_call")


async def test_after_the_end_a_service_still_sets_the_transcript_and_the_row_is_amended(
    api: RunningApi, service: httpx.AsyncClient
) -> None:
    await service.post(f"{AT}/interactions", json={"text": "heard"})
    await api.site.end(CALL)
    assert await api.site.said(CALL) == ["heard"]

    late = await service.put(f"{AT}/transcript", json=[{"speaker": "caller", "text": "really said"}])

    assert late.status_code == 200
    while await api.site.said(CALL) != ["really said"]:  # noqa: ASYNC110 - nobody tells of a row
        await asyncio.sleep(0.002)
    assert (await service.put(f"{AT}/transcript", content=b"null")).status_code == 200


async def test_live_calls_are_listed_the_oldest_first_and_without_what_was_said(
    api: RunningApi, service: httpx.AsyncClient
) -> None:
    await api.site.begin(facts(2, state="answered"), facts(3, tenant="globex"))
    await service.post(f"{AT}/interactions", json={"text": "private"})

    listed = (await service.get("/v1/calls")).json()["calls"]

    assert [call["call_sid"] for call in listed] == [SID, facts(2).call_sid]
    assert all("interaction_history" not in call for call in listed)
    answered = (await service.get("/v1/calls?state=answered&tenant=acme")).json()["calls"]
    assert [call["call_sid"] for call in answered] == [facts(2).call_sid]


async def test_a_write_for_another_revision_is_refused_and_told_the_present_one(service: httpx.AsyncClient) -> None:
    first = await service.patch(f"{AT}/context", json={"variables": {"a": 1}}, headers={"If-Match": '"1"'})
    second = await service.patch(f"{AT}/context", json={"variables": {"a": 2}}, headers={"If-Match": '"1"'})

    assert (first.status_code, second.status_code, second.headers["etag"]) == (200, 412, '"2"')
    assert second.json()["code"] == "revision_changed"
    assert (await context_of(service))["variables"] == {"a": 1}


async def test_a_write_sent_again_with_its_key_is_answered_again_and_not_done_again(service: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k-1", "If-Match": '"1"'}
    first, second = [await service.post(f"{AT}/interactions", json={"text": "once"}, headers=headers) for _ in range(2)]

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["ids"] == second.json()["ids"]
    assert (first.json()["repeated"], second.json()["repeated"]) == (False, True)
    assert len((await context_of(service))["interaction_history"]) == 1


_DEEP = json.loads('{"a":' * 40 + "1" + "}" * 40)


# Method, path, body; status, code, field.
_REFUSED: Final[Sequence[tuple[str, str, Any, int, str, str | None]]] = [
    ("PATCH", "context", {"state": "ended"}, 422, "invalid", "state"),
    ("PATCH", "context", {"revision": 9}, 422, "invalid", "revision"),
    ("PATCH", "context", {"variables": 1}, 422, "invalid", "variables"),
    ("PATCH", "context", [1], 422, "invalid", "patch"),
    ("PATCH", "context", _DEEP, 422, "invalid", "patch"),
    ("PATCH", "context", {"variables": {"a": "x" * 1100}}, 413, "too_large", "patch"),
    ("PATCH", "context", {"variables": {"a": "x" * 4000}}, 413, "too_large", None),
    ("POST", "tasks", {"state_data": {}}, 422, "invalid", "task_name"),
    ("POST", "tasks", {"task_name": "a", "state_data": []}, 422, "invalid", "state_data"),
    ("POST", "tasks", {"task_name": "a", "start_time": "2026-11-22T10:00:00"}, 422, "invalid", "start_time"),
    ("POST", "tasks", {"task_name": "a", "id": "top"}, 422, "invalid", "id"),
    ("PATCH", "tasks/none", {}, 404, "task_unknown", "id"),
    ("DELETE", "tasks/top", None, 404, "task_unknown", "id"),
    ("POST", "interactions", [], 422, "invalid", "interactions"),
    ("POST", "interactions", "hello", 422, "invalid", "interactions.0"),
    ("POST", "interactions", [{}, {"confidence": 2}], 422, "invalid", "interactions.1.confidence"),
    ("POST", "interactions", {"started_at": "yesterday"}, 422, "invalid", "interactions.0.started_at"),
    ("POST", "interactions", [{}] * 4, 413, "too_large", "interactions"),
    ("PUT", "transcript", {"text": "a"}, 422, "invalid", "transcript"),
    ("PUT", "transcript", [{"text": "x" * 700}] * 3, 413, "too_large", "transcript"),
]


async def test_what_is_not_as_it_has_to_be_is_refused_by_the_name_of_its_field(service: httpx.AsyncClient) -> None:
    told = []
    for method, path, body, *_ in _REFUSED:
        content = None if body is None else json.dumps(body).encode()
        answer = await service.request(
            method, f"{AT}/{path}", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        told.append((method, path, body, answer.status_code, answer.json()["code"], answer.json().get("field")))

    assert told == _REFUSED
    assert (await context_of(service))["revision"] == 1


# Headers, body; status, code, field.
_UNREADABLE: Final[Sequence[tuple[dict[str, str], bytes, int, str, str | None]]] = [
    ({"Content-Type": "text/plain"}, b"{}", 415, "unsupported_media", "Content-Type"),
    ({"Content-Encoding": "gzip"}, b"{}", 415, "unsupported_media", "Content-Type"),
    ({}, b"{", 400, "malformed", None),
    ({}, b"\xff", 400, "malformed", None),
    ({}, b'{"a": NaN}', 400, "malformed", None),
    ({}, b"[" * 2000 + b"]" * 1000, 400, "malformed", None),
    ({"If-Match": "2"}, b"{}", 422, "invalid", "If-Match"),
    ({"If-Match": 'W/"1"'}, b"{}", 422, "invalid", "If-Match"),
    ({"Idempotency-Key": "a b"}, b"{}", 422, "invalid", "Idempotency-Key"),
    ({"Idempotency-Key": "a" * 256}, b"{}", 422, "invalid", "Idempotency-Key"),
]


async def test_requests_that_cannot_be_read_are_refused_with_the_reason(service: httpx.AsyncClient) -> None:
    told = []
    for headers, body, *_ in _UNREADABLE:
        sent = {"Content-Type": "application/json", **headers}
        answer = await service.patch(f"{AT}/context", content=body, headers=sent)
        told.append((headers, body, answer.status_code, answer.json()["code"], answer.json().get("field")))

    assert told == _UNREADABLE


async def test_a_body_of_very_many_values_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        await api.site.begin(CALL)
        service = await api.client("dialogue", "acme")

        answer = await service.post(f"{AT}/interactions", content=b"[" + b"{}," * 300_000 + b"{}]")

        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_body_that_is_told_to_be_or_becomes_too_long_is_refused(service: httpx.AsyncClient) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 1000

    assert (await service.patch(f"{AT}/context", content=b" " * 4000)).status_code == 413
    assert (await service.patch(f"{AT}/context", content=pieces())).status_code == 413


async def test_parameters_that_say_nothing_are_named(service: httpx.AsyncClient) -> None:
    for path in ("calls?state=x", "calls/next?wait=61", "calls/next?wait=-1", "calls?tenant=", "calls/next?after=",
                 "events?call=", "calls?tenant=acme&tenant=acme"):  # fmt: skip
        answer = await service.get(f"/v1/{path}")

        assert answer.status_code == 422
        assert answer.json()["field"] == path.partition("?")[2].partition("=")[0]


async def test_calls_that_nobody_knows_and_paths_that_lead_nowhere_are_404(service: httpx.AsyncClient) -> None:
    assert (await service.get("/v1/calls/istanbul-1:main:99/context")).json()["code"] == "call_unknown"
    assert (await service.post("/v1/calls/istanbul-1:main:99/tasks", json={"task_name": "a"})).status_code == 404
    assert (await service.get("/v1/none")).json()["code"] == "not_found"
    wrong = await service.put(f"{AT}/context", json={})
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")


async def test_a_long_poll_returns_the_call_as_it_begins_and_each_call_once(
    api: RunningApi, service: httpx.AsyncClient
) -> None:
    waiting = asyncio.create_task(service.get("/v1/calls/next?wait=10"))
    while not api.site.desk._start_news._waiters:  # noqa: ASYNC110 # type: ignore[attr-defined]
        await asyncio.sleep(0.002)
    await api.site.begin(facts(2, tenant="globex"), facts(3), facts(4))

    first = (await waiting).json()
    second = (await service.get(f"/v1/calls/next?wait=1&after={first['after']}")).json()
    third = (await service.get(f"/v1/calls/next?wait=0&after={second['after']}")).json()

    assert [first["call"]["call_sid"], second["call"]["call_sid"]] == [facts(3).call_sid, facts(4).call_sid]
    assert third == {"call": None, "after": second["after"]}


async def test_a_call_that_begins_between_two_polls_is_not_missed(api: RunningApi, service: httpx.AsyncClient) -> None:
    nothing = (await service.get("/v1/calls/next?wait=0")).json()
    await api.site.begin(facts(2))

    found = (await service.get(f"/v1/calls/next?wait=0&after={nothing['after']}")).json()

    assert nothing["call"] is None
    assert found["call"]["call_sid"] == facts(2).call_sid


async def test_the_document_for_machines_names_every_path_and_needs_no_token(api: RunningApi) -> None:
    document = (await (await api.asking()).get("/openapi.json")).json()

    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]["/v1/calls/{sid}/tasks/{id}"]) >= {"patch", "delete"}
    assert document["components"]["schemas"]["Interaction"]["examples"][0]["language"] == "tr"


async def test_no_more_connections_are_taken_than_the_settings_allow(tmp_path: Path) -> None:
    async with running_api(tmp_path, connections=2) as api:
        streams = [await asyncio.open_unix_connection(str(api.socket)) for _ in range(2)]
        service = await api.asking()

        refused = await service.get("/openapi.json")

        assert (refused.status_code, refused.json()["code"]) == (503, "busy")
        for _, writer in streams:
            writer.close()
            await writer.wait_closed()
