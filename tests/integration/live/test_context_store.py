"""The contract of the context store, the same in every home."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from agent.calls.context import CallContext, CallState
from agent.live.store import ContextStore
from tests.unit.live.contexts import facts, with_interaction, with_task

SITE = "istanbul-1"
SID = f"{SITE}:main:1"
KEY = f"smcp:acme:call:{SID}"


async def raw(store: ContextStore, key: str = KEY) -> Any:
    content = await store._client.get(key)
    return orjson.loads(content) if content is not None else None


async def test_a_new_call_stands_under_its_tenant_and_is_listed_as_live(store: ContextStore) -> None:
    stored = await store.put_facts(facts())
    assert stored.revision == 1
    assert await store.get("acme", SID) == stored
    assert await store.list_live("acme") == [stored]
    assert await store.list_site(SITE) == [stored]
    assert (await raw(store))["caller_name"] == "Ayşe Yılmaz"


async def test_nothing_is_found_where_nothing_is(store: ContextStore) -> None:
    assert await store.get("acme", SID) is None
    assert await store.update("acme", SID, lambda context: context) is None
    assert await store.list_live("acme") == []
    assert await store.list_site(SITE) == []


async def test_new_facts_leave_what_services_wrote(store: ContextStore) -> None:
    await store.put_facts(facts())
    await store.update("acme", SID, lambda context: with_task(context, "ask-for-name"))
    await store.update("acme", SID, lambda context: with_interaction(context, said="Merhaba"))
    await store.put_facts(facts(state=CallState.ANSWERED, seconds=5))
    context = await store.get("acme", SID)
    assert context is not None
    assert context.state is CallState.ANSWERED
    assert [task.task_name for task in context.task_stack] == ["ask-for-name"]
    assert context.interaction_history == [{"said": "Merhaba"}]
    assert context.revision == 4


async def test_what_this_version_does_not_know_survives_every_write(store: ContextStore) -> None:
    stored = await store.put_facts(facts())
    foreign = orjson.loads(stored.model_dump_json()) | {"mood": {"score": 0.5, "words": ["iyi"]}}
    foreign["task_stack"] = [{"task_name": "t", "start_time": "2026-11-22T09:00:00Z", "priority": 7}]
    await store._client.set(KEY, orjson.dumps(foreign))
    await store.put_facts(facts(state=CallState.HELD))
    await store.update("acme", SID, lambda context: with_interaction(context, said="x"))
    told = await raw(store)
    assert told["mood"] == {"score": 0.5, "words": ["iyi"]}
    assert told["task_stack"][0]["priority"] == 7


async def test_the_time_of_the_last_interaction_never_goes_back(store: ContextStore) -> None:
    await store.put_facts(facts())
    later = facts().last_interaction_time + timedelta(minutes=1)
    await store.update("acme", SID, lambda context: context.model_copy(update={"last_interaction_time": later}))
    assert (await store.put_facts(facts(seconds=5))).last_interaction_time == later


async def test_a_service_cannot_change_whose_call_it_is_or_its_revision(store: ContextStore) -> None:
    await store.put_facts(facts())
    forged = {"call_sid": "other", "tenant_id": "umay", "revision": 77}
    context = await store.update("acme", SID, lambda context: context.model_copy(update=forged))
    assert context is not None
    assert (context.call_sid, context.tenant_id, context.revision) == (SID, "acme", 2)


async def test_a_change_in_place_is_stored_like_any_other(store: ContextStore) -> None:
    def change(context: CallContext) -> CallContext:
        context.variables["language"] = "tr"
        return context

    await store.put_facts(facts())
    await store.update("acme", SID, change)
    assert (await raw(store))["variables"] == {"language": "tr"}


async def test_a_change_that_makes_no_context_is_refused_and_nothing_is_written(store: ContextStore) -> None:
    before = await store.put_facts(facts())
    with pytest.raises(ValidationError):
        await store.update("acme", SID, lambda context: context.model_copy(update={"task_stack": "none"}))
    with pytest.raises(ZeroDivisionError):
        await store.update("acme", SID, lambda context: with_task(context, str(1 // 0)))
    assert await store.get("acme", SID) == before


async def test_a_call_without_a_tenant_waits_apart_and_moves_when_its_tenant_is_known(store: ContextStore) -> None:
    await store.put_facts(facts(tenant=None))
    assert await raw(store, f"smcp:_unassigned:call:{SID}") is not None
    await store.update(None, SID, lambda context: with_task(context, "early"))
    moved = await store.put_facts(facts(tenant="acme"))
    assert (moved.tenant_id, moved.revision, moved.task_stack[0].task_name) == ("acme", 3, "early")
    assert await store.get(None, SID) is None
    assert await store.list_live(None) == []
    assert await store.list_live("acme") == [moved]
    assert await store.list_site(SITE) == [moved]


async def test_an_ended_call_can_be_read_and_completed_for_the_grace_time_only(store: ContextStore) -> None:
    await store.put_facts(facts())
    await store.update("acme", SID, lambda context: with_task(context, "t"))
    last = (await store.end(facts(state=CallState.ANSWERED), grace_seconds=60)).context
    assert (last.state, len(last.task_stack)) == (CallState.ENDED, 1)
    assert await store.list_live("acme") == []
    assert await store.list_site(SITE) == []
    late = await store.update("acme", SID, lambda context: with_interaction(context, transcript="…"))
    assert late is not None
    assert await store.get("acme", SID) == late
    assert 0 < await store._client.ttl(KEY) <= 60


async def test_without_a_grace_time_an_ended_call_is_gone_at_once(store: ContextStore) -> None:
    await store.put_facts(facts())
    await store.end(facts(), grace_seconds=0)
    assert await store.get("acme", SID) is None


async def test_a_call_can_end_under_another_tenant_than_it_was(store: ContextStore) -> None:
    await store.put_facts(facts(tenant=None))
    await store.end(facts(tenant="acme"), grace_seconds=60)
    assert await store.get(None, SID) is None
    assert await store.list_live(None) == []
    assert await store.get("acme", SID) is not None


async def test_facts_of_a_call_that_had_ended_make_it_live_again_for_good(store: ContextStore) -> None:
    await store.put_facts(facts())
    await store.end(facts(), grace_seconds=60)
    revived = await store.put_facts(facts(state=CallState.ANSWERED))
    assert await store.list_live("acme") == [revived]
    assert await store.list_site(SITE) == [revived]
    assert await store._client.ttl(KEY) == -1


async def test_live_calls_are_listed_oldest_first_however_many_there_are(store: ContextStore) -> None:
    for number in range(450, 0, -1):
        await store.put_facts(facts(number))
    listed = await store.list_live("acme")
    assert [context.call_sid for context in listed] == [f"{SITE}:main:{number}" for number in range(1, 451)]


async def test_clearing_ends_what_is_not_known_and_leaves_other_sites_and_silent_pbxes(store: ContextStore) -> None:
    await store.put_facts(facts(1))
    await store.put_facts(facts(2, tenant=None))
    await store.put_facts(facts(3, call_sid=f"{SITE}:branch:3", pbx="branch"))
    await store.put_facts(facts(4, call_sid="ankara:main:4", site="ankara"))
    cleared = await store.clear_stale(SITE, known={SID}, undecided={"branch"}, grace_seconds=60)
    assert [(context.call_sid, context.state) for context in cleared] == [(f"{SITE}:main:2", CallState.ENDED)]
    assert {context.call_sid for context in await store.list_site(SITE)} == {SID, f"{SITE}:branch:3"}
    assert len(await store.list_site("ankara")) == 1
    assert 0 < await store._client.ttl(f"smcp:_unassigned:call:{SITE}:main:2") <= 60


async def test_clearing_forgets_a_listed_call_whose_context_is_gone(store: ContextStore) -> None:
    await store.put_facts(facts())
    await store._client.delete(KEY)
    assert await store.list_live("acme") == []
    assert await store.clear_stale(SITE, known=set(), undecided=set(), grace_seconds=60) == []
    assert await store._client.exists("smcp:acme:live", f"smcp:_site:{SITE}:live") == 0


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null", b'{"call_sid": "x"}', b""])
async def test_a_value_that_is_no_context_is_set_aside_and_the_call_starts_anew(
    store: ContextStore, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="agent.live")
    await store.put_facts(facts())
    await store._client.set(KEY, content)
    assert (await store.put_facts(facts())).revision == 1
    assert await store._client.get(f"{KEY}:set-aside") == content
    assert await store._client.ttl(f"{KEY}:set-aside") > 0
    assert [record.getMessage() for record in caplog.records] == [
        "what stood in the live store for a call was no context and is set aside"
    ]


async def test_a_value_of_another_kind_is_set_aside_by_whoever_meets_it(store: ContextStore) -> None:
    for read in (
        store.get("acme", SID),
        store.list_live("acme"),
        store.update("acme", SID, lambda context: context),
        store.clear_stale(SITE, known=set(), undecided=set(), grace_seconds=0),
    ):
        await store.put_facts(facts())
        await store._client.delete(KEY, f"{KEY}:set-aside")
        await store._client.rpush(KEY, "no context")
        assert not await read
        assert await store._client.exists(f"{KEY}:set-aside") == 1


async def test_another_calls_context_is_set_aside(store: ContextStore) -> None:
    await store.put_facts(facts())
    await store._client.set(KEY, facts(2).model_dump_json())
    assert await store.get("acme", SID) is None


async def test_every_change_is_announced_to_the_tenant_it_concerns(store: ContextStore) -> None:
    async with following(store, "_unassigned", "acme") as heard:
        await store.put_facts(facts(tenant=None))
        await store.put_facts(facts(tenant="acme"))
        await store.update("acme", SID, lambda context: with_task(context, "t"))
        await store.end(facts(tenant="acme"), 60)
        async with asyncio.timeout(10):
            messages = [await anext(heard) for _ in range(5)]
    assert messages == [
        ("_unassigned", {"call_sid": SID, "revision": 1, "state": "ringing"}),
        ("_unassigned", {"call_sid": SID, "revision": 2, "state": "moved"}),
        ("acme", {"call_sid": SID, "revision": 2, "state": "ringing"}),
        ("acme", {"call_sid": SID, "revision": 3, "state": "ringing"}),
        ("acme", {"call_sid": SID, "revision": 4, "state": "ended"}),
    ]


async def test_the_store_is_known_to_remember_until_it_is_emptied(store: ContextStore) -> None:
    assert not await store.remembers(SITE)
    await store.sign(SITE)
    assert await store.remembers(SITE)
    await store._client.delete(f"smcp:_site:{SITE}:agent")
    assert not await store.remembers(SITE)


async def test_a_hundred_services_at_once_lose_no_change_of_each_other(store: ContextStore) -> None:
    await store.put_facts(facts())
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(
                store.update("acme", SID, lambda context, n=number: with_interaction(context, n=n))  # type: ignore[misc]
            )
            if number % 10 == 0:
                group.create_task(store.put_facts(facts(state=CallState.ANSWERED)))
    context = await store.get("acme", SID)
    assert context is not None
    assert sorted(entry["n"] for entry in context.interaction_history) == list(range(100))
    assert context.revision == 111


@asynccontextmanager
async def following(store: ContextStore, *owners: str) -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
    """What the change channels of these owners say."""

    async def messages() -> AsyncIterator[tuple[str, Any]]:
        async for message in pubsub.listen():
            if message["type"] == "message":
                owner = message["channel"].decode().removeprefix("smcp:").removesuffix(":changes")
                yield owner, orjson.loads(message["data"])

    async with store._client.pubsub() as pubsub:
        await pubsub.subscribe(*(f"smcp:{owner}:changes" for owner in owners))
        for _ in owners:
            await pubsub.get_message(timeout=5)
        yield messages()
