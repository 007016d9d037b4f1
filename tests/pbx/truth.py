"""Asterisk's own account of its logical calls, made from its CEL and CDR files alone.

The rules, written down before and apart from the product's:

*One call.* All CEL rows whose channels share a linkedid, transitively: a channel seen with two linkedids joins them.
Its native id is the uniqueid of the oldest channel, by the time of CHAN_START; that channel is the caller's.
*Tenant.* The last part of the caller channel's context at CHAN_START (`from-trunk-acme`, `internal-acme`).
*Direction.* A context `from-trunk-…` is inbound; otherwise outbound when the number begins with 0 or +, else internal.
*Caller, name, callee.* CALLERID(num), CALLERID(name) and Exten of the caller channel at CHAN_START: what was there
before the dialplan changed anything. The callee is the number first dialled, not the phone it led to. A channel that
Asterisk itself called (Originate) has no number there but `s`: its callee is the Exten of its first other row. Names
are as Asterisk has them, with SIP's backslash before a quote. Of bytes that are no UTF-8 Asterisk 22 makes U+FFFD; 16
lets them through, and they are the Turkish of ISO-8859-9.
*Answered.* A called channel (one that is not the caller's and not Local) has ANSWER and then BRIDGE_ENTER. The answer
time is that ANSWER, of the first such channel to be bridged. The caller's own ANSWER before it (by menu or queue) is
`pbx_answer_time` and does not make the call answered.
*Answered by.* CALLERID(num) of that channel at its ANSWER: a phone's own number, a trunk's dialled number.
*Start, end.* CHAN_START of the caller channel; LINKEDID_END, or the last CHAN_END, once every channel has ended.
A call some of whose channels never ended (Asterisk was killed) is `ended=False`, without end and talk time.
*Talk.* From the answer to the first BRIDGE_EXIT of the two after it; whole and split calls only, no transfers.
*Not answered.* The caller gave up (cancelled) if HANGUP of the caller channel names that channel itself as
hangupsource. If it names nothing, the PBX was shut down under the call: failed. Otherwise the dialplan gave up, and
the legs decide, best news first: a leg that was let ring until the PBX took it back (hangupsource empty, cause 0)
means no_answer; then a leg with cause 17 is busy; cause 34, 42 is congestion; anything else (declined 21, unknown
number 1, no route 3, no leg at all) is failed.
A dialled phone's busy beside another phone that rang in vain is therefore no_answer, although DIALSTATUS says BUSY.
*Queue.* The first argument of the first Queue application the caller channel was in.
*CDR.* The right one has the caller's channel, as dstchannel the answering one, and is ANSWERED. Its answer time is the
PBX's when that answered first, so its talk time is counted from the later one of that and the answer above.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.pbx.configuration import CDR_COLUMNS, CEL_COLUMNS
from tests.pbx.intention import Intention

BUSY_CAUSES = {17}
CONGESTION_CAUSES = {34, 42}


@dataclass(frozen=True, slots=True)
class TrueCall:
    native_id: str
    tenant: str | None
    direction: str
    caller: str
    caller_name: str
    callee: str
    status: str
    disposition: str | None
    start_time: datetime
    pbx_answer_time: datetime | None
    answer_time: datetime | None
    end_time: datetime | None
    talk_seconds: float | None
    cdr_talk_seconds: float | None
    answered_by: str | None
    queue: str | None
    hangup_cause: int | None
    """Of the caller channel."""
    ended: bool
    channels: tuple[str, ...]
    linkedids: tuple[str, ...]
    intention: str | None
    """The rig's own name for the call, if it placed it."""

    def to_json(self) -> dict[str, object]:
        return {
            key: value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True, slots=True)
class _Row:
    event: str
    at: datetime
    name: str
    number: str
    exten: str
    context: str
    channel: str
    application: str
    data: str
    uniqueid: str
    linkedid: str
    userfield: str
    extra: dict[str, object]


def true_calls(cel: Path, cdr: Path) -> list[TrueCall]:
    """Every logical call in the two files, oldest first."""
    rows = [_row(fields) for fields in _read(cel, len(CEL_COLUMNS))]
    cdrs = [dict(zip(CDR_COLUMNS, fields, strict=True)) for fields in _read(cdr, len(CDR_COLUMNS))]
    calls = [_call(group, cdrs) for group in _groups(rows)]
    return sorted(calls, key=lambda call: call.start_time)


