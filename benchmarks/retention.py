"""How long a commit of capture waits while retention deletes, beside the same commits with nothing else going on.

    python -m benchmarks.retention [--calls 100000]

A commit every 20 ms, of one call with a journal segment, as capture makes them; meanwhile every confirmed call goes.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path

from agent.store.engine import Store, open_store
from agent.store.retention import Retention
from agent.store.segment import Frame, Segment
from agent.store.writer import FinishedCall, Group, Writer
from config.settings import RetentionSettings, StoreSettings, TenancySettings
from tests.many_calls import NOW, fill

_EVERY_SECONDS = 0.02
_ALONE_SECONDS = 10.0


async def commits(writer: Writer, until: Awaitable[object]) -> list[float]:
    """Seconds of each commit until that has come to its end."""
    work = asyncio.ensure_future(until)
    found: list[float] = []
    while not work.done():
        group = _a_group(writer, len(found))
        began = time.perf_counter()
        await writer.commit(group)
        found.append(time.perf_counter() - began)
        await asyncio.sleep(_EVERY_SECONDS)
    await work
    return found


def _a_group(writer: Writer, number: int) -> Group:
    at = NOW + timedelta(seconds=number)
    frames = [Frame(0, b"Event: Hangup\r\nUniqueid: 1.2\r\n\r\n" * 20)]
    segment = Segment(writer.next_segment_id(), "main", "boot", 1, at, time.monotonic_ns(), frames)
    row = {
        "call_sid": f"bench:main:{time.monotonic_ns()}.{number}", "trace_id": f"{number:032x}", "site": "bench",
        "pbx": "main", "direction": "inbound", "status": "completed", "start_time": at, "end_time": at,
        "legs": [{"channel": "PJSIP/trunk-1", "number": "+905321234567"}] * 4,
    }  # fmt: skip
    return Group(segments=[segment], finished=[FinishedCall(row, "acme")])


async def measure(path: Path, calls: int) -> None:
    """Print a line for each."""
    async with open_store(path):
        pass
    fill(path, calls, are_confirmed=True)
    async with open_store(path) as store:
        writer = await Writer.over(store.connection)
        alone = await commits(writer, asyncio.sleep(_ALONE_SECONDS))
        began = time.perf_counter()
        beside = await commits(writer, _all_goes(store, writer))
        seconds = time.perf_counter() - began
    print(f"{calls} calls deleted and their pages given back in {seconds:.1f} s; commits of capture, ms:")
    print(f"{'':>10}{'commits':>10}{'p50':>8}{'p99':>8}{'longest':>10}")
    for name, found in (("alone", alone), ("beside", beside)):
        p99 = statistics.quantiles(found, n=100)[98]
        shown = (statistics.median(found), p99, max(found))
        print(
            f"{name:>10}{len(found):>10}"
            + "".join(f"{1000 * each:>{width}.1f}" for each, width in zip(shown, (8, 8, 10), strict=True))
        )


async def _all_goes(store: Store, writer: Writer) -> None:
    retention = await Retention.over(
        store, writer, settings=RetentionSettings(calls_days=1), journal_settings=StoreSettings(),
        tenancy=TenancySettings(), has_centre=True,
    )  # fmt: skip
    await retention.run_due()


def main() -> None:
    """Build a database, and delete from it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(Path(directory) / "edge.db", parser.parse_args().calls))


if __name__ == "__main__":
    main()
