"""The CDRs of one call become its record, as far as CDRs can tell it. No I/O.

A CDR is told of every pair of parties: three for a ring group of three, six for a transfer by feature code. Local
channels are pieces of dialplan, so the pairs behind them count. What no CDR tells stays unknown: who hung up, causes,
holding, and when a person answered whom a queue or a menu had put through, because the PBX had answered before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from agent.calls.leg import iso_text
from agent.calls.numbers import NumberPlan, presentation
from agent.calls.outcome import (
    ANSWERED,
    BUSY,
    CANCELLED,
    CONGESTION,
    FAILED,
    NO_ANSWER,
    VOICEMAIL,
    Outcome,
)
from agent.calls.rules import CallRules, dialled_endpoints, dialled_number, endpoint_of, extension_of, queue_name
from agent.calls.services import SPECIAL_EXTENSIONS
from agent.calls.tenancy import CallFacts, facts_of_legs
from agent.calls.traces import minted_trace_id
from agent.pbx.asterisk.cdr import CdrRow, caller_of
from agent.pbx.text import name_of
from sync.models import Direction

MAX_ROWS: Final = 500  # of one call; more is a loop in the dialplan

_CONFERENCES: Final = frozenset({"confbridge", "meetme"})
_TONES: Final = {"busy": BUSY, "congestion": CONGESTION}
# The last thing the dialplan did was to end the call.
_ENDINGS: Final = frozenset({"", "hangup", "macro", "gosub", "return", "goto"})
_OF_DIALLED: Final = frozenset({"appdial", "appdial2", "appqueue"})
_SOON: Final = timedelta(seconds=1)  # what whole seconds can hide
_AT_ONCE: Final = timedelta(seconds=0.2)
_DIAL_STATUS: Final = {
    "ANSWERED": "ANSWER", "BUSY": "BUSY", "CONGESTION": "CONGESTION", "NO ANSWER": "NOANSWER", "FAILED": "CHANUNAVAIL",
    "CANCEL": "CANCEL",
}  # fmt: skip


# Callers call again, and over years there are many of them; some 300 bytes each.
_presentation: Final = lru_cache(maxsize=16_384)(presentation)


_text_of: Final = lru_cache(maxsize=64)(iso_text)  # the legs of a call share their moments

_end_of: Final = attrgetter("end")


@lru_cache(maxsize=32_768)
def _e164(plan: NumberPlan, number: str | None, *, dialled: bool = False) -> str | None:
    return plan.e164(number, dialled=dialled)


@dataclass(slots=True)
class _Leg:
    """A party of the call; what `facts_of_legs` asks of one."""

    name: str
    endpoint: str
    number: str | None
    start: datetime
    end: datetime
    answer: datetime | None = None
    is_trunk: bool = False
    dial_status: str = ""
    context: str = ""
    exten: str = ""
    accountcode: str = ""
    caller_name: str | None = None
    talk: float = 0.0

    def told(self, *, is_caller: bool) -> dict[str, Any]:  # Any: JSON
        """What is known of it. Most legs are told by half of this, so it is not filtered but gathered."""
        told: dict[str, Any] = {"name": self.name, "endpoint": self.endpoint}
        if self.number:
            told["number"] = self.number
        if self.caller_name:
            told["caller_name"] = self.caller_name
        if self.context:
            told["context"] = self.context
        if self.exten:
            told["exten"] = self.exten
        if self.accountcode:
            told["accountcode"] = self.accountcode
        if self.dial_status:
            told["dial_status"] = self.dial_status
        told["start_time"] = _text_of(self.start)
        if self.answer is not None:
            told["answer_time"] = _text_of(self.answer)
        told["end_time"] = _text_of(self.end)
        told["talk_seconds"] = round(self.talk, 3)
        if is_caller:
            told["caller"] = True
        return told


@dataclass(frozen=True, slots=True)
class CdrCall:
    """A call as columns of `Call`."""

    row: dict[str, Any]  # Any: the columns' own types
    _caller: _Leg
    _others: Sequence[_Leg]

    def facts(self, rules: CallRules) -> CallFacts:
        """The facts by which it is given to a tenant."""
        return facts_of_legs(
            pbx=self.row["pbx"],
            direction=self.row["direction"],
            caller_number=self._caller.number,
            callee=self.row["callee_id"],
            caller=self._caller if self._caller.endpoint else None,
            others=self._others,
            rules=rules,
        )


@dataclass(slots=True)
class _Found:
    """What the rows tell, step by step."""

    caller: _Leg
    legs: dict[str, _Leg] = field(default_factory=dict)  # by channel name, the caller's first
    answered: list[CdrRow] = field(default_factory=list)  # pairs that talked, in the order of their beginning
    tried: list[CdrRow] = field(default_factory=list)  # pairs, whatever came of it
    service: CdrRow | None = None
    voicemail: CdrRow | None = None
    is_parked: bool = False


def call_of(rows: Sequence[CdrRow], *, site: str, pbx: str, rules: CallRules, native_id: str = "") -> CdrCall:
    """The call whose CDRs these are, in any order; `native_id` where they bear none."""
    rows = sorted(rows, key=_when) if len(rows) > 1 else rows
    key = native_id or rows[0].key
    first = rows[0] if rows[0].uniqueid == key else next((row for row in rows if row.uniqueid == key), rows[0])
    is_originated = first.channel.startswith("Local/")
    caller = _caller(rows, first, rules, is_originated=is_originated)
    found = _look(rows, caller, rules)
    start, end = rows[0].start, max(map(_end_of, rows))
    direction = _direction(rows, found, rules, is_dialled=is_originated)
    callee = _callee(first, rows, direction)
    name = _caller_name(first) if not is_originated else None
    if caller.name:
        caller.caller_name = name
    legs = list(found.legs.values())
    is_guess = any(row.guessed for row in rows)
    call_sid = f"{site}:{pbx}:{key}"
    row: dict[str, Any] = {  # Any: the columns' own types
        "call_sid": call_sid,
        "trace_id": minted_trace_id(call_sid),
        "site": site,
        "pbx": pbx,
        "direction": direction,
        "caller_id": caller.number,
        "caller_e164": _e164(rules.numbers, caller.number),
        "caller_name": name,
        "caller_presentation": _presentation(caller.number, name),
        "callee_id": callee,
        "callee_e164": _e164(rules.numbers, callee, dialled=True),
        "start_time": start,
        "end_time": end,
        "total_seconds": round((end - start).total_seconds(), 6),
        "queue": _queue(rows),
        "recording": _recording(rows),
        "source": "cdr",
        "start_estimated": is_guess,
        "end_estimated": is_guess,
        **_outcome(rows, found, rules),
    }
    row["legs"] = [leg.told(is_caller=leg is caller) for leg in legs if leg.name]
    row["timeline"] = _timeline(rows, row)
    return CdrCall(row, caller, [leg for leg in legs if leg is not caller])


def _when(row: CdrRow) -> tuple[datetime, int]:
    return row.start, int(row.sequence) if row.sequence.isdecimal() else 0


# Who


def _caller(rows: Sequence[CdrRow], first: CdrRow, rules: CallRules, *, is_originated: bool) -> _Leg:
    """The first channel's leg; if that is a Local one, as with click to call, of the phone behind it."""
    channel, number = first.channel, first.cnum or first.src or caller_of(first.clid)[1] or None
    if is_originated:
        behind = [row.dstchannel for row in rows if row.channel.endswith(";2") and _is_party(row.dstchannel)]
        channel = behind[0] if behind else ""
    endpoint = _endpoint(channel)
    is_trunk = rules.is_trunk(endpoint)
    if not is_trunk:
        # The dialplan may have set the number that others see; the phone is its extension.
        number = extension_of(endpoint) or number
    mine = [row for row in rows if channel in (row.channel, row.dstchannel)] or rows
    own_answers = [row.answer for row in rows if row.channel == channel and row.answer is not None]
    return _Leg(
        name=channel,
        endpoint=endpoint,
        is_trunk=is_trunk,
        number=number,
        start=mine[0].start,
        end=max(map(_end_of, mine)),
        answer=min(own_answers, default=None),
        context=first.dcontext,
        exten=first.dst,
        accountcode=first.accountcode,
    )


