"""What the simulated Asterisk writes down itself: lines of Master.csv, as `cdr_csv` of Asterisk 22 words them."""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

RecordKeeper = Callable[[str], None]  # takes one line, with its end


def line_of(texts: Sequence[str], *, seconds: tuple[int, int], rest: Sequence[str], sequence: int) -> str:
    """One record: the texts up to the end time, duration and billable seconds, the texts after them, its number."""
    line = io.StringIO()
    writer = csv.writer(line, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n")
    # Asterisk leaves the answer time of an unanswered call without quotes, which no reader minds.
    writer.writerow([*texts, *seconds, *rest, sequence])
    return line.getvalue()


def keeper(file: Path) -> RecordKeeper:
    """What appends each line as Asterisk does: the file opened, one write, the file closed."""

    def keep(line: str) -> None:
        with file.open("ab", buffering=0) as records:
            records.write(line.encode())

    return keep
