"""What truly happened in one call, as a scenario knows it from what people did; and how it differs from what was told.

The words are those of docs/call-record.md. Nothing here knows the product's code: what it told is handed in as plain
values, from its database or from its call model.

A timeline is a sequence of steps. A step is a set of sentences whose order nobody can know, like
`{"joined 1011", "joined 05321111011"}`: the event, who it is about (`-`: nobody in particular), and further facts
(`to=1012`) that must be so. A sentence behind `?` may be told or not, where the words of the record leave it open.
Only MAIN_EVENTS are compared; that something was dialled or rang is seen in the legs.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from typing import Any

TOLERANCE_SECONDS = 0.15
MAIN_EVENTS = frozenset(
    {"answered", "joined", "left", "held", "unheld", "queued", "left_queue", "transferred", "forwarded"}
    | {"parked", "retrieved", "park_timeout", "picked_up", "conference", "merged", "hangup"}
)
Step = frozenset[str] | set[str] | str


@dataclass(slots=True, kw_only=True)
class LegTruth:
    """One party's part. None means: not compared, because it is nothing that people see."""

    number: str | None
    dial_status: str | None = None
    """How the attempt to reach it ended; "" for a leg that nobody dialled."""
    rung: bool | None = None
    answered: bool | None
    talk: float | None = 0.0
    hold: float | None = 0.0
    cause: int | None = None


@dataclass(slots=True, kw_only=True)
class CallTruth:
    """One call, every column of docs/call-record.md but ids, in its words."""

    name: str
    """The scenario's own name for it, unique among its calls."""
    direction: str
    caller_id: str | None
    caller_name: str | None
    caller_presentation: str = "allowed"
    callee_id: str | None
    answered_by: str | None = None
    last_answered_by: str | None = None
    status: str
    disposition: str | None
    start: datetime
    pbx_answer: datetime | None = None
    answer: datetime | None = None
    end: datetime
    ring: float = 0.0
    talk: float = 0.0
    hold: float = 0.0
    hangup_cause: int | None = None
    """None: not certain enough to be compared."""
    hangup_source: str | None
    """None: nobody hung up, the call went on in another."""
    queue: str | None = None
    queue_position: int | None = None
    queue_wait: float = 0.0
    conference: str | None = None
    transferred: bool = False
    merged_into: str | None = None
    """The name of another call of the scenario."""
    start_estimated: bool = False
    end_estimated: bool = False
    legs: list[LegTruth] = field(default_factory=list)
    legs_at_once: bool = False
    """Several were called at once: nobody can know which of them the PBX begins with."""
    timeline: list[Step] = field(default_factory=list)
    slack: dict[str, float] = field(default_factory=dict)
    """Moment or length (of the call and its legs) to a tolerance of its own in seconds; say why beside it."""
    open: frozenset[str] = frozenset()
    """Columns of which docs/call-record.md does not say enough to know the truth; they are not compared."""

    @property
    def caller_e164(self) -> str | None:
        return public_number(self.caller_id)

    @property
    def callee_e164(self) -> str | None:
        return public_number(self.callee_id)

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        told = asdict(self)
        told["timeline"] = [[step] if isinstance(step, str) else sorted(step) for step in self.timeline]
        told["open"] = sorted(self.open)
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in told.items()}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "CallTruth":  # Any: JSON
        values = dict(told)
        for name in ("start", "pbx_answer", "answer", "end"):
            values[name] = datetime.fromisoformat(values[name]) if values[name] else None
        values["legs"] = [LegTruth(**leg) for leg in values["legs"]]
        values["open"] = frozenset(values["open"])
        values["timeline"] = [frozenset(step) for step in values["timeline"]]
        return cls(**values)


def public_number(number: str | None) -> str | None:
    """A number of the stage in E.164: in Turkey, written as people dial it there or with the country's code."""
    if number is None or not number.removeprefix("+").isdecimal():
        return None
    if number.startswith("0532"):
        return f"+90{number[1:]}"
    return f"+{number.removeprefix('+')}" if number.removeprefix("+").startswith("90216") else None


