"""From records of a source to calls: what belongs to one call is kept together until the source has told all of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from agent.sources.source import Content, Place


class Mark(NamedTuple):
    """Where a record stands: its number since reading began, its place, and what had been counted before it."""

    number: int
    place: Place | None  # None: nothing was ever read
    records: int
    rejects: int


@dataclass(frozen=True, slots=True)
class GatheredCall:
    """A call as the source tells it. Reading from `first` on gives all of its records again."""

    row: dict[str, Any]  # Any: columns of a call
    tenant: str | None
    first: Mark

    @property
    def sid(self) -> str:
        """Its name."""
        return str(self.row["call_sid"])

    @property
    def start_time(self) -> datetime:
        """When it began."""
        start: datetime = self.row["start_time"]
        return start

    @property
    def end_time(self) -> datetime:
        """When it ended."""
        end: datetime = self.row["end_time"]
        return end


class Gatherer(Protocol):
    """What knows one kind of record."""

    tells_every_call: bool  # of the PBX; else no gap is filled by having read it
    last_at: datetime | None  # the time that the last record told

    def begin(self, mark: Mark) -> None:
        """What comes next stands there."""
        ...

    def take(self, data: Content, mark: Mark) -> str | None:
        """The next record; why it is none, if it is none."""
        ...

    def take_calls(self, *, seconds: float, is_at_end: bool) -> Iterable[GatheredCall]:
        """Calls that have been told wholly by now, `seconds` on a clock that only goes forward."""
        ...

    @property
    def first_unsettled(self) -> Mark | None:
        """Where the first record stands of calls that have not been told wholly."""
        ...

    @property
    def unsettled_since(self) -> datetime | None:
        """When the first of these calls began."""
        ...

    def __len__(self) -> int:
        """How many of them there are, or how much is kept for them."""
        ...
