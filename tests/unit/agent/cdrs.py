"""CDR lines in as few words as a test needs, and the captured files of a real Asterisk as calls."""

from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

from agent.calls.numbers import NumberPlan
from agent.calls.rules import CallRules
from agent.pbx.asterisk.cdr import CdrReader, CdrRow
from agent.pbx.asterisk.cdr_calls import CdrCall, call_of
from agent.pbx.asterisk.cdr_lines import Cut, RecordCutter

WIRE = Path(__file__).parents[2] / "wire" / "cdr"
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
RULES = CallRules(numbers=NumberPlan("TR"))


def master_line(**changes: str) -> str:
    """A line of Master.csv with every column: 101 answers a call from outside after five seconds."""
    columns = {
        "accountcode": "", "src": "905321112233", "dst": "902125551001", "dcontext": "from-trunk",
        "clid": '"Ayşe" <905321112233>', "channel": "PJSIP/trunk-acme-00000001", "dstchannel": "PJSIP/101-00000002",
        "lastapp": "Dial", "lastdata": "PJSIP/101,20", "start": "2026-11-22 12:00:00",
        "answer": "2026-11-22 12:00:05", "end": "2026-11-22 12:01:05", "duration": "65", "billsec": "60",
        "disposition": "ANSWERED", "amaflags": "DOCUMENTATION", "uniqueid": "1795348800.1", "userfield": "",
        "peeraccount": "", "linkedid": "1795348800.1", "sequence": "1",
    }  # fmt: skip
    assert columns.keys() >= changes.keys()
    return ",".join('"' + value.replace('"', '""') + '"' for value in (columns | changes).values())


def row(**changes: str) -> CdrRow:
    """The same line, read."""
    (read,) = rows(master_line(**changes))
    return read


def rows(*lines: str, zone: tzinfo = UTC, columns: Sequence[str] | None = None) -> list[CdrRow]:
    """Lines of one file, read."""
    reader = CdrReader(zone, columns)
    return [read for line in lines if (read := reader.row(line)) is not None]


def call(*told: CdrRow, rules: CallRules = RULES) -> dict[str, Any]:
    """The record of a call."""
    return call_of(told, site="here", pbx="main", rules=rules).row


def cut(data: bytes, *, pieces: int = 0) -> list[Cut]:
    """A file cut into records, fed in two pieces."""
    cutter = RecordCutter()
    found = list(cutter.feed(data[:pieces])) if pieces else []
    return [*found, *cutter.feed(data[pieces:]), *cutter.finish()]


def captured(name: str, columns: Sequence[str] | None = None) -> dict[str, CdrCall]:
    """The calls of a captured file by native id."""
    texts = [one.raw.decode() for one in cut((WIRE / name).read_bytes())]
    groups: dict[str, list[CdrRow]] = {}
    for read in rows(*texts, columns=columns):
        groups.setdefault(read.key, []).append(read)
    return {key: call_of(group, site="here", pbx="main", rules=RULES) for key, group in groups.items()}
