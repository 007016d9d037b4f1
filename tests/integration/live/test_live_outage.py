"""The live store goes away, hangs, is emptied or refuses: what is said of it, and what is right afterwards."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from agent.calls.context import CallContext, CallState
from agent.errors import ContextStoreAway
from agent.live.feed import FeedTimes, LiveFeed
from agent.live.store import ContextStore
from tests.unit.live.contexts import Finals, facts, with_task
from tests.valkey_server import Valkey

SITE = "istanbul-1"
QUICK = FeedTimes(pause=0, check=0.02, first_retry=0.01, longest_retry=0.05)


@asynccontextmanager
async def feeding(store: ContextStore, finals: list[CallContext]) -> AsyncIterator[LiveFeed]:
    feed = LiveFeed(store, site=SITE, pbxes=["main"], grace_seconds=60, book=Finals(finals), times=QUICK)
    feed.settled("main")
    async with asyncio.timeout(60):
        task = asyncio.create_task(feed.run())
        try:
            yield feed
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # nobody tells of a status
        await asyncio.sleep(0.002)


async def test_a_store_that_was_stopped_has_every_live_context_once_it_runs_again(valkey: Valkey) -> None:
    finals: list[CallContext] = []
    async with ContextStore.open(valkey.settings()) as store, feeding(store, finals) as feed:
        for number in range(20):
            feed.mark(facts(number))
        await feed.in_step()
        await asyncio.to_thread(valkey.stop)
        feed.mark(facts(1, state=CallState.ANSWERED))
        await eventually(lambda: feed.status().reachable is False)
        feed.ended(facts(0))
        feed.mark(facts(20))
        await asyncio.to_thread(valkey.start)
        await feed.in_step()
        stored = {context.call_sid: context.state for context in await store.list_site(SITE)}
    assert stored == {facts(number).call_sid: CallState.RINGING for number in range(1, 21)} | {
        facts(1).call_sid: CallState.ANSWERED
    }


async def test_an_idle_store_that_was_restarted_or_flushed_is_filled_again_without_any_change(valkey: Valkey) -> None:
    async with ContextStore.open(valkey.settings(valkey.tcp_url)) as store, feeding(store, []) as feed:
        feed.mark(facts(1))
        await feed.in_step()
        for empty in (valkey.flush, valkey.restart):
            await asyncio.to_thread(empty)
            while not await listed(store):  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.002)


async def test_a_line_that_was_cut_loses_nothing_and_what_services_wrote_reaches_the_end(valkey: Valkey) -> None:
    finals: list[CallContext] = []
    async with ContextStore.open(valkey.settings()) as store, feeding(store, finals) as feed:
        feed.mark(facts(1))
        feed.mark(facts(2))
        await feed.in_step()
        await store.update("acme", facts(1).call_sid, lambda context: with_task(context, "ask-for-name"))
        valkey.freeze()
        feed.ended(facts(1))
        feed.mark(facts(2, state=CallState.HELD))
        await eventually(lambda: feed.status().reachable is False)
        valkey.thaw()
        await feed.in_step()
        assert [context.state for context in await store.list_site(SITE)] == [CallState.HELD]
    assert [[task.task_name for task in final.task_stack] for final in finals] == [["ask-for-name"]]


async def test_a_store_that_hangs_is_given_up_in_time_and_used_again_when_it_answers(valkey: Valkey) -> None:
    async with ContextStore.open(valkey.settings(timeout_seconds=0.05)) as store:
        await store.put_facts(facts())
        valkey.freeze()
        for _ in range(20):
            with pytest.raises(ContextStoreAway, match="does not answer in time"):
                await store.put_facts(facts())
        valkey.thaw()
    async with ContextStore.open(valkey.settings()) as store:
        before = await store.get("acme", facts().call_sid)
        assert before is not None
        # Every answer belongs to its question: nothing of the given-up ones is left on a line.
        for further in range(1, 20):
            assert (await store.put_facts(facts())).revision == before.revision + further


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"password": "wrong"}, "refuses the user name or password; mend live.username and live.password_file"),
        ({"username": "nobody"}, "refuses the user name or password; mend live.username and live.password_file"),
        ({"url": "unix:///nowhere/valkey.sock"}, "cannot be reached: no such file or directory"),
        ({"url": "redis://127.0.0.1:1/0"}, "cannot be reached: connection refused"),
    ],
)
async def test_each_refusal_is_one_sentence_without_the_password(
    valkey: Valkey, changes: dict[str, str], sentence: str
) -> None:
    live = valkey.settings(**changes)
    async with ContextStore.open(live) as store:
        with pytest.raises(ContextStoreAway) as caught:
            await store.put_facts(facts())
    assert str(caught.value) == f"the live store {live.url} {sentence}"


async def test_a_user_without_rights_is_told_what_to_give(valkey: Valkey) -> None:
    valkey.say("ACL", "SETUSER", "poor", "on", ">poor", "resetkeys", "~smcp:*", "-@all", "+@read")
    live = valkey.settings(username="poor", password="poor")
    async with ContextStore.open(live) as store:
        with pytest.raises(ContextStoreAway) as caught:
            await store.put_facts(facts())
    assert str(caught.value) == (
        f"the live store {live.url} does not let the user do what is needed; give it the rights in agent.example.toml"
    )


async def test_a_full_store_is_told_without_the_calls_data(valkey: Valkey) -> None:
    valkey.say("CONFIG", "SET", "maxmemory", "1")
    try:
        async with ContextStore.open(valkey.settings()) as store:
            with pytest.raises(ContextStoreAway) as caught:
                await store.put_facts(facts())
    finally:
        valkey.say("CONFIG", "SET", "maxmemory", "0")
    assert str(caught.value) == f"the live store {valkey.unix_url} has no memory left (maxmemory)"


async def test_a_tenants_own_user_reaches_its_contexts_and_no_others(valkey: Valkey) -> None:
    rights = ["resetkeys", "~smcp:acme:*", "resetchannels", "&smcp:acme:*", "-@all", "+@read", "+@write"]
    valkey.say("ACL", "SETUSER", "acme", "on", ">acme", *rights, "+@transaction", "+@pubsub", "+ping", "+select")
    async with ContextStore.open(valkey.settings()) as agent:
        await agent.put_facts(facts(1))
        await agent.put_facts(facts(2, tenant="umay"))
    async with ContextStore.open(valkey.settings(username="acme", password="acme")) as service:
        changed = await service.update("acme", facts(1).call_sid, lambda context: with_task(context, "t"))
        assert changed is not None
        assert [context.call_sid for context in await service.list_live("acme")] == [facts(1).call_sid]
        with pytest.raises(ContextStoreAway, match="does not let the user"):
            await service.get("umay", facts(2).call_sid)


async def listed(store: ContextStore) -> bool:
    try:
        return bool(await store.list_site(SITE))
    except ContextStoreAway:
        return False
