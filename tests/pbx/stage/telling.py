"""Short ways to write a truth down: the columns that calls of one kind have in common."""

from typing import Any

from tests.pbx.stage.phone import Phone
from tests.pbx.stage.truth import CallTruth, LegTruth

NORMAL_CLEARING = 16  # Q.850: somebody hung up


def inbound(caller: Phone, number: str, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    """A call of somebody outside that was answered, unless `rest` says otherwise."""
    return _call("inbound", caller, number, rest)


def outbound(caller: Phone, number: str, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    return _call("outbound", caller, number, rest)


def internal(caller: Phone, number: str, **rest: Any) -> CallTruth:  # Any: fields of CallTruth
    return _call("internal", caller, number, rest)


def _call(direction: str, caller: Phone, number: str, rest: dict[str, Any]) -> CallTruth:
    usual: dict[str, Any] = {
        "name": f"{caller.number} to {number}",
        "direction": direction,
        "caller_id": caller.number,
        "caller_name": caller.name,
        "callee_id": number,
        "status": "completed",
        "disposition": "answered",
    }
    if "last_answered_by" not in rest and "answered_by" in rest:
        usual["last_answered_by"] = rest["answered_by"]
    return CallTruth(**usual | rest)


def caller_leg(phone: Phone, *, talk: float = 0.0, hold: float = 0.0, answered: bool = True) -> LegTruth:
    """The leg a call began with: nobody dialled it."""
    return LegTruth(number=phone.number, dial_status="", answered=answered, talk=talk, hold=hold)


def called_leg(phone: Phone, *, talk: float = 0.0, hold: float = 0.0) -> LegTruth:
    """A phone that rang and was picked up."""
    return LegTruth(number=phone.number, dial_status="ANSWER", rung=True, answered=True, talk=talk, hold=hold)


def missed_leg(phone: Phone, dial_status: str | None, *, rung: bool = True, cause: int | None = None) -> LegTruth:
    """A phone that was called and not picked up."""
    return LegTruth(number=phone.number, dial_status=dial_status, rung=rung, answered=False, cause=cause)


def joined(*phones: Phone) -> set[str]:
    """They are connected from here on."""
    return {f"joined {phone}" for phone in phones}


def left(*phones: Phone) -> set[str]:
    return {f"left {phone}" for phone in phones}


def hangup(phone: Phone, by: str) -> set[str]:
    return {f"hangup {phone} by={by}"}