def _caller_name(first: CdrRow) -> str | None:
    return (name_of(first.cnam) if first.cnam else caller_of(first.clid)[0]) or None


def _callee(first: CdrRow, rows: Sequence[CdrRow], direction: Direction) -> str | None:
    """The number first dialled; what a menu or a start extension made of it is none."""
    did = next((row.did for row in rows if row.did), None)
    if did:
        return did
    dst = first.dst
    is_menu = direction is Direction.INBOUND and len(dst) == 1
    return None if dst in SPECIAL_EXTENSIONS or is_menu else dst


def _direction(rows: Sequence[CdrRow], found: _Found, rules: CallRules, *, is_dialled: bool) -> Direction:
    caller = found.caller
    if not is_dialled and (caller.is_trunk or rules.is_inbound_context(caller.context)):
        return Direction.INBOUND
    if any(leg.is_trunk for leg in found.legs.values() if leg is not caller) or any(
        rules.is_trunk(endpoint)
        for row in rows
        if row.lastapp == "Dial" and not row.dstchannel
        for endpoint in dialled_endpoints(row.lastdata)
    ):
        return Direction.OUTBOUND
    return Direction.INTERNAL


def _look(rows: Sequence[CdrRow], caller: _Leg, rules: CallRules) -> _Found:
    """Sort the rows by what they are about."""
    found = _Found(caller)
    found.legs[caller.name] = caller
    for row in rows:
        application = row.lastapp.lower()
        if application == "park":
            found.is_parked = True
        if row.disposition == "ANSWERED":
            if rules.is_voicemail(application) and not row.dstchannel:
                found.voicemail = found.voicemail or row
            elif rules.is_answering(application):
                found.service = found.service or row
        if application in _CONFERENCES:
            continue  # whom it met there is a call of its own
        if row.channel not in found.legs and _is_party(row.channel):
            found.legs[row.channel] = _new_leg(row, row.channel, rules)
        if row.dstchannel != caller.name and _is_party(row.dstchannel):
            _take_pair(found, row, rules)
    return found