def _read(path: Path, width: int) -> list[list[str]]:
    if not path.exists():
        return []
    lines = [_text(line) for line in path.read_bytes().splitlines(keepends=True)]
    # A kill in the middle of a write leaves a short last line; a capture's file has a header.
    return [fields for fields in csv.reader(lines) if len(fields) == width and fields[0] != "eventtype"]


def _text(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("iso-8859-9")


def _row(fields: Sequence[str]) -> _Row:
    named = dict(zip(CEL_COLUMNS, fields, strict=True))
    return _Row(
        event=named["eventtype"],
        at=_moment(named["eventtime"]),
        name=named["cid_name"],
        number=named["cid_num"],
        exten=named["exten"],
        context=named["context"],
        channel=named["channel"],
        application=named["appname"],
        data=named["appdata"],
        uniqueid=named["uniqueid"],
        linkedid=named["linkedid"],
        userfield=named["userfield"],
        extra=json.loads(named["extra"]) if named["extra"] else {},
    )


def _moment(text: str) -> datetime:
    seconds, _, micros = text.partition(".")
    return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=int(micros or 0))


def _groups(rows: Iterable[_Row]) -> list[list[_Row]]:
    """Rows by call; a set of linkedids grows together whenever one channel is seen with two of them."""
    parent: dict[str, str] = {}

    def root(linkedid: str) -> str:
        parent.setdefault(linkedid, linkedid)
        while parent[linkedid] != linkedid:
            linkedid = parent[linkedid]
        return linkedid

    known: dict[str, str] = {}
    listed = list(rows)
    for row in listed:
        parent[root(row.linkedid)] = root(known.setdefault(row.uniqueid, row.linkedid))
    groups: dict[str, list[_Row]] = {}
    for row in listed:
        groups.setdefault(root(row.linkedid), []).append(row)
    return [group for group in groups.values() if any(row.event == "CHAN_START" for row in group)]


def _call(rows: list[_Row], cdrs: list[dict[str, str]]) -> TrueCall:
    first = min((row for row in rows if row.event == "CHAN_START"), key=lambda row: row.at)
    mine = [row for row in rows if row.uniqueid == first.uniqueid]
    others = [row for row in rows if row.uniqueid != first.uniqueid and not row.channel.startswith("Local/")]
    callee = next((row.exten for row in mine if row.exten not in ("", "s")), first.exten)
    answer = _answer(others)
    own_answer = next((row.at for row in mine if row.event == "ANSWER"), None)
    started = {row.uniqueid for row in rows if row.event == "CHAN_START"}
    ended = started <= {row.uniqueid for row in rows if row.event == "CHAN_END"}
    hangup = next((row for row in mine if row.event == "HANGUP"), None)
    status, disposition = _outcome(first, hangup, others, answered=answer is not None, ended=ended)
    talk = _talk(answer, [*mine, *others]) if ended and answer is not None else None
    return TrueCall(
        native_id=first.uniqueid,
        tenant=_tenant(first.context),
        direction=_direction(first.context, callee),
        caller=first.number,
        caller_name=first.name,
        callee=callee,
        status=status,
        disposition=disposition,
        start_time=first.at,
        pbx_answer_time=own_answer if own_answer and (answer is None or own_answer < answer.at) else None,
        answer_time=answer.at if answer is not None else None,
        end_time=_end(rows) if ended else None,
        talk_seconds=talk,
        cdr_talk_seconds=_cdr_talk(first, answer, cdrs) if answer is not None else None,
        answered_by=answer.number if answer is not None else None,
        queue=next((row.data.split(",")[0] for row in mine if row.application == "Queue"), None),
        hangup_cause=_cause(hangup) if hangup is not None else None,
        ended=ended,
        channels=tuple(dict.fromkeys(row.channel for row in rows)),
        linkedids=tuple(dict.fromkeys(row.linkedid for row in rows)),
        intention=next((row.userfield for row in mine if row.userfield), None),
    )


