"""`edge-agent calls explain`: why a call is told as it is."""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.cli.call_text import timeline_lines
from agent.cli.local import LocalCalls, NoSuchCall, literally
from agent.cli.output import counted, moment, printable, table
from agent.daemon import interpreters_of, rules_of
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.feed import LINE_LOST
from agent.store import amend
from agent.store.amend import Amended, Retold
from agent.store.history import Span, read_part, span, timed
from agent.store.moments import moment_of
from agent.tracking.derive import Derivation
from agent.tracking.explain import Explanation, Step, explain
from agent.tracking.stretch import first_segment

if TYPE_CHECKING:
    from agent.cli.local import Row
    from config.settings import Settings

_LIVE: Final = "SELECT call_sid, pbx, journal_id, start_time FROM live_call WHERE call_sid LIKE ? ESCAPE '\\' LIMIT 6"


class Explained:
    """What is known of one call and why."""

    def __init__(self, calls: LocalCalls, settings: "Settings", sid: str) -> None:
        self.tenancy = settings.tenancy
        self.stored: Row | None = None
        self.explanation: Explanation | None = None
        self.difference: Amended | None = None  # between what is stored and what the journal tells
        connection = calls.connection
        self.call_sid, pbx, begun = self._find(calls, sid)
        self.held: Span | None = span(connection, pbx)
        if self.held is not None:
            interpreter = partial(interpreters_of(settings), pbx)
            first = first_segment(connection, pbx, begun, interpreter=interpreter)
            # With a clock that was set back meanwhile, the call may stand where nobody would look for it.
            for begin in dict.fromkeys((first, self.held.first_id)):
                derivation = Derivation(
                    site=settings.site,
                    pbx=pbx,
                    rules=rules_of(settings).get(pbx, CallRules()),
                    assign=partial(assign, settings.tenancy),
                    interpreter=interpreter(),
                )
                heard = _heard(connection, derivation, begin, self.held.last_id)
                self.explanation = explain(heard, derivation, self.call_sid)
                if self.explanation is not None:
                    break
        self._compare(connection)

    @property
    def why_not(self) -> str:
        """Why the journal does not tell the call wholly; empty if it does."""
        if self.held is None:
            return "the journal holds nothing of this PBX"
        begins = f"the journal begins at {moment(self.held.first_at)}"
        if self.explanation is None:
            return f"the journal no longer holds this call ({begins})"
        derived = self.explanation.derived
        if derived is not None and not derived.is_whole:
            return f"the journal does not hold all of this call ({begins})"
        return ""

    def as_dict(self, *, frames: bool) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        told: dict[str, Any] = {
            "call_sid": self.call_sid,
            "state": "ended" if self.stored is not None else "live",
            "in_journal": self.explanation is not None,
            "incomplete": self.why_not or None,
            "rules": {},
            "steps": [],
            "silent_frames": 0,
            "timeline": self.stored["timeline"] if self.stored is not None else [],
            "differs": None,
        }
        if self.explanation is not None:
            told["rules"] = self.explanation.rules(self.tenancy)
            told["steps"] = [_step_dict(step, frames=frames) for step in self.explanation.steps]
            told["silent_frames"] = self.explanation.silent_frames
            told["timeline"] = self.explanation.call.timeline
        if self.difference is not None:
            told["differs"] = self.difference.as_dict()["fields"]
        return told

    def lines(self, *, frames: bool) -> Iterator[str]:
        """For people."""
        yield printable(self.call_sid)
        if self.explanation is None:
            yield f"  {self.why_not}; the record's own timeline tells:"
            if self.stored is not None and self.stored["timeline"]:
                yield ""
                yield from timeline_lines(self.stored)
            return
        for name, text in self.explanation.rules(self.tenancy).items():
            yield f"  {name:<12}{printable(text)}"
        yield ""
        start = self.explanation.call.started_at
        if frames:
            yield from _raw_lines(self.explanation.steps, start)
        else:
            rows = [_step_cells(step, start) for step in self.explanation.steps]
            yield from table(("AFTER", "EVENT", "CHANNEL", "LED TO"), rows)
        yield ""
        yield f"{counted(self.explanation.silent_frames, 'other message')} about it changed nothing that is told."
        yield from self._closing_lines()

    def _closing_lines(self) -> Iterator[str]:
        if self.why_not:
            yield f"{self.why_not[0].upper()}{self.why_not[1:]}: what is above may be wrong."
        if self.difference is None or self.stored is None:
            return
        if self.difference.is_changed:
            yield (
                f"The stored record differs from this in {', '.join(self.difference.changes)}; edge-agent calls "
                f"rebuild --since '{self.stored['start_time'].astimezone():%Y-%m-%d %H:%M}' mends it."
            )
        if self.difference.tenant_kept is not None:
            yield (
                f"It keeps its tenant {self.difference.tenant}, although the rules now name "
                f"{self.difference.tenant_kept}: the centre may have it under that name."
            )

    def _find(self, calls: LocalCalls, sid: str) -> tuple[str, str, datetime]:
        """The call's id, its PBX and when it began; of an ended call or of a live one."""
        try:
            self.stored = calls.find(sid)
        except NoSuchCall:
            live = calls.connection.execute(_LIVE, (f"%{literally(sid)}",)).fetchall()
            live = [row for row in live if row[0] == sid] or live
            if len(live) != 1:
                raise
            return live[0][0], live[0][1], moment_of(live[0][3])
        return self.stored["call_sid"], self.stored["pbx"], self.stored["start_time"]

    def _compare(self, connection: sqlite3.Connection) -> None:
        derived = self.explanation.derived if self.explanation is not None else None
        if derived is None or not derived.is_whole:
            return
        call = derived.call
        retold = Retold(call.to_row(), call.assignment.tenant, noise=derived.noise)
        found = amend.compare([retold], connection=connection)
        self.difference = found[0] if found and found[0].left is None else None


