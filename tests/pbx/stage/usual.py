"""The truth of a call in which two people talked, however they came together."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from tests.pbx.stage.phone import Call
from tests.pbx.stage.telling import NORMAL_CLEARING, called_leg, caller_leg, hangup, joined, left
from tests.pbx.stage.truth import CallTruth, LegTruth, Step, seconds


def talked(
    make: Callable[..., CallTruth],
    caller: Call,
    callee: Call,
    *,
    end: datetime,
    by: str = "caller",
    missed: Sequence[LegTruth] = (),
    before: Sequence[Step] = (),
    answering: frozenset[str] | set[str] = frozenset(),
    **rest: Any,  # Any: fields of CallTruth
) -> CallTruth:
    """`callee` picked up, the two talked and `by` (caller, callee, pbx) ended it.

    `missed` are the legs that came between the two, `before` what happened before the answer, `answering` what
    happened together with it.
    """
    talk = seconds(callee.answered_at, end)
    who = {"caller": caller.phone, "callee": callee.phone}.get(by)
    usual: dict[str, Any] = {
        "end": end,
        "talk": talk,
        "hangup_source": by,
        "hangup_cause": NORMAL_CLEARING if who else None,
        "legs": [caller_leg(caller.phone, talk=talk), *missed, called_leg(callee.phone, talk=talk)],
        "timeline": [
            *before,
            {f"answered {callee.phone}", *answering},
            joined(caller.phone, callee.phone),
            (hangup(who, by) if who else set()) | left(caller.phone, callee.phone),
        ],
    }
    return make(caller, by=callee, **usual | rest)