def seconds(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds()


def dump_truths(truths: Iterable[CallTruth]) -> str:
    return json.dumps([truth.to_json() for truth in truths], ensure_ascii=False, indent=2) + "\n"


def load_truths(text: str) -> list[CallTruth]:
    return [CallTruth.from_json(told) for told in json.loads(text)]


Told = Mapping[str, Any]
"""A call as the product told it: columns by their names, moments aware; Any: values of columns."""


def differences(
    truths: Sequence[CallTruth],
    told: Sequence[Told],
    *,
    slowest: Callable[[datetime, datetime], float] = lambda _begin, _end: 0.0,
) -> list[str]:
    """A line for everything in which the calls that were told differ from those that were.

    `slowest` says how late the exchange was, in seconds, at the time of a call; its moments are no better known.
    """
    pairs, lines = _paired(truths, told)
    sids = {truth.name: call["call_sid"] for truth, call in pairs}
    for truth, call in pairs:
        tolerances = _Tolerances(truth.slack, slowest(truth.start, truth.end))
        lines += [f"{truth.name}: {line}" for line in _of_call(truth, call, sids, tolerances)]
    return lines


@dataclass(frozen=True, slots=True)
class _Tolerances:
    slack: Mapping[str, float]
    late: float

    def of(self, name: str) -> float:
        return self.slack.get(name, TOLERANCE_SECONDS) + self.late


def _paired(truths: Sequence[CallTruth], told: Sequence[Told]) -> tuple[list[tuple[CallTruth, Told]], list[str]]:
    """Each truth with the call that is most like it of those left: by its numbers, then by when it began."""
    left, pairs, lines = list(told), [], []
    for truth in truths:
        if not left:
            lines.append(f"{truth.name}: no such call was told ({truth.caller_id} to {truth.callee_id})")
            continue
        likest = min(left, key=lambda call: _unlikeness(truth, call))
        left.remove(likest)
        pairs.append((truth, likest))
    lines += [
        f"a call that nobody made was told: {call['caller_id']} to {call['callee_id']}, {call['status']}"
        for call in left
    ]
    return pairs, lines


def _unlikeness(truth: CallTruth, told: Told) -> tuple[int, float]:
    numbers = (truth.caller_id != told["caller_id"]) + (truth.callee_id != told["callee_id"])
    return numbers, abs((told["start_time"] - truth.start).total_seconds())


def _of_call(truth: CallTruth, told: Told, sids: Mapping[str, str], tolerances: _Tolerances) -> Iterator[str]:
    merged = sids.get(truth.merged_into, "?") if truth.merged_into else None
    yield from _unlike("merged_into", merged, told.get("merged_into"))
    for name in sorted(_PLAIN - truth.open):
        yield from _unlike(name, getattr(truth, name), told.get(name))
    if truth.hangup_cause is not None:
        yield from _unlike("hangup_cause", truth.hangup_cause, told.get("hangup_cause"))
    for name in sorted(_MOMENTS - truth.open):
        yield from _moment(name, truth, told.get(f"{name}_time"), tolerances)
    for name in sorted(_LENGTHS - truth.open):
        yield from _length(name, getattr(truth, name), told.get(f"{name}_seconds"), tolerances)
    yield from _length("total", (truth.end - truth.start).total_seconds(), told.get("total_seconds"), tolerances)
    yield from _legs(truth, told["legs"], tolerances)
    yield from _timeline(truth.timeline, told["timeline"])


_MOMENTS = frozenset({"start", "pbx_answer", "answer", "end"})
_LENGTHS = frozenset({"ring", "talk", "hold", "queue_wait"})
_OF_THE_TRUTH_ALONE = frozenset({"name", "legs_at_once", "slack", "open"})
_SPECIAL = _MOMENTS | _LENGTHS | _OF_THE_TRUTH_ALONE | {"hangup_cause", "merged_into", "legs", "timeline"}
_PLAIN = {f.name for f in fields(CallTruth)} - _SPECIAL | {"caller_e164", "callee_e164"}


def _unlike(name: str, true: object, told: object) -> Iterator[str]:
    if true != told:
        yield f"{name} is {true!r}, told {told!r}"


def _moment(name: str, truth: CallTruth, told: datetime | None, tolerances: _Tolerances) -> Iterator[str]:
    true: datetime | None = getattr(truth, name)
    if (true is None) != (told is None):
        yield f"{name}_time is {_clock(true)}, told {_clock(told)}"
    elif true is not None and told is not None:
        off = (told - true).total_seconds()
        if abs(off) > tolerances.of(name):
            yield f"{name}_time is {_clock(true)}, told {_clock(told)}, {off:+.3f} s"


def _clock(moment: datetime | None) -> str:
    return moment.strftime("%H:%M:%S.%f")[:-3] if moment else "nothing"


def _length(name: str, true: float | None, told: float | None, tolerances: _Tolerances) -> Iterator[str]:
    if true is None or told is None:
        if true is not told:
            yield f"{name}_seconds is {true}, told {told}"
    # The two ends of a length are each as uncertain as a moment.
    elif abs(told - true) > tolerances.of(name):
        yield f"{name}_seconds is {true:.3f}, told {told:.3f}"


def _legs(truth: CallTruth, told: Sequence[Mapping[str, Any]], tolerances: _Tolerances) -> Iterator[str]:
    numbers, theirs = [leg.number for leg in truth.legs], [leg.get("number") for leg in told]
    if truth.legs_at_once and Counter(numbers) == Counter(theirs):
        told = sorted(told, key=lambda leg: numbers.index(leg.get("number")))
    elif numbers != theirs:
        yield f"legs are {numbers}, told {theirs}"
        return
    for index, (leg, ours) in enumerate(zip(truth.legs, told, strict=True)):
        where = f"leg {index + 1} ({leg.number})"
        if bool(ours.get("caller")) != (index == 0):
            yield f"{where}: caller told {ours.get('caller')}"
        if leg.dial_status is not None:
            yield from _unlike(f"{where}: dial_status", leg.dial_status, ours.get("dial_status", ""))
        if leg.rung is not None:
            yield from _unlike(f"{where}: rung", leg.rung, "ring_time" in ours)
        if leg.answered is not None:
            yield from _unlike(f"{where}: answered", leg.answered, "answer_time" in ours)
        for name, true in (("talk", leg.talk), ("hold", leg.hold)):
            if true is not None:
                lines = _length(name, true, ours.get(f"{name}_seconds", 0.0), tolerances)
                yield from (f"{where}: {line}" for line in lines)
        if leg.cause is not None:
            yield from _unlike(f"{where}: hangup_cause", leg.cause, ours.get("hangup_cause"))


def _timeline(steps: Sequence[Step], told: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    told = [entry for entry in told if entry["event"] in MAIN_EVENTS]
    left = list(told)
    for step in steps:
        missing = [step] if isinstance(step, str) else sorted(step)
        while left and (match := next((one for one in missing if _says(left[0], one.removeprefix("?"))), None)):
            missing.remove(match)
            del left[0]
        lacking = [sentence for sentence in missing if not sentence.startswith("?")]
        if lacking:
            yield f"timeline lacks {', '.join(lacking)} before {_sentence(left[0]) if left else 'its end'}"
            yield f"timeline told: {', '.join(map(_sentence, told))}"
            return
    if left:
        yield f"timeline goes on with {', '.join(map(_sentence, left))}"


def _says(entry: Mapping[str, Any], sentence: str) -> bool:
    """`event who name=value …`; a `-` for `who` is about nobody in particular."""
    event, who, *facts = sentence.split(" ")
    if entry["event"] != event or who not in {"-", entry.get("who")}:
        return False
    pairs = (fact.partition("=") for fact in facts)
    return all(str(entry.get(name)) == value for name, _, value in pairs)


def _sentence(entry: Mapping[str, Any]) -> str:
    facts = " ".join(
        f"{name}={value}" for name, value in entry.items() if name not in {"at", "event", "who", "channel"}
    )
    return " ".join(part for part in (entry["event"], entry.get("who", "?"), facts) if part)
