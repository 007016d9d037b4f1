"""Who may do what: a service sees its tenants' calls, and nothing tells it that there are others."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from agent.store.writer import FinishedCall, Group
from tests.integration.api.running import RunningApi, events_of, running_api
from tests.integration.live.desks import CALL, row_of
from tests.unit.live.contexts import facts

OTHERS = facts(2, tenant="globex")
NOBODYS = facts(3, tenant=None)
UNKNOWN = "istanbul-1:main:404"
EVERYTHING: list[tuple[str, str, object]] = [
    ("GET", "context", None),
    ("PATCH", "context", {"variables": {"a": 1}}),
    ("POST", "tasks", {"task_name": "a"}),
    ("PATCH", "tasks/top", {}),
    ("DELETE", "tasks/top", None),
    ("POST", "interactions", {"text": "a"}),
    ("PUT", "transcript", []),
]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as api:
        await api.site.begin(CALL, OTHERS, NOBODYS)
        yield api


async def test_a_call_of_others_live_or_over_is_answered_as_one_that_nobody_knows(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    over = facts(7, tenant="globex")
    await api.site.begin(over)
    await api.site.end(over)

    async def answers(sid: str) -> list[tuple[int, bytes, dict[str, str]]]:
        told = [
            await service.request(method, f"/v1/calls/{sid}/{path}", content=None if body is None else json.dumps(body))
            for method, path, body in EVERYTHING
        ]
        return [
            (each.status_code, each.content, {name: each.headers[name] for name in each.headers if name != "date"})
            for each in told
        ]

    unknown = await answers(UNKNOWN)
    assert {status for status, _, _ in unknown} == {404}
    for others in (OTHERS, NOBODYS, over):
        assert await answers(others.call_sid) == unknown
    assert (await api.site.desk.read(OTHERS.call_sid)).operation == 0


async def test_a_call_of_others_is_looked_up_as_one_that_nobody_knows(api: RunningApi) -> None:
    """So that the time it takes does not tell whether there is one, however much is known of it."""
    service = await api.client("dialogue", "acme")
    over, long_over, statements = facts(7, tenant="globex"), facts(8, tenant="globex"), list[str]()
    await api.site.begin(over)
    await api.site.end(over)
    said = [{"text": "a long story"}] * 100
    told = FinishedCall(row_of(long_over) | {"full_transcript": said}, "globex", interactions=said)
    await api.site.writer.commit(Group(finished=[told]))
    assert len((await api.site.desk.read(long_over.call_sid)).interaction_history) == len(said)
    await api.site.store.reader.run(lambda reader: reader.set_trace_callback(statements.append))

    async def looked_up(sid: str) -> list[str]:
        statements.clear()
        assert (await service.get(f"/v1/calls/{sid}/context")).status_code == 404
        # The desk's sweep may come in between.
        return [statement.replace(sid, "SID") for statement in statements if f"= '{sid}'" in statement]

    unknown = await looked_up(UNKNOWN)
    assert len(unknown) == 1
    for others in (OTHERS, NOBODYS, over, long_over):
        assert await looked_up(others.call_sid) == unknown


async def test_lists_polls_and_events_tell_a_service_nothing_of_others(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    everyone = await api.client("recorder")
    before = api.site.desk.changes.latest
    await api.site.begin(facts(4, tenant="globex"), facts(5))
    await everyone.post(f"/v1/calls/{OTHERS.call_sid}/interactions", json={"text": "secret"})
    await everyone.post(f"/v1/calls/{CALL.call_sid}/interactions", json={"text": "ours"})

    listed = (await service.get("/v1/calls")).json()["calls"]
    following = (await service.get(f"/v1/calls/next?wait=0&after={before}")).json()
    text = ""
    async with service.stream("GET", "/v1/events", headers={"Last-Event-ID": before}) as stream:
        async for piece in stream.aiter_text():
            text += piece
            if "context.changed" in text:
                break

    assert [call["call_sid"] for call in listed] == [CALL.call_sid, facts(5).call_sid]
    assert following["call"]["call_sid"] == facts(5).call_sid
    assert [json.loads(data)["call_sid"] for _, data in events_of(text)] == [facts(5).call_sid, CALL.call_sid]
    assert len((await everyone.get("/v1/calls")).json()["calls"]) == 5


async def test_events_of_a_call_of_others_are_404_alike(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")

    unknown, others = [(await service.get(f"/v1/events?call={sid}")).content for sid in (UNKNOWN, OTHERS.call_sid)]

    assert unknown == others
    assert json.loads(unknown)["code"] == "call_unknown"


async def test_a_tenant_that_is_not_the_services_is_refused_whether_there_is_one_or_not(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")

    for path in ("/v1/calls", "/v1/calls/next", "/v1/events"):
        for tenant in ("globex", "no-such-tenant"):
            answer = await service.get(path, params={"tenant": tenant})
            told = answer.json()
            assert (answer.status_code, told["code"], told["field"]) == (403, "tenant_forbidden", "tenant")


async def test_asked_for_one_tenant_nothing_tells_of_calls_that_no_tenant_has_yet(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    start = api.site.desk.changes.latest
    await api.site.begin(facts(8, tenant=None), facts(9))

    listed = (await service.get("/v1/calls?tenant=acme")).json()["calls"]
    following = (await service.get(f"/v1/calls/next?tenant=acme&wait=0&after={start}")).json()
    text = ""
    async with service.stream("GET", "/v1/events?tenant=acme", headers={"Last-Event-ID": start}) as stream:
        async for piece in stream.aiter_text():
            text += piece
            if facts(9).call_sid in text:
                break

    assert [call["call_sid"] for call in listed] == [CALL.call_sid, facts(9).call_sid]
    assert following["call"]["call_sid"] == facts(9).call_sid
    assert [json.loads(data)["call_sid"] for _, data in events_of(text)] == [facts(9).call_sid]


async def test_a_stream_goes_on_while_other_services_come_and_go(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    async with service.stream("GET", "/v1/events") as stream:
        pieces = stream.aiter_text()
        await anext(pieces)
        await api.add("other", "acme")
        await api.remove("other")
        await api.site.say(CALL, "a")
        await api.site.end(CALL)
        told = [piece async for piece in _until(pieces, "call.ended")]

    assert "context.changed" in "".join(told)


async def _until(pieces: AsyncIterator[str], wanted: str) -> AsyncIterator[str]:
    async for piece in pieces:
        yield piece
        if wanted in piece:
            return


async def test_a_call_that_moves_to_a_services_tenant_begins_for_it_then(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    after = (await service.get("/v1/calls/next?wait=0")).json()["after"]

    api.site.desk.mark(NOBODYS.model_copy(update={"tenant_id": "acme"}))

    found = (await service.get(f"/v1/calls/next?wait=1&after={after}")).json()
    assert found["call"]["call_sid"] == NOBODYS.call_sid
    assert (await service.get(f"/v1/calls/{NOBODYS.call_sid}/context")).status_code == 200


async def test_a_service_for_all_sees_calls_that_no_tenant_has_yet(api: RunningApi) -> None:
    service = await api.client("recorder")

    assert (await service.get(f"/v1/calls/{NOBODYS.call_sid}/context")).status_code == 200
    assert len((await service.get("/v1/calls")).json()["calls"]) == 3


async def test_a_service_that_may_read_only_writes_nothing(api: RunningApi) -> None:
    service = await api.client("watcher", "acme", read_only=True)

    for method, path, body in EVERYTHING[1:]:
        answer = await service.request(method, f"/v1/calls/{CALL.call_sid}/{path}", json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "read_only")
    assert (await service.get(f"/v1/calls/{CALL.call_sid}/context")).json()["revision"] == 1


_WRONG = [None, b"Bearer", b"Bearer wrong", b"Basic ZWRnZQ==", b"edge_token_of_dialogue", b"Bearer " + b"x" * 999,
          b"Bearer edge_token_of_dialogu", b"bearer\tedge_token_of_dialogue", "Bearer ş".encode()]  # fmt: skip


async def test_without_a_good_token_nobody_is_answered(api: RunningApi) -> None:
    await api.add("dialogue", "acme")
    for client in (await api.asking(), await api.asking(by_port=True)):
        for shown in _WRONG:
            headers = {} if shown is None else {b"Authorization": shown}
            for path in ("/v1/calls", "/v1/calls/next?wait=0", "/v1/events", f"/v1/calls/{CALL.call_sid}/context"):
                answer = await client.get(path, headers=headers)
                assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), (path, shown)


@pytest.mark.parametrize(("access", "status"), [("none", 401), ("read", 200), ("write", 200)])
async def test_the_socket_gives_the_rights_of_the_settings_and_the_port_never_does(
    tmp_path: Path, access: str, status: int
) -> None:
    async with running_api(tmp_path, socket_access=access) as api:
        await api.site.begin(CALL, NOBODYS)
        at_socket, at_port = await api.asking(), await api.asking(by_port=True)

        assert (await at_socket.get(f"/v1/calls/{CALL.call_sid}/context")).status_code == status
        assert (await at_port.get(f"/v1/calls/{CALL.call_sid}/context")).status_code == 401
        written = await at_socket.patch(f"/v1/calls/{CALL.call_sid}/context", json={"variables": {"a": 1}})
        assert written.status_code == {"none": 401, "read": 403, "write": 200}[access]
        # A token that is shown counts, also on the socket.
        wrong = await at_socket.get("/v1/calls", headers={"Authorization": "Bearer wrong"})
        assert wrong.status_code == 401


async def test_a_token_works_by_the_port_too(api: RunningApi) -> None:
    service = await api.asking(await api.add("dialogue", "acme"), by_port=True)

    assert (await service.get(f"/v1/calls/{CALL.call_sid}/context")).status_code == 200


async def test_a_removed_service_is_refused_at_once(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    assert (await service.get("/v1/calls")).status_code == 200

    await api.remove("dialogue")

    assert (await service.get("/v1/calls")).status_code == 401


async def test_one_service_cannot_fill_the_agent_with_waiting_requests(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(api.socket), limits=_MANY),
                                 base_url="http://edge", headers=service.headers, timeout=10) as many:  # fmt: skip
        waiting = [asyncio.create_task(many.get("/v1/calls/next?wait=20")) for _ in range(33)]
        done, others = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)

        assert [task.result().status_code for task in done] == [429]
        assert (await (await api.client("other", "acme")).get("/v1/calls/next?wait=0")).status_code == 200
        await api.site.begin(facts(9))
        assert {task.result().status_code for task in (await asyncio.wait(others))[0]} == {200}


_MANY = httpx.Limits(max_connections=None)
