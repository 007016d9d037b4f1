"""Calls per second into SQLite: the writer against raw sqlite3 executemany of the same bytes, in turns in one run.

    python benchmarks/store.py [--calls 20000] [--directory DIR]

Raw means: the rows the writer wrote, already encoded, inserted on the same schema, WAL and FULL, without an event
loop. `+ journal` adds the raw segments of the calls, 20 events of 450 bytes each.
"""

import argparse
import asyncio
import gc
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
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
_PER_CALL = {"call": 1, "task": 1, "interaction": 2, "outbox": 1}  # rows of each table


def call(number: int) -> FinishedCall:
    """A call of some 2.5 KB of JSON with one task and two interactions."""
    start = _START + timedelta(seconds=number, microseconds=123_456)
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


async def through_the_writer(directory: Path, *, calls: int, size: int, journal: bool) -> float:
    """Seconds that the writer takes; making the calls is not its work and does not count."""
    seconds = 0.0
    async with open_store(directory / "edge.db") as store:
        writer = await Writer.over(store.connection)
        for at in range(0, calls, size):
            segments = [segment(writer.next_segment_id(), size)] if journal else []
            group = Group(finished=[call(number) for number in range(at, at + size)], segments=segments)
            begun = time.perf_counter()
            await writer.commit(group)
            seconds += time.perf_counter() - begun
    return seconds


def raw(path: Path, written: Path, *, size: int) -> float:
    """Seconds that plain executemany takes for the rows found in `written`; reading them there does not count."""
    seconds = 0.0
    with closing(sqlite3.connect(written)) as source, closing(_target(path, source)) as target:
        calls = source.execute("SELECT count(*) FROM call").fetchone()[0]
        cursors = {table: source.execute(f"SELECT * FROM {table} ORDER BY 1") for table in _PER_CALL}
        statements = {
            table: f"INSERT INTO {table} VALUES ({', '.join('?' * len(cursor.description))})"
            for table, cursor in cursors.items()
        }
        for _ in range(0, calls, size):
            parts = {table: cursors[table].fetchmany(size * per_call) for table, per_call in _PER_CALL.items()}
            begun = time.perf_counter()
            target.execute("BEGIN IMMEDIATE")
            for table, part in parts.items():
                target.executemany(statements[table], part)
            target.execute("COMMIT")
            seconds += time.perf_counter() - begun
    return seconds


def _target(path: Path, source: sqlite3.Connection) -> sqlite3.Connection:
    """An empty database of the same schema, as SQLite makes it, with WAL and FULL."""
    target = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        target.execute(f"PRAGMA {pragma}").fetchall()
    for (statement,) in source.execute("SELECT sql FROM sqlite_master WHERE sql NOTNULL AND name NOT LIKE 'sqlite_%'"):
        target.execute(statement)
    for table in ("tenant", "counter"):
        for row in source.execute(f"SELECT * FROM {table}"):
            target.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    return target


def _median(rates: Sequence[float]) -> str:
    return f"{statistics.median(rates):>9,.0f}"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=20_000, help="at 100 and 1000 a commit; fewer for the smaller")
    options.add_argument("--directory", type=Path, help="on the disk to be measured")
    chosen = options.parse_args()
    gc.collect()
    gc.freeze()  # as the daemon does once it has started: the collector need not walk through the modules again
    print("calls/s      raw    writer   ratio  + journal")
    for size in _PER_COMMIT:
        calls = max(size, min(chosen.calls, size * 500) // size * size)
        few = max(size, calls // 4 // size * size)
        rates: dict[str, list[float]] = {"raw": [], "writer": [], "journal": []}
        for _ in range(_ROUNDS):
            with tempfile.TemporaryDirectory(dir=chosen.directory) as scratch:
                homes = {name: Path(scratch) / name for name in rates}
                seconds = asyncio.run(through_the_writer(homes["writer"], calls=calls, size=size, journal=False))
                rates["writer"].append(calls / seconds)
                rates["raw"].append(
                    calls / raw(homes["raw"].with_suffix(".db"), homes["writer"] / "edge.db", size=size)
                )
                seconds = asyncio.run(through_the_writer(homes["journal"], calls=few, size=size, journal=True))
                rates["journal"].append(few / seconds)
        ratio = statistics.median(w / r for w, r in zip(rates["writer"], rates["raw"], strict=True))
        print(
            f"{size:>5} {_median(rates['raw'])} {_median(rates['writer'])} {ratio:>7.2f}  {_median(rates['journal'])}"
        )


if __name__ == "__main__":
    main()
