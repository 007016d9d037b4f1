"""What reading a channel event log costs: python -m benchmarks.cel

The same rows, written by a real Asterisk and repeated with fresh ids, go once through everything between the line and
the record of a call, and once through `csv.reader` alone, all lines in one go. The ratio of the two is what counts; the
numbers beside it depend on the machine.
"""

import argparse
import csv
import sys
from collections.abc import Callable
from pathlib import Path
from time import process_time

from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.cel import CelReader, CelRow
from agent.pbx.asterisk.cel_calls import CelCalls
from config.settings import TenancySettings

WIRE = Path(__file__).parents[1] / "tests" / "wire" / "stage" / "22"
# So many digits of a moment tell its three hours: the captures are of the same three, each round is of others.
PREFIX_DIGITS = 6
TENANCY = TenancySettings()


def captured() -> list[bytes]:
    """The rows of every captured feature."""
    return [line for path in sorted(WIRE.glob("*.cel.csv")) for line in path.read_bytes().splitlines(keepends=True)[1:]]


def repeated(lines: list[bytes], times: int) -> list[bytes]:
    """That many rounds, each with ids and times of its own."""
    prefix = int(lines[0].split(b'"')[3][:PREFIX_DIGITS])
    return [line.replace(b"%d" % prefix, b"%d" % (prefix + number)) for number in range(times) for line in lines]


def csv_alone(lines: list[bytes]) -> int:
    """The yardstick: every line becomes a list of fields, and that is all."""
    return sum(1 for fields in csv.reader(line.decode() for line in lines) if fields)


def rows(lines: list[bytes]) -> int:
    """Lines to rows."""
    reader = CelReader()
    return sum(isinstance(reader.read(line), CelRow) for line in lines)


def calls(lines: list[bytes]) -> int:
    """Lines to records of calls."""
    reader = CelReader()
    told: CelCalls[int] = CelCalls(
        site="bench", pbx="main", rules=CallRules(), assign=lambda facts: assign(TENANCY, facts)
    )
    number = ended = 0
    for line in lines:
        row = reader.read(line)
        if isinstance(row, CelRow):
            told.add(row, number)
            number += 1
            ended += len(told.take_ended())
    assert ended > 0
    assert len(told) == 0
    return number


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=10, help="how often the captures are repeated")
    parser.add_argument("--tries", type=int, default=7, help="runs of each kind; the fastest counts")
    options = parser.parse_args()
    lines = repeated(captured(), options.rounds)
    works: dict[str, Callable[[list[bytes]], int]] = {
        "csv.reader alone": csv_alone,
        "lines to rows": rows,
        "lines to records of calls": calls,
    }
    best = dict.fromkeys(works, float("inf"))
    for _ in range(options.tries):
        for name, work in works.items():
            started = process_time()
            done = work(lines)
            best[name] = min(best[name], process_time() - started)
            assert done == len(lines), f"{done} rows instead of {len(lines)}"
    yardstick = best["csv.reader alone"]
    print(f"{len(lines)} rows of {sum(map(len, lines)) / len(lines):.0f} bytes")
    for name, seconds in best.items():
        each, rate = seconds / len(lines) * 1e6, len(lines) / seconds / 1000
        print(f"{name:28} {each:6.2f} µs/row {rate:6.0f}k rows/s  ratio {seconds / yardstick:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
