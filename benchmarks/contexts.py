"""What services write into contexts: how fast it is durable, how much a second, and how soon a new call is readable.

    python -m benchmarks.contexts [--seconds 10] [--home memory|unix]

100 live calls on a desk over SQLite on this disk. "at 200/s": writes come evenly, each timed from asking to durable.
"as fast as it goes": 50 services write one after the other. "from AMI": bytes of a Newchannel come in, until the
context can be read at the desk.
"""

import argparse
import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.calls.context import CallContext
from agent.calls.operations import AppendInteractions, Operation, Patch
from agent.calls.rules import CallRules
from agent.live.desk import Desk
from agent.live.feed import LiveFeed
from agent.live.store import ContextStore
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.pbx.asterisk.protocol import AmiFramer
from agent.store.context_log import ContextLog
from agent.store.engine import open_store
from agent.store.journal import Journal
from agent.store.writer import Group, LiveAnchor, Writer
from agent.tracking.tracker import Tracker
from config.settings import LiveSettings, TenancySettings
from tests.unit.live.contexts import facts
from tests.valkey_server import running_server

_CALLS = 100
_SERVICES = 50
_RATE = 200
_PBX_CALLS_PER_SECOND = 20
_BARE = "UPDATE counter SET value = ? WHERE name = 'outbox_records'"
_NEWCHANNEL = (
    "Event: Newchannel\r\nPrivilege: call,all\r\nTimestamp: {at:.6f}\r\nChannel: PJSIP/trunk-{id}\r\n"
    "ChannelState: 4\r\nChannelStateDesc: Ring\r\nCallerIDNum: 02125550100\r\nCallerIDName: Somebody\r\n"
    "Context: from-trunk\r\nExten: 100\r\nPriority: 1\r\nUniqueid: {id}\r\nLinkedid: {id}"
)


@contextlib.asynccontextmanager
async def running(directory: Path, settings: LiveSettings) -> AsyncIterator[tuple[Desk, Tracker, Writer]]:
    """The parts of an agent that contexts pass through."""
    async with open_store(directory / "edge.db") as store, ContextStore.open(settings) as contexts:
        writer = await Writer.over(store.connection)
        desk = Desk(await ContextLog.over(store, writer))
        feed = LiveFeed(contexts, site="istanbul-1", pbxes=["main"], grace_seconds=60, book=desk)
        desk.share_with(feed)
        tracker = Tracker(
            site="istanbul-1",
            tenancy=TenancySettings(),
            writer=writer,
            journal=Journal(store, writer),
            live=desk,
            commit_interval=timedelta(milliseconds=50),
            on_commit=lambda: None,
        )
        tasks = [asyncio.create_task(work) for work in (desk.run(), feed.run(), tracker.run())]
        if settings.url != "memory://":
            tasks.append(asyncio.create_task(feed.listen()))
        try:
            yield desk, tracker, writer
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def begin(desk: Desk, writer: Writer) -> list[CallContext]:
    """100 live calls."""
    calls = [facts(number) for number in range(_CALLS)]
    for call in calls:
        desk.mark(call)
    anchors = [LiveAnchor(call.call_sid, call.pbx, 1, call.call_start_time) for call in calls]
    await writer.commit(Group(opened=anchors))
    desk.committed(opened=[call.call_sid for call in calls], ended=())
    return calls


def wish(number: int) -> Operation:
    """Mostly utterances; now and then a variable."""
    if number % 10 == 0:
        return Patch({"variables": {f"v{number % 7}": number}})
    text = "what a caller or a service says in one breath, some twelve words long"
    return AppendInteractions([{"speaker": "caller", "text": text, "language": "en", "confidence": 0.93}])


async def timed_write(desk: Desk, call: CallContext, number: int, service: str) -> float:
    """Milliseconds until it is durable."""
    started = time.perf_counter()
    await desk.write(call.call_sid, [wish(number)], service=service)
    return (time.perf_counter() - started) * 1e3


