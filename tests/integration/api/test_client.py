"""The Python client, in both its forms: the same calls, the same errors, and patience."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from agent.client import (
    AccessDenied,
    AsyncEdgeClient,
    CallNotFound,
    ContextChanged,
    EdgeClient,
    EdgeUnavailable,
    WriteRefused,
)
from agent.client.requests import Pauses, error_of
from agent.client.streams import EventReader
from tests.integration.api.running import RunningApi, running_api
from tests.integration.live.desks import CALL
from tests.unit.live.contexts import facts

T = TypeVar("T")
SID = CALL.call_sid


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[RunningApi]:
    async with running_api(tmp_path) as api:
        await api.site.begin(CALL)
        yield api


@pytest.fixture
async def service(api: RunningApi) -> AsyncIterator[AsyncEdgeClient]:
    async with AsyncEdgeClient(api.socket, token=await api.add("dialogue", "acme")) as client:
        yield client


async def test_a_service_follows_a_call_from_its_ring_to_its_summary(api: RunningApi, service: AsyncEdgeClient) -> None:
    calls = service.new_calls(tenant="acme")
    coming = asyncio.create_task(_next(calls))
    numbers = count(2)
    while not coming.done():  # only calls that begin from the first question on are told
        await api.site.begin(facts(next(numbers)))
        await asyncio.sleep(0.01)
    call = await coming
    await service.set_variables(call.call_sid, customer="C-1042")
    task = (await service.push_task(call.call_sid, "book", {"step": 1}, priority=3)).ids[0]
    await service.update_task(call.call_sid, task, state_data={"table": 7})
    await service.say(call.call_sid, "caller", "Merhaba", started_at=datetime(2026, 11, 22, 9, 0, 1, tzinfo=UTC))
    await service.append(
        call.call_sid, {"speaker": "assistant", "text": "Buyurun"}, {"type": "tool_call", "tool": "crm"}
    )
    await service.pop_task(call.call_sid)
    await api.site.end(facts(int(call.call_sid.rpartition(":")[2])))
    await service.patch(call.call_sid, {"summary": "a table for four"})
    await service.set_transcript(call.call_sid, {"speaker": "caller", "text": "Merhaba!"})

    context = await service.context(call.call_sid)
    assert (context.caller_name, context.is_live, context.variables) == ("Ayşe Yılmaz", False, {"customer": "C-1042"})
    assert [entry.get("text") for entry in context.interactions] == ["Merhaba", "Buyurun", None]
    assert [(task.task_name, task.state_data) for task in context.tasks_done] == [("book", {"step": 1, "table": 7})]
    assert context.raw["summary"] == "a table for four"
    assert "Ayşe" not in repr(context)
    await calls.aclose()


async def test_the_client_without_asyncio_says_the_same_by_the_port(api: RunningApi) -> None:
    token = await api.add("dialogue", "acme")

    def use() -> tuple[Any, ...]:  # Any: what is compared
        with EdgeClient(url=f"http://127.0.0.1:{api.port}", token=token) as client:
            written = client.say(SID, "caller", "Merhaba")
            client.push_task(SID, "book")
            client.update_task(SID, "top", state_data={"a": 1})
            client.pop_task(SID)
            client.set_variables(SID, a=1)
            client.set_transcript(SID, {"text": "b"})
            events = client.events(call_sid=SID, after=start)
            kinds = [next(events).kind for _ in range(6)]
            events.close()
            live = [call.call_sid for call in client.live_calls(state="ringing")]
            with pytest.raises(ContextChanged) as changed:
                client.patch(SID, {"b": 1}, if_revision=written.revision)
            return kinds, live, changed.value.revision, client.context(SID).revision

    start = api.site.desk.changes.latest
    kinds, live, told, revision = await asyncio.to_thread(use)

    assert set(kinds) == {"context.changed"}
    assert (live, told, revision) == ([SID], 7, 7)


async def test_each_refusal_is_an_error_of_its_own_with_code_and_field(
    api: RunningApi, service: AsyncEdgeClient
) -> None:
    with pytest.raises(CallNotFound, match="no such call"):
        await service.context("istanbul-1:main:99")
    with pytest.raises(CallNotFound, match="no such task"):
        await service.pop_task(SID)
    with pytest.raises(WriteRefused) as refused:
        await service.append(SID, {"confidence": 7})
    assert (refused.value.code, refused.value.field) == ("invalid", "interactions.0.confidence")
    with pytest.raises(AccessDenied):
        await service.live_calls(tenant="globex")
    async with AsyncEdgeClient(api.socket, token="wrong") as stranger:
        with pytest.raises(AccessDenied):
            await _next(stranger.events())
    with pytest.raises(TypeError, match="need a zone"):
        await service.say(SID, "caller", "a", started_at=datetime(2026, 11, 22))  # noqa: DTZ001 - that is the point
    assert "wrong" not in repr(stranger)


async def test_when_nobody_answers_the_client_gives_up_once_its_patience_ends(tmp_path: Path) -> None:
    async with AsyncEdgeClient(tmp_path / "nobody.sock", patience_seconds=0.3) as client:
        with pytest.raises(EdgeUnavailable, match=r"not reached at .*nobody\.sock: No such file"):
            await client.context(SID)
        with pytest.raises(EdgeUnavailable):
            await _next(client.events())


async def test_a_write_that_got_no_answer_is_sent_again_and_done_once(api: RunningApi) -> None:
    token = await api.add("dialogue", "acme")
    answers = _cut_first_answer(httpx.AsyncHTTPTransport(uds=str(api.socket)))
    async with AsyncEdgeClient(api.socket, token=token) as client:
        client._http._transport = answers
        await client.say(SID, "caller", "once")

    assert answers.requests == 2
    assert len((await api.site.desk.read(SID)).interaction_history) == 1


def test_pauses_grow_and_end_with_patience() -> None:
    pauses, now, told = Pauses(30, now=0), 0.0, []
    while (pause := pauses.next(now=now)) is not None:
        told.append(pause)
        now += pause

    assert told[0] <= 0.1
    assert max(told) <= 5
    assert 20 <= now <= 30


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"detail": null}'])
def test_answers_of_others_than_the_agent_are_errors_too(body: bytes) -> None:
    assert isinstance(error_of(httpx.Response(502, content=body)), EdgeUnavailable)
    assert isinstance(error_of(httpx.Response(412, content=body, headers={"ETag": "x"})), ContextChanged)


def test_half_an_event_of_a_cut_stream_is_forgotten() -> None:
    reader = EventReader()
    for line in ("id: a-1", "event: call.started", 'data: {"call_sid": "x"}'):
        assert reader.feed(line) is None
    reader.restart()

    assert [event for line in ("", ": ", "id: a-2", "") if (event := reader.feed(line))] == []
    assert reader.last_id == "a-2"


async def _next(values: AsyncIterator[T]) -> T:
    return await anext(values)


class _CutFirst(httpx.AsyncBaseTransport):
    """The first answer gets lost on its way."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        self.requests += 1
        if self.requests == 1:
            await response.aclose()
            raise httpx.ReadError("cut")
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


_cut_first_answer: Callable[[httpx.AsyncBaseTransport], _CutFirst] = _CutFirst