def _take_pair(found: _Found, row: CdrRow, rules: CallRules) -> None:
    leg = found.legs.get(row.dstchannel)
    if leg is None:
        leg = found.legs[row.dstchannel] = _new_leg(row, row.dstchannel, rules)
        leg.dial_status = _DIAL_STATUS[row.disposition]
    leg.end = max(leg.end, row.end)
    found.tried.append(row)
    # A phone from which the call was picked up is told as if it had answered, and of itself that it had not.
    if row.disposition == "ANSWERED" and row.answer is not None:
        found.answered.append(row)
        leg.dial_status = "ANSWER"
        leg.answer = leg.answer or row.answer
        leg.talk += (row.end - row.answer).total_seconds()


def _new_leg(row: CdrRow, channel: str, rules: CallRules) -> _Leg:
    endpoint = _endpoint(channel)
    is_trunk = rules.is_trunk(endpoint)
    number: str | None
    if channel == row.channel:
        number = extension_of(endpoint) or row.src or None
    elif is_trunk:
        number = _dialled_there(row.lastdata, endpoint) or row.dst or None
    else:
        number = extension_of(endpoint)
    return _Leg(name=channel, endpoint=endpoint, number=number, start=row.start, end=row.end, is_trunk=is_trunk)


def _dialled_there(data: str, endpoint: str) -> str | None:
    """The number that Dial's arguments name for a trunk."""
    for destination in data.partition(",")[0].split("&"):
        if dialled_endpoints(destination) == [endpoint]:
            return dialled_number(destination.strip().partition("/")[2])
    return None


@lru_cache(maxsize=4096)
def _endpoint(channel: str) -> str:
    return endpoint_of(channel)


def _is_party(channel: str) -> bool:
    return bool(channel) and not channel.startswith("Local/")


# How it went


def _outcome(rows: Sequence[CdrRow], found: _Found, rules: CallRules) -> dict[str, Any]:
    """The columns of how it went."""
    talked = [row for row in found.answered if not _was_picked_up_elsewhere(row, rows)]
    own = found.caller.answer
    told: dict[str, Any] = {
        "pbx_answer_time": own, "answer_time": None, "answered_by": None, "last_answered_by": None,
        "talk_seconds": 0.0, "ring_seconds": 0.0, "transferred": False, "conference": None,
    }  # fmt: skip
    service = found.service
    if talked and (service is None or talked[0].start <= service.start):
        outcome = ANSWERED
        told |= _talk(talked, found, rules)
    elif service is not None:
        outcome = ANSWERED
        told |= _of_service(service)
    elif (phone := _rung_by_the_pbx(rows, found, rules)) is not None:
        outcome = ANSWERED if own is not None else NO_ANSWER
        if own is not None:
            told |= {"pbx_answer_time": None, "answer_time": own, "answered_by": phone, "last_answered_by": phone}
            told["talk_seconds"] = round((max(map(_end_of, rows)) - own).total_seconds(), 6)
    elif found.voicemail is not None:
        outcome = VOICEMAIL
    else:
        outcome = _why_nobody(rows, found)
    if not talked and found.tried:
        told["ring_seconds"] = _together([(row.start, row.end) for row in found.tried])
    told["status"], told["disposition"] = outcome.status, outcome.disposition
    return told