async def evenly(desk: Desk, calls: list[CallContext], seconds: float) -> list[float]:
    """Writes at 200/s."""
    async with asyncio.TaskGroup() as tasks:
        started, writes = time.perf_counter(), []
        for number in range(int(_RATE * seconds)):
            await asyncio.sleep(max(0.0, started + number / _RATE - time.perf_counter()))
            call = calls[number % len(calls)]
            writes.append(tasks.create_task(timed_write(desk, call, number, f"s{number % _SERVICES}")))
    return [write.result() for write in writes]


async def as_fast_as_it_goes(desk: Desk, calls: list[CallContext], seconds: float) -> list[float]:
    """50 services, each waiting for its answer."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def serve(service: int) -> None:
        number = service
        while time.perf_counter() < until:
            took.append(await timed_write(desk, calls[number % len(calls)], number, f"s{service}"))
            number += _SERVICES + 1

    await asyncio.gather(*(serve(service) for service in range(_SERVICES)))
    return took


async def from_ami(desk: Desk, tracker: Tracker, seconds: float) -> list[float]:
    """Milliseconds from the first bytes of a call until its context is read."""
    feed = tracker.add_pbx("main", rules=CallRules(), interpreter=AsteriskInterpreter())
    interpreter, framer = AsteriskInterpreter(), AmiFramer()
    took = []
    for number in range(int(seconds * _PBX_CALLS_PER_SECOND)):
        await asyncio.sleep(1 / _PBX_CALLS_PER_SECOND)
        at = datetime.now(UTC)
        native_id = f"{at.timestamp():.0f}.{number}"
        data = _NEWCHANNEL.format(at=at.timestamp(), id=native_id).encode() + b"\r\n\r\n"
        started, place = time.perf_counter(), desk.changes.latest
        for frame in framer.feed(data):
            feed.heard(frame, interpreter.interpret(frame, at), at)
        while desk.current(f"istanbul-1:main:{native_id}") is None:
            await desk.changes.news(place)
            place = desk.changes.latest
        took.append((time.perf_counter() - started) * 1e3)
    return took


async def bare_commits(writer: Writer, seconds: float) -> list[float]:
    """Milliseconds of a transaction with one row, at the same rate: what the disk allows at this moment."""
    took = []
    for number in range(int(_RATE * seconds / 10)):
        await asyncio.sleep(10 / _RATE)
        started = time.perf_counter()
        await writer.transact(lambda connection, n=number: connection.execute(_BARE, (n,)).rowcount)  # type: ignore[misc]
        took.append((time.perf_counter() - started) * 1e3)
    return took


def tell(what: str, took: list[float], seconds: float) -> None:
    """One line."""
    cuts = statistics.quantiles(took, n=1000, method="inclusive")
    rate = len(took) / seconds
    print(
        f"  {what:<22} {rate:>7.0f}/s   p50 {cuts[499]:6.2f} ms   p99 {cuts[989]:6.2f} ms   worst {max(took):6.2f} ms"
    )


async def measure(name: str, settings: LiveSettings, seconds: float) -> None:
    """Everything in one home."""
    print(name)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as directory:
        async with running(Path(directory), settings) as (desk, tracker, writer):
            calls = await begin(desk, writer)
            tell("bare commits", await bare_commits(writer, seconds), seconds)
            even, ami = await asyncio.gather(evenly(desk, calls, seconds), from_ami(desk, tracker, seconds))
            tell("at 200/s", even, seconds)
            tell("from AMI to readable", ami, seconds)
            cpu = time.process_time()
            tell("as fast as it goes", await as_fast_as_it_goes(desk, calls, seconds), seconds)
            print(f"  of one core {(time.process_time() - cpu) / seconds:.0%}")


async def main() -> None:
    """Measure the homes that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--home", choices=["memory", "unix"], help="only this one")
    arguments = parser.parse_args()
    if arguments.home != "unix":
        await measure("memory://", LiveSettings(url="memory://"), arguments.seconds)
    if arguments.home != "memory":
        server = running_server()
        try:
            await measure("unix://", server.settings(), arguments.seconds)
        finally:
            server.remove()


if __name__ == "__main__":
    asyncio.run(main())
