"""The feed between tracker and store: what is written when, and what an outage leaves."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import pytest
from fakeredis import FakeServer

from agent.calls.context import CallContext, CallState
from agent.live.feed import FeedTimes, LiveFeed
from agent.live.store import ContextStore, Weave
from agent.live.weaving import Woven
from tests.unit.live.contexts import START, Finals, facts, store_on, with_task

SITE = "istanbul-1"
QUICK = FeedTimes(pause=0, check=0.01, first_retry=0.005, longest_retry=0.01)


class CountingStore(ContextStore):
    """Tells which writes reached the store."""

    def __init__(self, store: ContextStore) -> None:
        super().__init__(store._client, home=store.home, timeout_seconds=5)
        self.written: list[str] = []

    async def put(self, mine: CallContext, weave: Weave) -> Woven:
        self.written.append(f"{mine.call_sid} {mine.state}")
        return await super().put(mine, weave)


@asynccontextmanager
async def running(feed: LiveFeed) -> AsyncIterator[None]:
    async with asyncio.timeout(30):
        task = asyncio.create_task(feed.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  # nobody tells of a status
            await asyncio.sleep(0.001)


def feed_to(store: ContextStore, *, finals: list[CallContext] | None = None, grace_seconds: int = 60) -> LiveFeed:
    return LiveFeed(
        store,
        site=SITE,
        pbxes=["main", "branch"],
        grace_seconds=grace_seconds,
        book=Finals(finals if finals is not None else []),
        times=QUICK,
    )


async def test_changes_of_a_call_that_come_together_are_written_once() -> None:
    store = CountingStore(store_on(FakeServer()))
    feed = feed_to(store)
    feed.mark(facts(1))
    feed.mark(facts(2))
    feed.mark(facts(1, state=CallState.ANSWERED))
    async with running(feed):
        await feed.in_step()
    assert sorted(store.written) == [f"{SITE}:main:1 answered", f"{SITE}:main:2 ringing"]
    assert [context.state for context in await store.list_site(SITE)] == ["answered", "ringing"]


async def test_a_call_that_ended_before_it_was_written_leaves_only_its_last_context() -> None:
    store = CountingStore(store_on(FakeServer()))
    feed = feed_to(store)
    feed.mark(facts(1))
    feed.ended(facts(1, state=CallState.ANSWERED))
    async with running(feed):
        await feed.in_step()
    assert store.written == []
    assert await store.list_site(SITE) == []
    last = await store.get("acme", facts(1).call_sid)
    assert last is not None
    assert last.state is CallState.ENDED


async def test_the_last_context_is_handed_over_with_what_services_wrote() -> None:
    store, finals = store_on(FakeServer()), list[CallContext]()
    feed = feed_to(store, finals=finals)
    async with running(feed):
        feed.mark(facts(1))
        await feed.in_step()
        await store.update("acme", facts(1).call_sid, lambda context: with_task(context, "ask-for-name"))
        feed.ended(facts(1))
        await feed.in_step()
    assert [(final.state, [task.task_name for task in final.task_stack]) for final in finals] == [
        (CallState.ENDED, ["ask-for-name"])
    ]


async def test_an_ended_call_that_is_marked_again_is_alive() -> None:
    store, finals = store_on(FakeServer()), list[CallContext]()
    feed = feed_to(store, finals=finals)
    feed.mark(facts(1))
    feed.ended(facts(1))
    feed.mark(facts(1, state=CallState.HELD))
    async with running(feed):
        await feed.in_step()
    assert [context.state for context in await store.list_site(SITE)] == [CallState.HELD]
    assert finals == []


async def test_contexts_of_an_earlier_run_end_once_their_pbx_has_told_its_calls() -> None:
    store, finals = store_on(FakeServer()), list[CallContext]()
    for number in (1, 2):
        await store.put_facts(facts(number))
    await store.put_facts(facts(3, call_sid=f"{SITE}:branch:3", pbx="branch"))
    await store.put_facts(facts(4, call_sid=f"{SITE}:sold:4", pbx="sold"))
    await store.put_facts(facts(5, call_sid="ankara:main:5", site="ankara"))
    feed = feed_to(store, finals=finals)
    async with running(feed):
        await feed.in_step()
        # "sold" is no longer in the settings, so nobody will ever tell its calls.
        assert [context.call_sid for context in finals] == [f"{SITE}:sold:4"]
        feed.mark(facts(1))
        feed.settled("main")
        await feed.in_step()
    assert {context.call_sid for context in await store.list_site(SITE)} == {f"{SITE}:main:1", f"{SITE}:branch:3"}
    assert [context.call_sid for context in await store.list_site("ankara")] == ["ankara:main:5"]
    assert [context.call_sid for context in finals] == [f"{SITE}:sold:4", f"{SITE}:main:2"]


async def test_an_outage_keeps_only_the_newest_facts_of_each_live_call_and_all_is_put_right_afterwards() -> None:
    server = FakeServer()
    store, finals = CountingStore(store_on(server)), list[CallContext]()
    feed = feed_to(store, finals=finals)
    feed.settled("main")
    async with running(feed):
        feed.mark(facts(1))
        feed.mark(facts(2))
        await feed.in_step()
        server.connected = False
        feed.mark(facts(1, state=CallState.ANSWERED))
        await eventually(lambda: feed.status().reachable is False)
        feed.ended(facts(2))
        for number in range(3, 100):
            feed.mark(facts(number))
            feed.ended(facts(number))
        feed.mark(facts(1, state=CallState.HELD))
        assert (feed.status().live, feed.status().waiting) == (1, 1)
        server.connected = True
        store.written.clear()
        await feed.in_step()
    assert store.written == [f"{SITE}:main:1 held"]
    assert [context.call_sid for context in await store.list_site(SITE)] == [f"{SITE}:main:1"]
    assert [(final.call_sid, final.state) for final in finals] == [(f"{SITE}:main:2", CallState.ENDED)]


async def test_a_call_that_ended_during_an_outage_ends_even_if_its_pbx_never_tells_its_calls() -> None:
    server = FakeServer()
    store, finals = store_on(server), list[CallContext]()
    feed = feed_to(store, finals=finals)
    await store.put_facts(facts(9))  # of an earlier run; nobody knows whether it is over
    async with running(feed):
        for number in (1, 2, 3, 4):
            feed.mark(facts(number))
        await feed.in_step()
        await store.update("acme", facts(2).call_sid, lambda context: with_task(context, "ask-for-name"))
        server.connected = False
        feed.ended(facts(1))  # before the outage is noticed
        await eventually(lambda: feed.status().reachable is False)
        feed.ended(facts(2))
        feed.ended(facts(3))
        feed.mark(facts(3, state=CallState.HELD))  # it goes on after all
        server.connected = True
        await feed.in_step()
        assert {context.call_sid for context in await store.list_site(SITE)} == {
            facts(number).call_sid for number in (3, 4, 9)
        }
    assert [(final.call_sid, len(final.task_stack)) for final in finals] == [
        (facts(1).call_sid, 0),
        (facts(2).call_sid, 1),
    ]


async def test_what_is_remembered_of_calls_that_ended_during_an_outage_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent.live.feed._REMEMBERED_ENDS", 10)
    server = FakeServer()
    server.connected = False
    feed = feed_to(store_on(server))
    async with running(feed):
        feed.mark(facts(1))
        await eventually(lambda: feed.status().reachable is False)
        for number in range(100):
            feed.ended(facts(number))
        assert len(feed._ended_away) == 10
        feed.settled("main")
        feed.settled("branch")
        assert len(feed._ended_away) == 0


async def test_a_flushed_store_gets_every_live_context_back() -> None:
    server = FakeServer()
    store = store_on(server)
    feed = feed_to(store)
    async with running(feed):
        for number in range(5):
            feed.mark(facts(number))
        await feed.in_step()
        await store._client.flushall()
        while len(await store.list_site(SITE)) < 5:  # noqa: ASYNC110  # nobody tells of it
            await asyncio.sleep(0.001)


async def test_an_outage_is_logged_when_it_starts_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="agent.live")
    server = FakeServer()
    feed = feed_to(store_on(server))
    async with running(feed):
        await feed.in_step()
        server.connected = False
        await eventually(lambda: feed._failures > 5)
        server.connected = True
        await eventually(lambda: feed.status().reachable is True)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert caplog.messages[0].startswith("the live store memory:// cannot be used")
    assert caplog.messages[1] == "the live store is back, every live context is in it"


async def test_the_status_tells_since_when_the_store_is_as_it_is() -> None:
    ticks = iter(START + timedelta(seconds=second) for second in range(1000))
    moments: list[datetime] = []

    def now() -> datetime:
        moments.append(next(ticks))
        return moments[-1]

    server = FakeServer()
    feed = LiveFeed(store_on(server), site=SITE, pbxes=[], grace_seconds=1, times=QUICK, now=now)
    assert (feed.status().reachable, feed.status().since, feed.status().home) == (None, START, "memory://")
    async with running(feed):
        await feed.in_step()
        reached = feed.status()
        assert (reached.reachable, reached.problem) == (True, None)
        server.connected = False
        await eventually(lambda: feed.status().reachable is False)
        away = feed.status()
        assert away.since > reached.since
        assert away.problem is not None
        await eventually(lambda: feed._failures > 3)
        assert feed.status().since == away.since


async def test_marking_never_waits_even_while_the_store_hangs() -> None:
    class HangingStore(ContextStore):
        async def sign(self, site: str) -> None:
            await asyncio.Event().wait()

    feed = feed_to(HangingStore(store_on(FakeServer())._client, home="memory://", timeout_seconds=5))
    async with running(feed):
        await asyncio.sleep(0)
        for number in range(100):
            feed.mark(facts(number))
    assert feed.status().waiting == 100
