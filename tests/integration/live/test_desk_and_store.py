"""Desk and shared store together, in every home: what each knows reaches the other, whatever happens to the store."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.calls.context import CallContext, CallState, TaskState
from agent.calls.operations import Patch, PushTask
from agent.errors import ContextStoreAway
from agent.live.store import ContextStore
from config.settings import LiveSettings
from tests.integration.live.desks import CALL, Site, site_at, texts
from tests.unit.live.contexts import START, facts, with_interaction, with_task
from tests.valkey_server import Valkey


async def eventually(site: Site, condition: Callable[[CallContext], bool], call: CallContext = CALL) -> CallContext:
    """Until what is at the desk is so."""
    while not condition(context := await site.desk.read(call.call_sid)):  # noqa: ASYNC110  # nobody tells of it
        await asyncio.sleep(0.005)
    return context


async def stored_eventually(store: ContextStore, condition: Callable[[CallContext], bool]) -> CallContext:
    """Until what stands in the store is so."""
    while True:
        try:
            context = await store.get("acme", CALL.call_sid)
        except ContextStoreAway:
            context = None
        if context is not None and condition(context):
            return context
        await asyncio.sleep(0.005)


def had_said(*wanted: str) -> Callable[[CallContext], bool]:
    return lambda context: texts(context) == list(wanted)


async def test_what_a_service_writes_by_the_agent_is_read_in_the_store(store: ContextStore, tmp_path: Path) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        written = (await site.say(CALL, "hello")).context
        stored = await stored_eventually(store, had_said("hello"))
        assert stored.revision >= written.revision
        assert stored.interaction_history == written.interaction_history


async def test_what_a_service_writes_into_the_store_is_taken_over_and_survives_a_crash(
    store: ContextStore, tmp_path: Path
) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await site.desk.write(CALL.call_sid, [PushTask({"task_name": "greet", "id": "g"})], service="dialogue")
        await stored_eventually(store, lambda context: len(context.task_stack) == 1)

        def change(context: CallContext) -> CallContext:
            task = TaskState(id="b", task_name="book", start_time=START)
            changed = with_interaction(context, text="past the agent")
            variables = {**context.variables, "vip": True}
            return changed.model_copy(update={"task_stack": [task], "variables": variables, "crm": {"id": 7}})

        assert await store.update("acme", CALL.call_sid, change) is not None
        taken = await eventually(site, had_said("past the agent"))
        assert [task.id for task in taken.task_stack] == ["b"]
        assert [task.id for task in taken.tasks_done] == ["g"]
        assert (taken.variables, (taken.model_extra or {})["crm"]) == ({"vip": True}, {"id": 7})
        await site.say(CALL, "by the agent")
        await stored_eventually(store, had_said("past the agent", "by the agent"))
    async with site_at(tmp_path, live=[CALL]) as site:
        assert texts(await site.desk.read(CALL.call_sid)) == ["past the agent", "by the agent"]


async def test_both_ways_at_once_lose_nothing_and_double_nothing(store: ContextStore, tmp_path: Path) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await stored_eventually(store, lambda _context: True)

        async def past_the_agent() -> None:
            for number in range(20):
                said = f"past {number}"
                await store.update("acme", CALL.call_sid, lambda context, s=said: with_interaction(context, text=s))  # type: ignore[misc]
                await asyncio.sleep(0)

        async def by_the_agent() -> None:
            for number in range(20):
                await site.say(CALL, f"by {number}")

        await asyncio.gather(past_the_agent(), by_the_agent())
        everything = sorted([f"{way} {number}" for way in ("past", "by") for number in range(20)])
        at_desk = await eventually(site, lambda context: len(texts(context)) >= 40)
        stored = await stored_eventually(store, lambda context: len(texts(context)) >= 40)
        assert sorted(texts(at_desk)) == sorted(texts(stored)) == everything
        for context in (at_desk, stored):
            for way in ("past", "by"):
                in_order = [text for text in texts(context) if text.startswith(way)]
                assert in_order == [f"{way} {number}" for number in range(20)]


async def test_what_was_written_into_the_store_while_the_agent_was_away_is_taken_over_once(
    store: ContextStore, tmp_path: Path
) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await site.desk.write(CALL.call_sid, [Patch({"variables": {"x": 1, "y": 1}})], service="crm")
        await stored_eventually(store, lambda context: context.variables == {"x": 1, "y": 1})
    await store.update("acme", CALL.call_sid, lambda context: with_interaction(context, text="meanwhile"))
    await store.update("acme", CALL.call_sid, lambda context: context.model_copy(update={"variables": {"x": 2}}))
    for _ in range(2):
        async with site_at(tmp_path, store, live=[CALL]) as site:
            taken = await eventually(site, had_said("hello", "meanwhile"))
            assert taken.variables == {"x": 2}
            await stored_eventually(store, had_said("hello", "meanwhile"))


async def test_what_was_written_past_the_agent_just_before_the_end_amends_the_call(
    store: ContextStore, tmp_path: Path
) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await stored_eventually(store, had_said("hello"))
        await store.update("acme", CALL.call_sid, lambda context: with_interaction(context, text="goodbye"))
        await site.end(CALL)
        while await site.said(CALL) != ["hello", "goodbye"]:  # noqa: ASYNC110  # nobody tells of a row
            await asyncio.sleep(0.005)
        ended = await stored_eventually(store, lambda context: context.state is CallState.ENDED)
        assert texts(ended) == ["hello", "goodbye"]
        await site.say(CALL, "a summary")
        await stored_eventually(store, had_said("hello", "goodbye", "a summary"))
        await store.update("acme", CALL.call_sid, lambda context: with_interaction(context, text="and another"))
        if store.home != "memory://":  # nobody else can reach that one, so nobody listens there
            while "and another" not in await site.said(CALL):  # noqa: ASYNC110  # nobody tells of a row
                await asyncio.sleep(0.005)


async def test_what_others_wrote_for_a_call_that_ended_while_the_agent_was_away_amends_it(
    store: ContextStore, tmp_path: Path
) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await stored_eventually(store, had_said("hello"))
        assert site.feed is not None
        site.desk._shared = None  # the store does not hear of the end
        await site.end(CALL)
    await store.update("acme", CALL.call_sid, lambda context: with_interaction(context, text="goodbye"))
    async with site_at(tmp_path, store) as site:
        while await site.said(CALL) != ["hello", "goodbye"]:  # noqa: ASYNC110  # nobody tells of a row
            await asyncio.sleep(0.005)


async def test_what_cannot_be_kept_is_taken_back_out_of_the_store(store: ContextStore, tmp_path: Path) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await stored_eventually(store, lambda _context: True)
        too_many = [{"text": "x"}] * 10_001
        await store.update(
            "acme", CALL.call_sid, lambda context: context.model_copy(update={"interaction_history": too_many})
        )
        site.desk.mark(facts(1, state=CallState.ANSWERED))
        await stored_eventually(store, lambda context: len(context.interaction_history) == 0)
        await site.say(CALL, "hello")
        await stored_eventually(store, had_said("hello"))


@pytest.mark.parametrize("mishap", ["flush", "restart", "freeze"])
async def test_a_mishap_of_the_store_stops_no_service_and_everything_is_put_back_once(
    valkey: Valkey, tmp_path: Path, mishap: str
) -> None:
    settings = valkey.settings(timeout_seconds=0.2)
    async with ContextStore.open(settings) as store, site_at(tmp_path, store) as site:
        await site.begin(CALL, facts(2))
        await site.say(CALL, "before")
        await stored_eventually(store, had_said("before"))
        await asyncio.to_thread(valkey.stop if mishap == "restart" else getattr(valkey, mishap))
        for number in range(5):
            await site.say(CALL, f"meanwhile {number}")
        await asyncio.to_thread({"flush": valkey.start, "restart": valkey.start, "freeze": valkey.thaw}[mishap])
        wanted = ["before", *(f"meanwhile {number}" for number in range(5))]
        await stored_eventually(store, had_said(*wanted))
        await store.update("acme", CALL.call_sid, lambda context: with_task(context, "after"))
        await eventually(site, lambda context: [task.task_name for task in context.task_stack] == ["after"])
        assert texts(await site.desk.read(CALL.call_sid)) == wanted


async def test_an_old_copy_that_a_restored_server_brings_back_takes_nothing_away(
    valkey: Valkey, tmp_path: Path, home: LiveSettings
) -> None:
    if home.url == "memory://":
        return
    async with ContextStore.open(home) as store, site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await site.say(CALL, "first")
        await site.desk.write(CALL.call_sid, [PushTask({"task_name": "book"})], service="dialogue")
        await stored_eventually(store, lambda context: len(context.task_stack) == 1)
        key = f"smcp:acme:call:{CALL.call_sid}"
        old = await store._client.get(key)
        assert old is not None
        for _ in range(3):
            await site.say(CALL, "more")
        await site.desk.write(CALL.call_sid, [Patch({"variables": {"x": 1}})], service="crm")
        await stored_eventually(store, lambda context: context.variables == {"x": 1})
        await store._client.set(key, old)
        site.desk.mark(facts(1, state=CallState.HELD))
        stored = await stored_eventually(store, lambda context: context.variables == {"x": 1})
        assert texts(stored) == ["first", "more", "more", "more"]
        assert texts(await site.desk.read(CALL.call_sid)) == ["first", "more", "more", "more"]