def _tenant(context: str) -> str | None:
    return context.rpartition("-")[2] or None


def _direction(context: str, callee: str) -> str:
    if context.startswith("from-trunk-"):
        return "inbound"
    return "outbound" if callee.startswith(("0", "+")) else "internal"


def _answer(others: list[_Row]) -> _Row | None:
    answers = {row.uniqueid: row for row in reversed(others) if row.event == "ANSWER"}
    return next(
        (answers[row.uniqueid] for row in others if row.event == "BRIDGE_ENTER" and row.uniqueid in answers), None
    )


def _end(rows: list[_Row]) -> datetime:
    ends = [row.at for row in rows if row.event == "LINKEDID_END"]
    return max(ends or [row.at for row in rows if row.event == "CHAN_END"])


def _outcome(
    first: _Row, hangup: _Row | None, others: list[_Row], *, answered: bool, ended: bool
) -> tuple[str, str | None]:
    if answered:
        return ("completed" if ended else "in_progress"), ("answered" if ended else None)
    if not ended or hangup is None:
        return "in_progress", None
    source = hangup.extra.get("hangupsource")
    if source == first.channel:
        return "abandoned", "cancelled"
    if not source:
        return "failed", "failed"
    return "failed", _of_the_legs([row for row in others if row.event == "HANGUP"])


def _of_the_legs(legs: list[_Row]) -> str:
    if any(not leg.extra.get("hangupsource") and _cause(leg) == 0 for leg in legs):
        return "no_answer"
    if any(_cause(leg) in BUSY_CAUSES for leg in legs):
        return "busy"
    if any(_cause(leg) in CONGESTION_CAUSES for leg in legs):
        return "congestion"
    return "failed"


def _cause(hangup: _Row) -> int:
    cause = hangup.extra.get("hangupcause", 0)
    assert isinstance(cause, int)
    return cause


def _talk(answer: _Row, rows: list[_Row]) -> float | None:
    exits = [row.at for row in rows if row.event == "BRIDGE_EXIT" and row.at >= answer.at]
    return (min(exits) - answer.at).total_seconds() if exits else None


def _cdr_talk(first: _Row, answer: _Row, cdrs: list[dict[str, str]]) -> float | None:
    for cdr in cdrs:
        if (cdr["uniqueid"], cdr["dstchannel"], cdr["disposition"]) == (first.uniqueid, answer.channel, "ANSWERED"):
            began = max(answer.at, _moment(cdr["answer"]))
            return (_moment(cdr["end"]) - began).total_seconds()
    return None


def disagreements(calls: Sequence[TrueCall], intentions: Sequence[Intention]) -> list[str]:
    """Where Asterisk's account and what the driver meant differ, a line each; both sides must be complete."""
    by_name = {call.intention: call for call in calls}
    lines = [f"{call.native_id}: nobody meant to make this call" for call in calls if call.intention is None]
    if len(by_name) != len(calls):
        lines.append(f"{len(calls)} calls bear {len(by_name)} names")
    for meant in intentions:
        call = by_name.get(meant.call)
        if call is None:
            lines.append(f"{meant.call}: never seen")
            continue
        pairs: list[tuple[str, object, object]] = [
            (key, getattr(meant, key), getattr(call, key))
            for key in (
                "tenant",
                "direction",
                "caller",
                "callee",
                "status",
                "disposition",
                "queue",
            )
        ]
        pairs.append(("caller_name", meant.caller_name, _whole(call.caller_name, meant.caller_name)))
        pairs.append(("answered", bool(meant.answered_by), call.answered_by is not None))
        lines += [
            f"{meant.call}: {key} meant {ours!r}, was {theirs!r}" for key, ours, theirs in pairs if ours != theirs
        ]
        if call.answered_by is not None and call.answered_by not in meant.answered_by:
            lines.append(f"{meant.call}: answered by {call.answered_by}, not {meant.answered_by}")
    return lines


def _whole(told: str, meant: str) -> str:
    """`meant`, if `told` is what is left of it where Asterisk makes U+FFFD of every letter it cannot read."""
    left = "".join(letter if letter.isascii() else "\N{REPLACEMENT CHARACTER}" for letter in meant)
    return meant if told == left else told
