"""Calls as files: CSV that is safe to open in a spreadsheet, and JSON lines."""

import csv
import json
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, TextIO

from agent.cli.faults import CommandFailed
from agent.cli.output import printable

if TYPE_CHECKING:
    from agent.cli.local import Row

# A promise: columns are only ever added at the end.
COLUMNS: Final = (
    "call_sid", "trace_id", "tenant", "site", "pbx", "direction", "caller_id", "caller_name", "callee_id",
    "answered_by", "status", "disposition", "start_time", "pbx_answer_time", "answer_time", "end_time",
    "ring_seconds", "talk_seconds", "hold_seconds", "total_seconds", "hangup_cause", "hangup_source", "queue",
    "transferred", "recording", "merged_into", "source", "start_estimated", "end_estimated", "revision",
    "caller_e164", "caller_presentation", "callee_e164", "last_answered_by", "queue_position", "queue_wait_seconds",
    "conference",
)  # fmt: skip

# What makes a spreadsheet calculate instead of show, also in the wide forms that East Asian ones understand.
_FORMULA: Final = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
_PLAIN_NUMBER: Final = re.compile(r"\+?[0-9]+")


@contextmanager
def destination(file: Path | None, *, bom: bool, force: bool) -> Iterator[TextIO]:
    """Where to write: stdout, or a file that is there only when all of it is, readable for its owner alone.

    Raises CommandFailed for a file that is there already, unless by force.
    """
    encoding = "utf-8-sig" if bom else "utf-8"
    if file is None or str(file) == "-":
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(encoding=encoding, errors="replace")
        yield sys.stdout
        sys.stdout.flush()
        return
    if file.exists() and not stat.S_ISREG(file.stat().st_mode):  # a pipe, a terminal
        with _text(file.open("wb"), encoding) as stream:
            yield stream
        return
    if not force and os.path.lexists(file):
        raise _there_already(file)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with _text(os.fdopen(handle, "wb"), encoding) as stream:
            yield stream
        _put(part, file, force=force)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


def _put(part: Path, file: Path, *, force: bool) -> None:
    if not force and os.path.lexists(file):  # it came meanwhile
        raise _there_already(file)
    part.replace(file)


def _there_already(file: Path) -> CommandFailed:
    what = "is a directory; name a file in it" if file.is_dir() else "is there already; --force replaces it"
    return CommandFailed(f"{file} {what}")


def write_csv(stream: TextIO, calls: Iterable["Row"]) -> int:
    """Write a heading and a line for each call; how many calls."""
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    count = 0
    for count, call in enumerate(calls, start=1):  # noqa: B007 - the count is what is told
        writer.writerow([cell(call[column]) for column in COLUMNS])
    return count


def write_jsonl(stream: TextIO, calls: Iterable["Row"]) -> int:
    """Write a JSON object for each call; how many calls."""
    count = 0
    for count, call in enumerate(calls, start=1):  # noqa: B007 - as above
        stream.write(json.dumps(call, ensure_ascii=False, default=_iso) + "\n")
    return count


def cell(value: object) -> str:
    """A value as text in which no spreadsheet sees a formula."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case datetime():
            return _iso(value)
        case str() if _FORMULA.match(value) and not _PLAIN_NUMBER.fullmatch(value):
            return f"'{printable(value)}"
        case _:
            return printable(str(value))


def _iso(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{type(value).__name__} has no JSON form")
    return value.astimezone(UTC).isoformat(timespec="microseconds")


def _text(stream: BinaryIO, encoding: str) -> TextIOWrapper:
    # What a PBX told may hold halves of surrogate pairs; they become question marks.
    return TextIOWrapper(stream, encoding=encoding, errors="replace", newline="")
