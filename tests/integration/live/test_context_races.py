"""Tracker and services write at the same time, in every order: nobody's change is lost."""

import asyncio
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.calls.context import CallContext, CallState
from agent.live.exchange import Exchange
from agent.live.store import ContextStore
from config.settings import LiveSettings
from tests.unit.live.contexts import facts, with_interaction

STATES = [CallState.RINGING, CallState.QUEUED, CallState.ANSWERED, CallState.HELD]
_numbers = count(1)


class HaltingStore(ContextStore):
    """Lets others go first between reading and writing, for as many turns as `turns` says."""

    turns: Iterator[int] = iter(())

    async def _read(self, exchange: Exchange, key: str, sid: str) -> CallContext | None:
        context = await super()._read(exchange, key, sid)
        for _ in range(next(self.turns, 0)):
            await asyncio.sleep(0)
        return context


def opened(home: LiveSettings, *, is_alone: bool) -> HaltingStore:
    """In the process both ways to keep writes apart are tried: taking turns, and watching as on a server."""
    store = HaltingStore.open(home)
    if home.url == "memory://" and not is_alone:
        return HaltingStore(store._client, home=home.url, timeout_seconds=5)
    return store


# What the tracker tells one after the other (a state and whose call it is), how many changes each of the services
# makes, and who is held up when for how long.
@given(
    told=st.lists(st.tuples(st.sampled_from(STATES), st.sampled_from([None, "acme", "umay"])), min_size=1, max_size=6),
    services=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    turns=st.lists(st.integers(0, 6), max_size=30),
    ends=st.booleans(),
    is_alone=st.booleans(),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_no_interleaving_loses_a_change(
    home: LiveSettings,
    *,
    told: list[tuple[CallState, str | None]],
    services: list[int],
    turns: list[int],
    ends: bool,
    is_alone: bool,
) -> None:
    asyncio.run(race(home, told=told, services=services, turns=turns, ends=ends, is_alone=is_alone))


async def race(
    home: LiveSettings,
    *,
    told: list[tuple[CallState, str | None]],
    services: list[int],
    turns: list[int],
    ends: bool,
    is_alone: bool,
) -> None:
    async with opened(home, is_alone=is_alone) as store:
        store.turns = iter(turns)
        number = next(_numbers)
        sid = facts(number).call_sid
        writes = 1
        last = await store.put_facts(facts(number, state=told[0][0], tenant=told[0][1]))
        acknowledged: list[str] = []

        async def track() -> None:
            nonlocal writes, last
            for state, tenant in told[1:]:
                last = await store.put_facts(facts(number, state=state, tenant=tenant))
                writes += 1
            if ends:
                last = (await store.end(facts(number, state=told[-1][0], tenant=told[-1][1]), 60)).context
                writes += 1

        async def serve(name: int, changes: int) -> None:
            nonlocal writes
            for change in range(changes):
                word = f"{name}.{change}"
                for tenant in (None, "acme", "umay"):
                    if await store.update(tenant, sid, lambda context, w=word: with_interaction(context, said=w)):  # type: ignore[misc]
                        acknowledged.append(word)
                        writes += 1
                        break

        async with asyncio.TaskGroup() as group:
            group.create_task(track())
            for name, changes in enumerate(services):
                group.create_task(serve(name, changes))

        context = await store.get(told[-1][1], sid)
        assert context is not None
        assert sorted(entry["said"] for entry in context.interaction_history) == sorted(acknowledged)
        assert context.state is (CallState.ENDED if ends else told[-1][0])
        assert context.revision == writes
        for tenant in {None, "acme", "umay"} - {told[-1][1]}:
            assert await store.get(tenant, sid) is None
            assert sid not in {other.call_sid for other in await store.list_live(tenant)}
        live = {other.call_sid for other in await store.list_live(told[-1][1])}
        assert (sid in live) is not ends


@pytest.mark.parametrize("turns_before", range(0, 40, 3))
async def test_a_cancelled_write_ends_at_once_and_spoils_nothing(store: ContextStore, turns_before: int) -> None:
    await store.put_facts(facts())

    async def write_for_ever() -> None:
        while True:
            await store.put_facts(facts())

    task = asyncio.create_task(write_for_ever())
    for _ in range(turns_before):
        await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(5):
        with pytest.raises(asyncio.CancelledError):
            await task
    before = await store.get("acme", facts().call_sid)
    assert before is not None
    assert (await store.put_facts(facts())).revision == before.revision + 1