def _talk(talked: Sequence[CdrRow], found: _Found, rules: CallRules) -> dict[str, Any]:
    first = talked[0]
    last = first if len(talked) == 1 else max(talked, key=lambda row: (row.end, row.start))
    legs = found.legs
    told: dict[str, Any] = {
        "answered_by": legs[first.dstchannel].number,
        "last_answered_by": legs[last.dstchannel].number,
        "talk_seconds": _together([(row.answer or row.start, row.end) for row in talked]),
        "transferred": not found.is_parked and _is_transferred(talked, found),
    }
    if _had_picked_up(first, found, rules):
        return told
    answer = first.answer or first.start
    told["answer_time"], told["ring_seconds"] = answer, round((answer - first.start).total_seconds(), 6)
    own = found.caller.answer
    if own is not None and own >= answer - _AT_ONCE:
        told["pbx_answer_time"] = None  # the caller's side was picked up because the other was
    return told


def _had_picked_up(row: CdrRow, found: _Found, rules: CallRules) -> bool:
    """Whether the PBX had picked up before, so that the CDR's answer is not the person's."""
    if row.channel.endswith(";2"):  # behind a Local channel the PBX is not the one that answers
        return False
    if row.lastapp.lower() == "queue" or row.dst in SPECIAL_EXTENSIONS or rules.is_answering(row.lastapp):
        return True
    if len(row.dst) == 1 and rules.is_trunk(_endpoint(row.channel)):  # a choice in a menu
        return True
    own = found.caller.answer
    return row.channel == found.caller.name and own is not None and own < row.start - _AT_ONCE


def _is_transferred(talked: Sequence[CdrRow], found: _Found) -> bool:
    """Whether somebody else came after one who had talked, as after a transfer; not if the call was parked."""
    if len(found.tried) == 1:
        return False
    for earlier in talked:
        for later in found.tried:
            if (
                later is not earlier
                and later.start >= earlier.end
                and _endpoint(later.dstchannel) != _endpoint(earlier.dstchannel)
                and later.dstchannel != earlier.channel
            ):
                return True
    return False


def _was_picked_up_elsewhere(row: CdrRow, rows: Sequence[CdrRow]) -> bool:
    return any(
        other.channel == row.dstchannel and other.disposition != "ANSWERED" and not other.dstchannel for other in rows
    )


def _of_service(row: CdrRow) -> dict[str, Any]:
    answer = row.answer or row.start
    told: dict[str, Any] = {"answer_time": answer, "answered_by": row.lastapp, "last_answered_by": row.lastapp}
    told |= {"pbx_answer_time": None, "talk_seconds": round((row.end - answer).total_seconds(), 6)}
    if row.lastapp.lower() in _CONFERENCES:
        told["conference"] = row.lastdata.partition(",")[0] or None
    return told


def _rung_by_the_pbx(rows: Sequence[CdrRow], found: _Found, rules: CallRules) -> str | None:
    """The phone, if the PBX called it and connected it with nobody (a wake-up call)."""
    first = rows[0]
    is_phone = _is_party(first.channel) and not found.caller.is_trunk
    is_alone = len(rows) == 1 and not first.dstchannel and first.dst in SPECIAL_EXTENSIONS
    return found.caller.number if is_phone and is_alone else None


