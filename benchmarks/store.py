"""Calls per second into SQLite: the writer against raw sqlite3 executemany of the same bytes, in turns in one run.

    python benchmarks/store.py [--calls 20000] [--directory DIR]

Raw means: the rows the writer wrote, already encoded, bound to the same statements on the same schema, FULL, on a
thread of its own without an event loop. `+ journal` adds the raw segments of the calls, 20 events of 450 bytes each.
"""

import argparse
import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.calls.context import TaskState
from agent.store.engine import open_store
from agent.store.segment import Frame, Segment
from agent.store.writer import FinishedCall, Group, Writer
from sync.models import Direction, Disposition, Status

_START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
_PER_COMMIT = (1, 10, 100, 1000)
_ROUNDS = 5
_TABLES = ("call", "task", "interaction", "outbox")


def call(number: int) -> FinishedCall:
    """A call of some 2.5 KB of JSON with one task and two interactions."""
    start = _START + timedelta(seconds=number)
    leg = {
        "channel": f"PJSIP/1{number:05}-0000001a",
        "number": f"1{number:05}",
        "start": start.isoformat(),
        "cause": 16,
    }
    step = {"at": start.isoformat(), "what": "bridged", "channel": leg["channel"], "bridge": "5f0c8e3a-2f6e-4d2b"}
    row: dict[str, Any] = {
        "call_sid": f"bench:main:{1_790_000_000 + number}.{number}",
        "trace_id": f"{number:032x}",
        "site": "bench",
        "pbx": "main",
        "direction": Direction.INBOUND,
        "caller_id": "+905321234567",
        "caller_name": "Ayşe Yılmaz",
        "callee_id": "2125550100",
        "answered_by": f"1{number:05}",
        "status": Status.COMPLETED,
        "disposition": Disposition.ANSWERED,
        "start_time": start,
        "pbx_answer_time": start + timedelta(seconds=1),
        "answer_time": start + timedelta(seconds=7),
        "end_time": start + timedelta(seconds=95),
        "ring_seconds": 6.0,
        "talk_seconds": 88.0,
        "total_seconds": 95.0,
        "hangup_cause": 16,
        "legs": [leg] * 4,
        "timeline": [step] * 14,
    }
    tasks = [TaskState(task_name="route", state_data={"step": 3, "queue": "sales"}, start_time=start)]
    return FinishedCall(
        row, "acme", tasks, [{"role": "caller", "text": "Merhaba"}, {"role": "agent", "text": "Buyrun"}]
    )


def segment(segment_id: int, calls: int) -> Segment:
    """What a PBX says during that many calls."""
    frames = [
        Frame(
            number * 100,
            b"Event: Newstate\r\nPrivilege: call,all\r\nChannel: PJSIP/1%05d-0000001a\r\nUniqueid: 1790000000.%d\r\n"
            b"Linkedid: 1790000000.%d\r\n" % (number, number, number) + b"ChannelStateDesc: Ringing\r\n" * 12 + b"\r\n",
        )
        for number in range(20 * calls)
    ]
    return Segment(segment_id, "main", "boot", 1, _START, 0, frames)


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:  # Any: calls or rows
    """`items` in pieces of `size`."""
    return (items[at : at + size] for at in range(0, len(items), size))


async def through_the_writer(directory: Path, calls: Sequence[FinishedCall], *, size: int, journal: bool) -> float:
    """Seconds that the writer takes."""
    async with open_store(directory / "edge.db") as store:
        writer = await Writer.over(store.connection)
        groups = [
            Group(finished=part, segments=[segment(writer.next_segment_id(), size)] if journal else [])
            for part in chunks(calls, size)
        ]
        begun = time.perf_counter()
        for group in groups:
            await writer.commit(group)
        return time.perf_counter() - begun


def raw(directory: Path, written: Path, *, size: int) -> float:
    """Seconds that plain executemany takes for the rows found in `written`."""
    asyncio.run(_create(directory))
    source = sqlite3.connect(written)
    columns = {table: [row[1] for row in source.execute(f"PRAGMA table_info({table})")] for table in _TABLES}
    statements = {
        table: f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
        for table, names in columns.items()
    }
    rows = {table: source.execute(f"SELECT * FROM {table} ORDER BY 1").fetchall() for table in _TABLES}
    source.close()
    per_call = {table: len(rows[table]) // len(rows["call"]) for table in _TABLES}
    work = list(zip(*(chunks(rows[table], size * per_call[table]) for table in _TABLES), strict=True))
    target = sqlite3.connect(directory / "edge.db", isolation_level=None)
    target.execute("PRAGMA synchronous = FULL")
    target.execute("PRAGMA foreign_keys = ON")
    target.execute("INSERT INTO tenant (id, name, is_active) VALUES (1, 'acme', 1)")
    begun = time.perf_counter()
    for parts in work:
        target.execute("BEGIN IMMEDIATE")
        for table, part in zip(_TABLES, parts, strict=True):
            target.executemany(statements[table], part)
        target.execute("COMMIT")
    seconds = time.perf_counter() - begun
    target.close()
    return seconds


async def _create(directory: Path) -> None:
    async with open_store(directory / "edge.db"):
        pass


def _median(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):>9,.0f}"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=20_000, help="at 100 and 1000 a commit; fewer for the smaller")
    options.add_argument("--directory", type=Path, help="on the disk to be measured")
    chosen = options.parse_args()
    print("calls/s      raw    writer   ratio  + journal")
    for size in _PER_COMMIT:
        calls = [call(number) for number in range(max(size, min(chosen.calls, size * 500) // size * size))]
        rates: dict[str, list[float]] = {"raw": [], "writer": [], "journal": []}
        for _ in range(_ROUNDS):
            with tempfile.TemporaryDirectory(dir=chosen.directory) as scratch:
                homes = {name: Path(scratch) / name for name in rates}
                seconds = asyncio.run(through_the_writer(homes["writer"], calls, size=size, journal=False))
                rates["writer"].append(len(calls) / seconds)
                rates["raw"].append(len(calls) / raw(homes["raw"], homes["writer"] / "edge.db", size=size))
                few = calls[: max(size, len(calls) // 4)]
                seconds = asyncio.run(through_the_writer(homes["journal"], few, size=size, journal=True))
                rates["journal"].append(len(few) / seconds)
        ratio = statistics.median(w / r for w, r in zip(rates["writer"], rates["raw"], strict=True))
        print(
            f"{size:>5} {_median(rates['raw'])} {_median(rates['writer'])} {ratio:>7.2f}  {_median(rates['journal'])}"
        )


if __name__ == "__main__":
    main()
