"""The place in a table whose rows are numbered: the last number read, and those before it that had not been written.

Who writes takes a number first and shows the row later, so a lower number may appear after a higher one.
"""

from dataclasses import dataclass
from typing import Any, Final, Self

LATE_NUMBERS: Final = 1000  # so far behind the last one a row may still appear


@dataclass(frozen=True, slots=True)
class IdPlace:
    """Reading on from here gives rows with higher numbers, and those of `missing` that have come."""

    last: int = 0
    missing: frozenset[int] = frozenset()

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        """The same, for JSON."""
        return {"id": self.last, "missing": sorted(self.missing)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Self:  # Any: JSON
        """What `as_json` told."""
        return cls(told["id"], frozenset(told["missing"]))

    def after(self, number: int) -> "IdPlace":
        """The place behind the row of that number; rows come in the order of their numbers."""
        if number <= self.last:
            return IdPlace(self.last, self.missing - {number})
        if number == self.last + 1:
            return IdPlace(number, self.missing)
        earliest = max(self.last + 1, number - LATE_NUMBERS) if self.last else number
        return IdPlace(number, self.missing | frozenset(range(earliest, number)))

    def pruned(self) -> "IdPlace":
        """Without the numbers that will never come."""
        kept = frozenset(number for number in self.missing if number > self.last - LATE_NUMBERS)
        return self if len(kept) == len(self.missing) else IdPlace(self.last, kept)
