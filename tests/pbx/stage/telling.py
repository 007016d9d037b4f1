"""Short ways to write a truth down: the columns that calls of one kind have in common."""

from typing import Any

from tests.pbx.stage.phone import Call, Phone
from tests.pbx.stage.truth import CallTruth, LegTruth, seconds

NORMAL_CLEARING = 16  # Q.850: somebody hung up


def inbound(caller: Call, *, by: Call | None = None, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    """A call that somebody outside made and `by` was the first to answer, unless `rest` says otherwise."""
    return _call("inbound", caller, by, rest)


def outbound(caller: Call, *, by: Call | None = None, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    return _call("outbound", caller, by, rest)


def internal(caller: Call, *, by: Call | None = None, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    return _call("internal", caller, by, rest)


def _call(direction: str, caller: Call, by: Call | None, rest: dict[str, Any]) -> CallTruth:
    usual: dict[str, Any] = {
        "name": f"{caller.phone} to {caller.number}",
        "direction": direction,
        "caller_id": caller.phone.number,
        "caller_name": caller.phone.name,
        "callee_id": caller.number,
        "status": "completed",
        "disposition": "answered",
        "start": caller.asked_at,
    }
    if by is not None:
        usual["answered_by"] = usual["last_answered_by"] = by.phone.number
        usual["answer"] = by.answered_at
        usual["ring"] = seconds(by.rang_at, by.answered_at)
    return CallTruth(**usual | rest)


def caller_leg(
    phone: Phone, *, talk: float | None = 0.0, hold: float | None = 0.0, answered: bool | None = True
) -> LegTruth:
    """The leg a call began with: nobody dialled it."""
    return LegTruth(number=phone.number, dial_status="", answered=answered, talk=talk, hold=hold)


def called_leg(phone: Phone, *, talk: float | None = 0.0, hold: float | None = 0.0) -> LegTruth:
    """A phone that rang and was picked up."""
    return LegTruth(number=phone.number, dial_status="ANSWER", rung=True, answered=True, talk=talk, hold=hold)


def missed_leg(phone: Phone, dial_status: str | None, *, rung: bool = True, cause: int | None = None) -> LegTruth:
    """A phone that was called and not picked up."""
    return LegTruth(number=phone.number, dial_status=dial_status, rung=rung, answered=False, cause=cause)


def taken_over_leg(phone: Phone, *, talk: float = 0.0, hold: float = 0.0) -> LegTruth:
    """Somebody who came out of another call: how it was reached is told there."""
    return LegTruth(number=phone.number, answered=True, talk=talk, hold=hold)


def joined(*phones: Phone) -> set[str]:
    """They are connected from here on."""
    return {f"joined {phone}" for phone in phones}


def left(*phones: Phone) -> set[str]:
    return {f"left {phone}" for phone in phones}


def hangup(phone: Phone, by: str) -> set[str]:
    return {f"hangup {phone} by={by}"}
