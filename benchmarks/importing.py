"""Lines per second of `edge-agent import`, against csv.reader and sqlite3 executemany of the same bytes.

    python -m benchmarks.importing [--lines 1000000] [--directory DIR]

The file is the captured Master.csv of the rig's town, again and again with other ids, numbers and times. The plain way
keeps each line as a row of its columns with one index, a thousand to a commit: no calls, no numbers, no outbox, and a
second time it would keep them all once more. Beside other work on the machine times tell little, CPU tells more.
"""

import argparse
import csv
import json
import os
import re
import resource
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

_CAPTURE = Path(__file__).parents[1] / "tests/wire/cdr/town.master.csv"
_ID = re.compile(r'"(\d{10})\.(\d+)"')
_TIME = re.compile(r'"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"')
_COLUMNS = 21
_SETTINGS = """
site = "bench"
country = "TR"
state_directory = "state"
runtime_directory = "run"

[[pbx]]
name = "main"
username = "x"
secret = "x"
time_zone = "UTC"

[tenancy]
default = "acme"
"""


def town(rounds: int) -> Iterator[str]:
    """The captured lines, each round a minute later than the one before and with ids of its own."""
    lines = _CAPTURE.read_text(encoding="utf-8").splitlines(keepends=True)
    for number in range(rounds):
        later = timedelta(minutes=number)

        def moved(found: re.Match[str], later: timedelta = later) -> str:
            return f'"{datetime.fromisoformat(found[1]) + later}"'

        def renamed(found: re.Match[str], number: int = number) -> str:
            return f'"{int(found[1]) + 60 * number}.{found[2]}"'

        for line in lines:
            text = _ID.sub(renamed, _TIME.sub(moved, line))
            # Some 20,000 callers, most of whom call again.
            yield text.replace("9053000000", f"90530{number * 7 % 1000:03}00") if "9053000000" in text else text


class Cost(NamedTuple):
    """What it took: `cpu` seconds of all processes, `memory` in bytes of the largest one."""

    seconds: float
    cpu: float
    memory: int

    def told(self, lines: int, plain: "Cost") -> str:
        """For people."""
        return (
            f"{lines / self.seconds:9,.0f} lines/s ({self.seconds / plain.seconds:4.1f} times the plain way), "
            f"{self.cpu / lines * 1e6:6.1f} µs of CPU a line ({self.cpu / plain.cpu:4.1f} times), "
            f"{self.memory / 1e6:4.0f} MB at most in a process"
        )


def plain(file: Path, target: Path) -> Cost:
    """What the plain way takes."""
    begun, cpu = time.perf_counter(), time.process_time()
    with (
        closing(sqlite3.connect(target, isolation_level=None)) as database,
        file.open(newline="", encoding="utf-8") as text,
    ):
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"CREATE TABLE cdr ({', '.join(f'c{number}' for number in range(_COLUMNS))})")
        database.execute("CREATE INDEX by_uniqueid ON cdr (c16)")
        lines = csv.reader(text)
        while some := list(islice(lines, 1000)):
            database.execute("BEGIN")
            database.executemany(f"INSERT INTO cdr VALUES ({', '.join('?' * _COLUMNS)})", some)
            database.execute("COMMIT")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(time.perf_counter() - begun, time.process_time() - cpu, memory)


def imported(directory: Path, file: Path) -> tuple[Cost, dict[str, int]]:
    """What importing takes, and what became of the calls."""
    program = Path(sys.executable).with_name("edge-agent")
    command = [str(program), "import", str(file), "--config", str(directory / "agent.toml"), "--json"]
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, after.ru_maxrss * 1024), json.loads(done.stdout)["calls"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--directory", type=Path, help="where the databases are made; a disk, not memory")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.directory) as place:
        directory = Path(place)
        (directory / "agent.toml").write_text(_SETTINGS)
        (directory / "agent.toml").chmod(0o600)
        (directory / "state").mkdir()
        per_round = _CAPTURE.read_text(encoding="utf-8").count("\n")
        file = directory / "Master.csv"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(town(max(1, asked.lines // per_round)))
        lines = max(1, asked.lines // per_round) * per_round
        _make_database(directory)
        print(f"{lines} lines, {file.stat().st_size / 1e6:.0f} MB, {os.cpu_count()} processors")
        base = plain(file, directory / "plain.db")
        print(f"csv and executemany: {base.told(lines, base)}")
        for what in ("import", "again"):
            cost, calls = imported(directory, file)
            told = ", ".join(f"{count} {name}" for name, count in calls.items() if count)
            print(f"{what:19}: {cost.told(lines, base)}; {told}", flush=True)
    return 0


def _make_database(directory: Path) -> None:
    import asyncio

    from agent.store.engine import open_store

    async def work() -> None:
        async with open_store(directory / "state/edge.db"):
            pass

    asyncio.run(work())


if __name__ == "__main__":
    sys.exit(main())
