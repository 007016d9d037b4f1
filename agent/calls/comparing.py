"""What two accounts of one call tell differently, as far as both can know it. No I/O.

docs/coverage.md says the rules to operators.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sync.models import Disposition

Row = Mapping[str, Any]  # Any: the columns' own types

# What an account of ours has to hold so that it can be compared.
COLUMNS: Final = (
    "direction", "caller_id", "callee_id", "last_answered_by", "status", "disposition", "start_time", "answer_time",
    "end_time", "talk_seconds", "hold_seconds", "transferred", "merged_into",
)  # fmt: skip
MOMENT_SECONDS: Final = 1.0  # what whole seconds hide
LENGTH_SECONDS: Final = 2.0  # both ends of a length are moments
_TAKEN: Final = frozenset({Disposition.ANSWERED, Disposition.VOICEMAIL})
# CEL tells all of a call but a few things (docs/call-record.md, tests/unit/agent/test_cel_wire.py).
_OF_CEL: Final = (
    "direction", "caller_id", "callee_id", "last_answered_by", "status", "disposition", "transferred", "merged_into",
)  # fmt: skip
_LEAST_DIGITS: Final = 7  # of numbers that dialplans write with and without prefixes


@dataclass(frozen=True, slots=True)
class Difference:
    """A column that two accounts of a call tell differently."""

    column: str
    ours: Any  # Any: the column's own type
    theirs: Any

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        return {"column": self.column, "ours": self.ours, "theirs": self.theirs}


def differences(ours: Row, theirs: Row, *, is_joined: bool = False) -> list[Difference]:
    """Ours against that of a second source (`theirs["source"]`: `cdr` or `cel`), column by column.

    `is_joined`: by ours, the call went on in another or another in it, which CDRs do not tell.
    """
    if theirs["source"] == "cel":
        return _from_cel(ours, theirs)
    return _from_cdr(ours, theirs, is_joined=is_joined or ours["merged_into"] is not None)


def _from_cel(ours: Row, theirs: Row) -> list[Difference]:
    found = [Difference(name, ours[name], theirs[name]) for name in _OF_CEL if ours[name] != theirs[name]]
    found += _moments(ours, theirs, "start_time", "answer_time", "end_time")
    # An Asterisk that writes no row of music cannot tell who waited alone from who talked.
    if _is_near(ours["hold_seconds"], theirs["hold_seconds"]):
        found += _lengths(ours, theirs)
    return found


def _from_cdr(ours: Row, theirs: Row, *, is_joined: bool) -> list[Difference]:
    """CDRs tell when, between whom and whether it was taken; not how it failed, nor what became of whom later."""
    found = _moments(ours, theirs, "start_time")
    if not _is_same_number(ours["caller_id"], theirs["caller_id"]):
        found.append(Difference("caller_id", ours["caller_id"], theirs["caller_id"]))
    if is_joined:
        return found
    found += _moments(ours, theirs, "end_time")
    if ours["direction"] != theirs["direction"]:
        found.append(Difference("direction", ours["direction"], theirs["direction"]))
    if (ours["disposition"] in _TAKEN) is not (theirs["disposition"] in _TAKEN):
        found.append(Difference("disposition", ours["disposition"], theirs["disposition"]))
    elif ours["answer_time"] is not None and theirs["answer_time"] is not None and not ours["transferred"]:
        found += _moments(ours, theirs, "answer_time")
        found += _lengths(ours, theirs)
    return found


def _moments(ours: Row, theirs: Row, *names: str) -> list[Difference]:
    return [
        Difference(name, ours[name], theirs[name])
        for name in names
        if not _is_same_moment(ours[name], theirs[name])
    ]  # fmt: skip


def _is_same_moment(ours: datetime | None, theirs: datetime | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return abs((ours - theirs).total_seconds()) <= MOMENT_SECONDS


def _lengths(ours: Row, theirs: Row) -> list[Difference]:
    if _is_near(ours["talk_seconds"], theirs["talk_seconds"]):
        return []
    return [Difference("talk_seconds", ours["talk_seconds"], theirs["talk_seconds"])]


def _is_near(ours: float | None, theirs: float | None) -> bool:
    return abs((ours or 0.0) - (theirs or 0.0)) <= LENGTH_SECONDS


def _is_same_number(ours: str | None, theirs: str | None) -> bool:
    """A CDR bears the number that the dialplan has made of the caller's: with a prefix, or without one."""
    if ours == theirs or ours is None or theirs is None:
        return True  # a number that one of them does not know is no contradiction
    here, there = ours.lstrip("+"), theirs.lstrip("+")
    shorter = min(len(here), len(there))
    return here == there or (shorter >= _LEAST_DIGITS and here[-_LEAST_DIGITS:] == there[-_LEAST_DIGITS:])
