"""Lines of Asterisk's queue_log, `epoch|callid|queue|agent|event|…`, as values. No I/O.

The time is in whole seconds since 1970, whatever zone the PBX is in. `callid` is the id of the channel that waits, and
another one once an attended transfer put another channel into its place. What is not told is NONE or left empty.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from agent.pbx.text import decoded

MAX_LINE_BYTES: Final = 8192  # Asterisk's own buffer
MAX_TEXT: Final = 256  # of a queue, an agent, an id or a number; Asterisk's own have 80
_MAX_FIELDS: Final = 64
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY: Final = frozenset({"", "NONE", "REALTIME"})


class QueueLogFault(ValueError):
    """A line is none of a queue log; the text says why."""


class QueueEvent(StrEnum):
    """What is told of a caller; members that come, go and pause, and what a dialplan writes itself, is passed over."""

    ENTERQUEUE = "ENTERQUEUE"
    CONNECT = "CONNECT"
    COMPLETEAGENT = "COMPLETEAGENT"
    COMPLETECALLER = "COMPLETECALLER"
    ABANDON = "ABANDON"
    EXITEMPTY = "EXITEMPTY"
    EXITWITHKEY = "EXITWITHKEY"
    EXITWITHTIMEOUT = "EXITWITHTIMEOUT"
    WITHDRAW = "WITHDRAW"
    RINGNOANSWER = "RINGNOANSWER"
    RINGCANCELED = "RINGCANCELED"
    BLINDTRANSFER = "BLINDTRANSFER"
    ATTENDEDTRANSFER = "ATTENDEDTRANSFER"
    TRANSFER = "TRANSFER"  # Asterisk 11 and older
    AGENTDUMP = "AGENTDUMP"
    SYSCOMPAT = "SYSCOMPAT"
    QUEUESTART = "QUEUESTART"  # Asterisk started: nobody waits any more


_OF_NOBODY: Final = frozenset({QueueEvent.QUEUESTART})
_EVENTS: Final = frozenset(QueueEvent)
_Place = tuple[int, Callable[[str], object]]  # among what stands behind an event, and what reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLine:
    """One line; what it does not tell is None."""

    at: datetime
    event: QueueEvent
    call_id: str = ""
    queue: str = ""
    agent: str | None = None  # the member's name, which is its interface where it has no other
    number: str | None = None  # the caller's
    position: int | None = None  # the place given on entering
    wait: timedelta | None = None  # from entering to being connected or leaving
    talk: timedelta | None = None
    ring: timedelta | None = None  # how long this agent was rung
    channel: str | None = None  # the id of the agent's
    to: str | None = None  # where a transfer leads
    context: str | None = None


def read_line(raw: bytes, encoding: str) -> QueueLine | None:
    """What one line tells, None if it is of no caller. Raises QueueLogFault."""
    if len(raw) > MAX_LINE_BYTES:
        raise QueueLogFault(f"it is longer than {MAX_LINE_BYTES} bytes")
    line = decoded(raw, encoding).strip("\r\n")
    if not line:
        return None
    fields = line.split("|", _MAX_FIELDS)
    if len(fields) < 5:
        raise QueueLogFault("it has less than 5 parts; a queue log has epoch|callid|queue|agent|event|…")
    epoch, call_id, queue, agent, name, *data = fields
    at = _moment(epoch)
    if name not in _EVENTS:
        return None
    event = QueueEvent(name)
    for what, text in (("callid", call_id), ("queue", queue), ("agent", agent)):
        if len(text) > MAX_TEXT:
            raise QueueLogFault(f"its {what} is longer than {MAX_TEXT} letters")
    if event in _OF_NOBODY:
        return QueueLine(at=at, event=event)
    if call_id in _NOBODY or queue in _NOBODY:
        raise QueueLogFault(f"{event} without the id of a channel or the name of a queue")
    told = {name: reader(_at(data, place)) for name, (place, reader) in _places(event, data).items()}
    known = {"at": at, "event": event, "call_id": call_id, "queue": queue, "agent": _text(agent)}
    return QueueLine(**known, **told)  # type: ignore[arg-type] # of many types, each of its own field


def _places(event: QueueEvent, data: list[str]) -> dict[str, _Place]:
    if event is QueueEvent.ENTERQUEUE and len(data) < 3:
        return _WITHOUT_POSITION
    return _TOLD.get(event, {})


def _moment(epoch: str) -> datetime:
    seconds, _, fraction = epoch.partition(".")
    if not (9 <= len(seconds) <= 11 and seconds.isascii() and seconds.isdecimal()):
        raise QueueLogFault(f"{epoch[:40]!r} is no time in seconds since 1970")
    if fraction and not (len(fraction) <= 9 and fraction.isascii() and fraction.isdecimal()):
        raise QueueLogFault(f"{epoch[:40]!r} is no time in seconds since 1970")
    return _LONG_AGO + timedelta(seconds=int(seconds), microseconds=int(fraction[:6].ljust(6, "0")) if fraction else 0)


def _at(data: list[str], place: int) -> str:
    """What older versions do not tell is empty."""
    return data[place] if -len(data) <= place < len(data) else ""


def _text(told: str) -> str | None:
    if len(told) > MAX_TEXT:
        raise QueueLogFault(f"{told[:40]!r} … is longer than {MAX_TEXT} letters")
    return None if told in _NOBODY else told


def _count(told: str) -> int | None:
    if not told:
        return None
    digits = told.removeprefix("-")
    if not (len(digits) <= 9 and digits.isascii() and digits.isdecimal()):
        raise QueueLogFault(f"{told[:40]!r} is no number")
    return max(0, int(told))  # a clock that was set back while somebody waited makes times negative


def _seconds(told: str) -> timedelta | None:
    count = _count(told)
    return timedelta(seconds=count) if count is not None else None


def _milliseconds(told: str) -> timedelta | None:
    count = _count(told)
    return timedelta(milliseconds=count) if count is not None else None


_LEAVING: Final[dict[str, _Place]] = {"position": (1, _count), "wait": (2, _seconds)}
_TALK: Final[dict[str, _Place]] = {"wait": (0, _seconds), "talk": (1, _seconds), "position": (2, _count)}
_HANDED_ON: Final[dict[str, _Place]] = {
    "to": (0, _text), "context": (1, _text), "wait": (2, _seconds), "talk": (3, _seconds), "position": (4, _count),
}  # fmt: skip
# What stands where behind an event; negative: counted from the end, since before it stands what may hold anything.
_TOLD: Final[dict[QueueEvent, dict[str, _Place]]] = {
    QueueEvent.ENTERQUEUE: {"number": (-2, _text), "position": (-1, _count)},  # behind a URL
    QueueEvent.CONNECT: {"wait": (0, _seconds), "channel": (1, _text), "ring": (2, _seconds)},
    QueueEvent.COMPLETEAGENT: _TALK,
    QueueEvent.COMPLETECALLER: _TALK,
    QueueEvent.ABANDON: _LEAVING,
    QueueEvent.EXITEMPTY: _LEAVING,
    QueueEvent.EXITWITHTIMEOUT: _LEAVING,
    QueueEvent.WITHDRAW: _LEAVING,
    QueueEvent.EXITWITHKEY: {"position": (2, _count), "wait": (3, _seconds)},
    QueueEvent.RINGNOANSWER: {"ring": (0, _milliseconds)},
    QueueEvent.RINGCANCELED: {"ring": (0, _milliseconds)},
    QueueEvent.BLINDTRANSFER: _HANDED_ON,
    QueueEvent.TRANSFER: _HANDED_ON,
    QueueEvent.ATTENDEDTRANSFER: {"wait": (-3, _seconds), "talk": (-2, _seconds), "position": (-1, _count)},
}
_WITHOUT_POSITION: Final[dict[str, _Place]] = {"number": (1, _text)}  # Asterisk 1.4
