"""The final account: whether what was placed, what was captured and what the centre holds are the same calls."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

_SHOWN: Final = 5


class KnownCall(NamedTuple):
    """One call as one side knows it; the others are compared with it by `call_sid`."""

    call_sid: str
    tenant: str | None
    direction: str
    outcome: str  # status and disposition


@dataclass(frozen=True, slots=True)
class Account:
    """What three sides know. Lists, not sets: a side that holds a call twice must be found out."""

    placed: tuple[KnownCall, ...]
    captured: tuple[KnownCall, ...]
    central: tuple[KnownCall, ...]
    never_ended: int = 0  # calls placed that were still going on when the counting began

    @property
    def is_equal(self) -> bool:
        """Whether all three sides hold the same calls, each once."""
        return bool(self.placed) and not any(self.differences())

    def lines(self) -> Iterator[str]:
        """The counts by tenant, and what they come to."""
        sides = {"placed": self.placed, "captured in SQLite": self.captured, "in PostgreSQL": self.central}
        counts = {side: Counter(call.tenant or "(none)" for call in calls) for side, calls in sides.items()}
        tenants = sorted({tenant for count in counts.values() for tenant in count})
        yield f"{'':<20}{''.join(f'{tenant:>10}' for tenant in tenants)}{'total':>10}"
        for side, count in counts.items():
            numbers = "".join(f"{count[tenant]:>10}" for tenant in tenants)
            yield f"{side:<20}{numbers}{count.total():>10}"
        yield ""
        if self.is_equal:
            yield (
                f"All {len(self.placed)} calls are the same on all three sides: by key, tenant, direction and outcome, "
                "none missing, none doubled."
            )
        elif not self.placed:
            yield "No call was placed, so nothing was shown."
        else:
            yield "The sides differ:"
            yield from (f"  {difference}" for difference in self.differences())

    def differences(self) -> Iterator[str]:
        """What is not the same, in sentences."""
        if self.never_ended:
            yield f"{self.never_ended} placed calls did not end in time, so they cannot be compared"
        truth = {call.call_sid: call for call in self.placed}
        for side, calls in (("SQLite", self.captured), ("PostgreSQL", self.central)):
            known = {call.call_sid: call for call in calls}
            doubled = [sid for sid, count in Counter(call.call_sid for call in calls).items() if count > 1]
            yield from _told(f"doubled in {side}", doubled)
            yield from _told(f"placed, but not in {side}", truth.keys() - known.keys())
            yield from _told(f"in {side}, but never placed", known.keys() - truth.keys())
            yield from _told(f"known differently in {side}", _changes(truth, known))


def _changes(truth: Mapping[str, KnownCall], known: Mapping[str, KnownCall]) -> Iterator[str]:
    for sid in truth.keys() & known.keys():
        if truth[sid] != known[sid]:
            yield f"{sid} ({_words(truth[sid])}; there {_words(known[sid])})"


def _words(call: KnownCall) -> str:
    return f"{call.tenant or '(none)'}, {call.direction}, {call.outcome}"


def _told(what: str, calls: Iterable[str]) -> Iterator[str]:
    found = sorted(calls)
    if found:
        yield f"{len(found)} {what}: {', '.join(found[:_SHOWN])}{' …' if found[_SHOWN:] else ''}"
