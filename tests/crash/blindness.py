"""When an agent could not hear its PBX, and what it therefore need not know of a call."""

from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import Final, NamedTuple

from agent.simulator.truth import SimulatedCall

# What was said so shortly before a kill may not be committed yet: the promise of a live feed without second source.
PROMISED_SECONDS: Final = 0.1
# What the PBX said at the same moment may have come before the list of its channels, or after it.
_LISTING_SECONDS: Final = 0.05


class Blind(Enum):
    """How much of a call could not be heard."""

    NOT = auto()  # all of it was heard, and it has to be told as it was
    PARTLY = auto()  # it has to be there, closed by estimate if need be
    WHOLLY = auto()  # nobody need know of it


class _Stretch(NamedTuple):
    begin: datetime
    end: datetime


class Blindness:
    """Is told of kills and lists of channels in their order; blind from the beginning until the first list."""

    def __init__(self) -> None:
        self._stretches: list[_Stretch] = []
        self._since: datetime | None = datetime.min.replace(tzinfo=UTC)
        self.kills: list[datetime] = []

    def killed(self, at_us: int, *, unsaved_seconds: float) -> None:
        """The agent was killed; what it heard so long before may not have been committed."""
        at = datetime.fromtimestamp(at_us / 1e6, UTC)
        self.kills.append(at)
        if self._since is None:
            self._since = at - timedelta(seconds=unsaved_seconds)
            if self._stretches and self._since <= self._stretches[-1].end:
                self._since = self._stretches.pop().begin  # it was killed before it could say what it heard

    def heard_again(self, at_us: int, *, listing_seconds: float = _LISTING_SECONDS) -> None:
        """The agent was told which channels there are; from so long after it on it knows every call."""
        if self._since is not None:
            at = datetime.fromtimestamp(at_us / 1e6, UTC)
            self._stretches.append(_Stretch(self._since, at + timedelta(seconds=listing_seconds)))
            self._since = None

    def of(self, truth: SimulatedCall) -> Blind:
        """How much of this call could not be heard."""
        touched = [each for each in self._stretches if truth.start_time < each.end and truth.end_time > each.begin]
        if not touched:
            return Blind.NOT
        within = any(truth.start_time >= each.begin and truth.end_time <= each.end for each in touched)
        return Blind.WHOLLY if within else Blind.PARTLY

    def about(self, truth: SimulatedCall) -> str:
        """When the call was, seen from the next kill."""
        later = [kill for kill in self.kills if kill >= truth.start_time]
        if not later:
            return f"from {truth.start_time:%H:%M:%S.%f} to {truth.end_time:%H:%M:%S.%f}, after the last kill"
        began, ended = ((later[0] - moment).total_seconds() for moment in (truth.start_time, truth.end_time))
        return f"it began {began:.3f} s and ended {ended:.3f} s before a kill"