def _heard(
    connection: sqlite3.Connection, derivation: Derivation, first: int, last: int
) -> Iterator[tuple[bytes, datetime]]:
    while first <= last:
        part = read_part(connection, derivation.pbx, first=first, last=last)
        if part.damaged:
            derivation.miss()
        for segment in part.segments:
            for frame, at in timed(segment):
                yield frame.data, at
        first = part.next_id


def _about(step: Step) -> tuple[str, str]:
    """What a frame is called, and the channel it names."""
    if step.frame.startswith(b"\0"):
        return ("line lost" if step.frame == LINE_LOST else "list of channels"), ""
    message = AmiMessage(step.frame)
    return message.name, message.get("channel") or message.get("destchannel")


def _text(frame: bytes) -> str:
    return frame.decode("utf-8", "replace")


def _led_to(step: Step) -> Iterator[str]:
    for entry in step.entries:
        facts = ", ".join(f"{name} {value}" for name, value in entry.items() if name not in {"at", "event"})
        yield f"{str(entry['event']).replace('_', ' ')}{f' ({facts})' if facts else ''}"
    for entry in step.taken_back:
        yield f"no “{str(entry['event']).replace('_', ' ')}” after all"
    if step.direction is not None:
        yield f"direction {step.direction}"
    if step.assignment is not None:
        by = f", rule {step.assignment.rule + 1}" if step.assignment.rule is not None else ""
        yield f"tenant {step.assignment.tenant or '(none)'}{by}"


def _step_cells(step: Step, start: datetime) -> tuple[str, str, str, str]:
    return (f"{(step.at - start).total_seconds():+.3f} s", *_about(step), "; ".join(_led_to(step)))


def _raw_lines(steps: list[Step], start: datetime) -> Iterator[str]:
    for step in steps:
        after, event, channel, led_to = _step_cells(step, start)
        yield printable(f"{after}  {event} {channel} led to: {led_to}")
        if not step.frame.startswith(b"\0"):
            yield from (f"    {printable(line)}" for line in _text(step.frame).split("\r\n"))


def _step_dict(step: Step, *, frames: bool) -> dict[str, Any]:  # Any: JSON
    event, channel = _about(step)
    told: dict[str, Any] = {
        "at": step.at,
        "event": event,
        "channel": channel or None,
        "timeline": list(step.entries),
        "taken_back": list(step.taken_back),
        "direction": step.direction,
        "tenant": step.assignment.tenant if step.assignment else None,
        "tenant_rule": None if step.assignment is None or step.assignment.rule is None else step.assignment.rule + 1,
    }
    if frames:
        told["frame"] = _text(step.frame).lstrip("\0")
    return told
