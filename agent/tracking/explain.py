"""Why a call is told as it is: what the PBX said of it, what came of each word, and which rules decided."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Final

from agent.calls.live_call import LiveCall
from agent.calls.tenancy import Assignment
from agent.tracking.derive import Derivation, DerivedCall, channels_of
from config.settings import TenancySettings
from sync.models import Direction

MAX_STEPS: Final = 5000


@dataclass(frozen=True, slots=True)
class Step:
    """One frame about the call that led to something."""

    at: datetime
    frame: bytes
    entries: tuple[dict[str, Any], ...] = ()  # Any: timeline entries
    taken_back: tuple[dict[str, Any], ...] = ()  # entries that this word showed to be none
    direction: Direction | None = None  # if it is another one from here on
    assignment: Assignment | None = None


@dataclass(slots=True)
class Explanation:
    """A call, and how it came to be what it is."""

    call: LiveCall
    steps: list[Step] = field(default_factory=list)
    silent_frames: int = 0  # about the call, without any effect that is told
    derived: DerivedCall | None = None  # None: it still goes on

    def rules(self, tenancy: TenancySettings) -> dict[str, str]:
        """Which rules decided, in words, by what they decided."""
        told = {"direction": direction_words(self.call), "tenant": tenant_words(self.call, tenancy)}
        services = service_words(self.call)
        if services:
            told["service"] = services
        told["outcome"] = outcome_words(self.call, is_live=self.derived is None)
        return told


def explain(heard: Iterable[tuple[bytes, datetime]], derivation: Derivation, call_sid: str) -> Explanation | None:
    """Hear it again up to the call's end; None if the call is not in it."""
    listener = _Listener(call_sid)
    for frame, at in heard:
        event = derivation.hear(frame, at)
        listener.look(derivation, frame, at, frozenset(channels_of(event)) if event is not None else frozenset())
        ended = next((call for call in derivation.take_ended() if call.call_sid == call_sid), None)
        if ended is not None and listener.explanation is not None:
            listener.explanation.derived = ended
            break
    return listener.explanation


class _Listener:
    """Notes what each frame changes in one call."""

    def __init__(self, call_sid: str) -> None:
        self._call_sid = call_sid
        self._entries: list[dict[str, Any]] = []
        self._direction: Direction | None = None
        self._assignment = Assignment()
        self.explanation: Explanation | None = None

    def look(self, derivation: Derivation, frame: bytes, at: datetime, channels: frozenset[str]) -> None:
        if self.explanation is None:
            opened = derivation.model.take_opened()
            found = next((call for call in opened if call.call_sid == self._call_sid), None)
            if found is None:
                return
            self.explanation = Explanation(found)
        call = self.explanation.call
        is_about = not channels.isdisjoint(call.legs)
        new, gone = self._changes(call)
        if not (is_about or new or gone):
            return
        direction, assignment = call.direction(), call.assignment
        step = Step(
            at,
            frame,
            entries=new,
            taken_back=gone,
            direction=direction if direction != self._direction else None,
            assignment=assignment if assignment != self._assignment else None,
        )
        if (new or gone or step.direction or step.assignment) and len(self.explanation.steps) < MAX_STEPS:
            self.explanation.steps.append(step)
        else:
            self.explanation.silent_frames += 1
        self._direction, self._assignment = direction, assignment

    def _changes(self, call: LiveCall) -> tuple[tuple[dict[str, Any], ...], tuple[dict[str, Any], ...]]:
        """Entries that came, and those that went; they are told apart by identity, since two may say the same."""
        if len(call.timeline) == len(self._entries) and (not self._entries or call.timeline[-1] is self._entries[-1]):
            return (), ()
        before, after = {id(entry) for entry in self._entries}, {id(entry) for entry in call.timeline}
        new = tuple(entry for entry in call.timeline if id(entry) not in before)
        gone = tuple(entry for entry in self._entries if id(entry) not in after)
        self._entries = list(call.timeline)
        return new, gone


# The rules in words


def direction_words(call: LiveCall) -> str:
    """Why the call has its direction."""
    rules, caller, direction = call.rules, call.caller, call.direction()
    if direction is Direction.INBOUND and caller is not None:
        if rules.is_trunk(caller.endpoint):
            return f"inbound: it began on {caller.endpoint}, a trunk by {_fitting(rules.trunks, caller.endpoint)}"
        pattern = _fitting(rules.inbound_contexts, caller.context)
        return f"inbound: it began in the context {caller.context}, an inbound one by {pattern}"
    if direction is Direction.OUTBOUND:
        trunks = [leg.endpoint for leg in call.legs.values() if leg.dialled and rules.is_trunk(leg.endpoint)]
        if trunks:
            return f"outbound: {trunks[0]} was dialled, a trunk by {_fitting(rules.trunks, trunks[0])}"
        return "outbound: the dialplan dialled a trunk, though no channel came of it"
    began = (
        f"it began on {caller.endpoint} in the context {caller.context or '(none)'}" if caller else "(beginning unseen)"
    )
    return f"internal: {began}, no trunk and no inbound context by the settings, and no trunk was dialled"


def tenant_words(call: LiveCall, tenancy: TenancySettings) -> str:
    """Whose call it is, and why."""
    tenant, number = call.assignment.tenant, call.assignment.rule
    if tenant is None:
        return "nobody's: no rule fits and there is no tenancy.default"
    if number is None:
        return f"{tenant}: by tenancy.default, since no rule fits"
    conditions = ""
    if number < len(tenancy.rules):
        told = {
            name: value for name, value in dict(tenancy.rules[number]).items() if name != "tenant" and value is not None
        }
        conditions = f" ({', '.join(f'{name} {_value(value)}' for name, value in told.items())})"
    return f"{tenant}: rule {number + 1}{conditions} is the first that fits"


def service_words(call: LiveCall) -> str:
    """Which applications answered in a person's stead or took a message."""
    told = []
    for entry in call.timeline:
        application = str(entry.get("application", ""))
        if entry["event"] != "service" or not application:
            continue
        kind = "voicemail_applications" if call.rules.is_voicemail(application) else "answering_applications"
        told.append(f"{application} is one of {kind}")
    return "; ".join(dict.fromkeys(told))


def outcome_words(call: LiveCall, *, is_live: bool) -> str:
    """How the call ended, and why it is told so."""
    if is_live:
        return f"in_progress: it still goes on ({call.state()})"
    decision = call.decision()
    words = " / ".join(word for word in (decision.outcome.status, decision.outcome.disposition) if word)
    return f"{words}: {decision.because}"


def _fitting(patterns: Iterable[str], text: str) -> str:
    return next((f'the pattern "{pattern}"' for pattern in patterns if fnmatchcase(text, pattern)), "the settings")


def _value(value: object) -> str:
    return " to ".join(map(str, value)) if isinstance(value, tuple) else str(value)
