"""Whose fault refusals are: a call's own, or that of a centre that is wrong for a while.

A refused call is set aside. If that happened to every call that a mistaken centre refuses, the outbox would soon be
empty and the quarantine full; so there is a bound, whatever the size of batches and however many are under way.
"""

from collections.abc import Callable, Sequence
from typing import Final

from sync.records import RecordReceipt, Verdict

UNKNOWN_TENANT: Final = "unknown_tenant"
# So many calls are set aside before it is the centre's fault, or our own, not theirs …
_BOUND: Final = 20
# … and one more for every so many that were taken meanwhile.
_TAKEN_FOR_ONE: Final = 4


class Refusals:
    """What was refused of late, made up for by what was taken."""

    def __init__(self) -> None:
        self._level = 0.0

    def may_be_set_aside(
        self, verdicts: Sequence[RecordReceipt], *, is_expected: Callable[[RecordReceipt], bool]
    ) -> bool:
        """Whether those of the calls that were refused are to be believed bad. False: they have to go on waiting.

        Refusals that are expected count for nothing.
        """
        refused = [one for one in verdicts if one.verdict is Verdict.REJECTED]
        counted = sum(not is_expected(one) for one in refused)
        level = self._level + counted - (len(verdicts) - len(refused)) / _TAKEN_FOR_ONE
        is_too_much = bool(counted) and level >= _BOUND
        self._level = min(max(0.0, level), _BOUND)
        return not is_too_much
