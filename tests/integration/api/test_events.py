"""Server-sent events: in order, resumable, never piling up for those who do not read."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.api import connections, events
from agent.live.changes import Change, ChangeKind, Changes
from tests.integration.api.running import RunningApi, events_of, running_api
from tests.integration.live.desks import CALL
from tests.unit.live.contexts import facts


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as api:
        await api.site.begin(CALL)
        yield api


async def read_until(pieces: AsyncIterator[str], wanted: str) -> str:
    text = ""
    async for piece in pieces:
        text += piece
        if wanted in text:
            break
    return text


async def test_a_call_is_told_from_its_beginning_over_what_is_written_to_its_end(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    call = facts(2)
    async with service.stream("GET", "/v1/events") as stream:
        pieces = stream.aiter_text()
        assert events_of(await read_until(pieces, "resync")) == [("resync", "{}")]
        await api.site.begin(call)
        await service.post(f"/v1/calls/{call.call_sid}/interactions", json={"text": "a"})
        api.site.desk.mark(call.model_copy(update={"state": "answered"}))
        await api.site.end(call)
        told = events_of(await read_until(pieces, "call.ended"))

    assert [kind for kind, _ in told] == ["call.started", "context.changed", "call.changed", "call.ended"]
    assert {json.loads(data)["call_sid"] for _, data in told} == {call.call_sid}
    revisions = [json.loads(data)["revision"] for _, data in told]
    assert revisions == sorted(set(revisions))


async def test_a_stream_goes_on_after_the_last_event_that_was_read_and_misses_none(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    start = api.site.desk.changes.latest
    for number in range(3):
        await api.site.say(CALL, str(number))
    async with service.stream("GET", "/v1/events", headers={"Last-Event-ID": start}) as stream:
        first = await read_until(stream.aiter_text(), "context.changed")
    last = next(line for line in first.splitlines() if line.startswith("id: ")).removeprefix("id: ")

    async with service.stream("GET", "/v1/events", headers={"Last-Event-ID": last}) as stream:
        await api.site.end(CALL)
        rest = events_of(await read_until(stream.aiter_text(), "call.ended"))

    assert [kind for kind, _ in rest] == ["context.changed", "context.changed", "call.ended"]


async def test_who_resumes_where_nothing_is_known_is_told_to_read_again(api: RunningApi) -> None:
    service = await api.client("dialogue", "acme")
    for unknown in ("of-another-run", "x-1", "-", "0" * 500):
        async with service.stream("GET", "/v1/events", headers={"Last-Event-ID": unknown}) as stream:
            told = events_of(await read_until(stream.aiter_text(), "resync"))

        assert told == [("resync", "{}")]


async def test_who_asks_for_the_head_of_the_stream_is_not_kept_waiting(api: RunningApi) -> None:
    answer = await (await api.client("dialogue", "acme")).head("/v1/events")

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")


async def test_streams_of_one_tenant_and_one_call_tell_no_others(api: RunningApi) -> None:
    service = await api.client("recorder")
    start, other = api.site.desk.changes.latest, facts(2, tenant="globex")
    await api.site.begin(other)
    await api.site.say(CALL, "ours")
    query = f"tenant=globex&call={other.call_sid}"
    async with service.stream("GET", f"/v1/events?{query}", headers={"Last-Event-ID": start}) as stream:
        await api.site.say(CALL, "ours")
        await api.site.end(other)
        told = events_of(await read_until(stream.aiter_text(), "call.ended"))

    assert [kind for kind, _ in told] == ["call.started", "call.ended"]


async def test_heartbeats_come_in_silence_and_amid_the_changes_of_others_and_tell_the_place() -> None:
    changes = Changes()
    stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = events.told(
        changes, after=None, allowed=_never, goes_on=_always, stopping=stopping, heartbeat_seconds=0.01
    )

    assert await anext(stream) == b"retry: 1000\n\n"
    assert b"event: resync\n" in await anext(stream)
    assert await anext(stream) == f": \nid: {changes.latest}\n\n".encode()
    changes.publish(ChangeKind.CALL_STARTED, CALL)
    assert await anext(stream) == f": \nid: {changes.latest}\n\n".encode()
    stopping.set_result(None)
    assert [piece async for piece in stream] == []


async def test_a_stream_ends_when_its_service_may_no_longer_read() -> None:
    changes, rights = Changes(), iter([True, True, False])
    stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = events.told(
        changes, after=None, allowed=_never, goes_on=lambda: next(rights), stopping=stopping, heartbeat_seconds=0.01
    )

    assert len([piece async for piece in stream]) == 2  # retry, resync


async def test_who_reads_slower_than_the_ring_goes_round_is_told_to_read_again() -> None:
    changes = Changes(keep=3)
    stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stream = events.told(changes, after=changes.latest, allowed=_all, goes_on=_always, stopping=stopping)
    await anext(stream)
    for _ in range(10):
        changes.publish(ChangeKind.CALL_CHANGED, CALL)

    assert b"event: resync\n" in await anext(stream)
    stopping.set_result(None)
    assert [piece async for piece in stream] == []


async def test_a_reader_who_does_not_read_is_cut_and_the_agent_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limited = connections.patient_protocol(connections=10, write_seconds=0.05)
    monkeypatch.setattr("agent.api.services.patient_protocol", lambda **_: limited)
    async with running_api(tmp_path) as api:
        await api.site.begin(CALL)
        service = await api.client("dialogue", "acme")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(str(api.socket))
            token = service.headers["authorization"]
            sock.sendall(f"GET /v1/events HTTP/1.1\r\nHost: edge\r\nAuthorization: {token}\r\n\r\n".encode())
            places = api.site.desk.changes
            while not _waiting(api):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.002)
            deadline = asyncio.get_running_loop().time() + 10
            while _waiting(api):
                assert asyncio.get_running_loop().time() < deadline
                for _ in range(200):
                    places.publish(ChangeKind.CALL_CHANGED, CALL)
                await asyncio.sleep(0.002)
        assert (await service.get("/v1/calls")).status_code == 200


async def test_the_agent_stops_at_once_though_streams_and_polls_are_open(tmp_path: Path) -> None:
    async with running_api(tmp_path) as api:
        await api.site.begin(CALL)
        service = await api.client("dialogue", "acme")
        poll = asyncio.create_task(service.get("/v1/calls/next?wait=30"))
        stream = await service.send(service.build_request("GET", "/v1/events"), stream=True)
        pieces = stream.aiter_text()
        await read_until(pieces, "resync")

        async def rest() -> list[str]:
            return [piece async for piece in pieces]

        reading = asyncio.create_task(rest())
        stopped_at = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - stopped_at < 0.9
    assert (await poll).json()["call"] is None
    assert await reading == []


def _waiting(api: RunningApi) -> int:
    """How many wait for news of the desk."""
    return len(api.site.desk.changes._news._waiters)  # nobody else knows


_never: Callable[[Change], bool] = lambda _: False  # noqa: E731
_all: Callable[[Change], bool] = lambda _: True  # noqa: E731
_always: Callable[[], bool] = lambda: True  # noqa: E731