def _why_nobody(rows: Sequence[CdrRow], found: _Found) -> Outcome:
    """By what the dialplan did last."""
    mine = [row for row in rows if row.channel == found.caller.name] or rows
    final = mine[0] if len(mine) == 1 else max(mine, key=lambda row: (row.end, _when(row)))
    application = final.lastapp.lower()
    pairs = [row for row in rows if _is_party(row.dstchannel)]
    if not final.dstchannel and application in _TONES:
        return _TONES[application]
    if not pairs:
        return _without_anybody(final, application)
    went_on = not final.dstchannel
    if went_on and application not in _ENDINGS and application not in {"dial", "queue"}:
        return CANCELLED  # while it heard something
    return _of_attempts(pairs, went_on=went_on)


def _of_attempts(pairs: Sequence[CdrRow], *, went_on: bool) -> Outcome:
    """By the last attempt, how long it was allowed to ring, and whether the dialplan went on after it."""
    last = pairs[0] if len(pairs) == 1 else max(pairs, key=_when)
    attempt = [row for row in pairs if (row.lastapp, row.lastdata) == (last.lastapp, last.lastdata)]
    limit = _limit(last)
    waited = max(map(_end_of, attempt)) - attempt[0].start
    rang_out = limit is not None and waited + _SOON / 2 >= limit
    kinds = {row.disposition for row in attempt}
    if last.lastapp.lower() == "queue":
        outcome = NO_ANSWER if rang_out or went_on else CANCELLED
    elif rang_out or ("NO ANSWER" in kinds and went_on and limit is None):
        outcome = NO_ANSWER
    elif "CANCEL" in kinds or ("NO ANSWER" in kinds and not went_on):
        outcome = CANCELLED
    elif "BUSY" in kinds:
        outcome = BUSY
    else:
        # The dialplan went on before the time was over, so every phone refused.
        outcome = CONGESTION if "CONGESTION" in kinds else FAILED
    return outcome


def _without_anybody(final: CdrRow, application: str) -> Outcome:
    """Nobody was rung."""
    if final.disposition == "BUSY":
        return BUSY
    if final.disposition == "CONGESTION":
        return CONGESTION
    if final.disposition == "FAILED" or application == "dial":
        return FAILED
    if application == "queue":
        limit = _limit(final)
        return NO_ANSWER if limit is not None and final.end - final.start + _SOON / 2 >= limit else CANCELLED
    return NO_ANSWER if application in _ENDINGS or application in _OF_DIALLED else CANCELLED


def _limit(row: CdrRow) -> timedelta | None:
    """How long it may ring, by the arguments of Dial and Queue."""
    position = {"dial": 1, "queue": 4}.get(row.lastapp.lower())
    if position is None:
        return None
    arguments = row.lastdata.split(",")
    if len(arguments) <= position:
        return None
    digits = arguments[position].partition(".")[0]
    return timedelta(seconds=int(digits)) if digits.isdecimal() and len(digits) < 7 else None


def _together(spans: Sequence[tuple[datetime, datetime]]) -> float:
    """Seconds that at least one of the spans covers."""
    if len(spans) == 1:
        return round(max(0.0, (spans[0][1] - spans[0][0]).total_seconds()), 6)
    total, until = 0.0, None
    for start, end in sorted(spans):
        begin = start if until is None or start > until else until
        if end > begin:
            total += (end - begin).total_seconds()
            until = end
    return round(total, 6)


def _queue(rows: Sequence[CdrRow]) -> str | None:
    for row in reversed(rows):
        if row.lastapp == "Queue":
            return queue_name(row.lastdata)
    return None


def _recording(rows: Sequence[CdrRow]) -> str | None:
    for row in reversed(rows):
        if row.recordingfile:
            return row.recordingfile
        if row.userfield.startswith("audio:"):
            return row.userfield.removeprefix("audio:") or None
    return None


def _timeline(rows: Sequence[CdrRow], row: dict[str, Any]) -> list[dict[str, Any]]:
    """The little that CDRs tell, and times that were guessed as they stand in the file."""
    entries = [_entry(row["start_time"], "began", who=row["caller_id"], to=row["callee_id"])]
    if row["answer_time"] is not None:
        entries.append(_entry(row["answer_time"], "answered", who=row["answered_by"]))
    entries += [_entry(one.start, "clock_guessed", text=one.guessed) for one in rows if one.guessed]
    return entries


def _entry(at: datetime, event: str, **told: str | None) -> dict[str, Any]:
    entry: dict[str, Any] = {"at": _text_of(at), "event": event}
    for name, value in told.items():
        if value is not None:
            entry[name] = value
    return entry
