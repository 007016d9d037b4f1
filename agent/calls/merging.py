"""The same call told by two sources becomes one record; nothing known is overwritten by less. No I/O.

docs/call-record.md, "Several sources", says the rules.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sync.models import Disposition

Row = Mapping[str, Any]  # Any: the columns' own types

# Filled where nothing is known, each for itself.
_DESCRIPTIVE: Final = ("caller_id", "caller_name", "callee_id", "queue", "conference", "recording")
_E164: Final = {"caller_e164": "caller_id", "callee_e164": "callee_id"}
# How it went: one source's word, or the other's.
_OUTCOME: Final = (
    "status", "disposition", "pbx_answer_time", "answer_time", "answered_by", "last_answered_by", "ring_seconds",
    "talk_seconds",
)  # fmt: skip
_NEVER: Final = frozenset({"call_sid", "trace_id", "site", "pbx", "source", "legs", "timeline"})
_TAKEN: Final = frozenset({Disposition.ANSWERED, Disposition.VOICEMAIL})
_NEAR: Final = timedelta(seconds=1)  # what whole seconds can hide


def merged(stored: Row, told: Row, *, heard_whole: bool) -> dict[str, Any]:  # Any: as above
    """What changes in the stored record of a call because a CDR tells of it too; nothing if it tells nothing new.

    `heard_whole`: a live feed told the stored record, and nothing was missed meanwhile. Marks of estimates are
    looked at as well. To say the same twice changes nothing the second time.
    """
    sources = str(stored["source"]).split("+")
    if sources == [told["source"]]:
        changes = _told_again(stored, told)
    elif heard_whole and not stored["start_estimated"] and not stored["end_estimated"]:
        changes = _fill(stored, told)
    else:
        changes = _complete(stored, told)
    changes = {name: value for name, value in changes.items() if stored.get(name) != value}
    if changes and told["source"] not in sources:
        changes["source"] = "+".join([*sources, str(told["source"])])
    return changes


# A live feed and a CDR


def _fill(stored: Row, told: Row) -> dict[str, Any]:
    """What the stored record does not know."""
    changes = {name: told[name] for name in _DESCRIPTIVE if stored.get(name) is None and told.get(name) is not None}
    for name, number in _E164.items():
        same_number = changes.get(number, stored.get(number)) == told.get(number)
        if stored.get(name) is None and told.get(name) is not None and same_number:
            changes[name] = told[name]
    if "caller_id" in changes or stored.get("caller_presentation") is None:
        changes["caller_presentation"] = told.get("caller_presentation")
    return changes


def _complete(stored: Row, told: Row) -> dict[str, Any]:
    """The live feed missed a part of the call: what it did not see is the CDR's to tell."""
    changes = _fill(stored, told)
    if stored.get("merged_into") is not None:
        return changes
    was_estimated = stored["start_estimated"] or stored["end_estimated"]
    if stored["start_estimated"] and not told["start_estimated"]:
        changes |= {"start_time": told["start_time"], "start_estimated": False, "direction": told["direction"]}
    if stored["end_estimated"] and not told["end_estimated"]:
        changes |= {"end_time": max(told["end_time"], stored["start_time"]), "end_estimated": False}
    changes |= _better_outcome(stored, told, was_estimated=was_estimated)
    start, end = changes.get("start_time", stored["start_time"]), changes.get("end_time", stored["end_time"])
    if end is not None and ("start_time" in changes or "end_time" in changes):
        changes["total_seconds"] = round((end - start).total_seconds(), 6)
    changes["transferred"] = stored["transferred"] or told["transferred"]
    changes["legs"] = _with_more(stored["legs"], told["legs"])
    return changes


def _better_outcome(stored: Row, told: Row, *, was_estimated: bool) -> dict[str, Any]:
    is_taken, was_taken = told["disposition"] in _TAKEN, stored["disposition"] in _TAKEN
    if is_taken and (not was_taken or stored["disposition"] == Disposition.VOICEMAIL != told["disposition"]):
        return {name: told[name] for name in _OUTCOME if told[name] is not None}
    if is_taken and was_taken:
        changes: dict[str, Any] = {}
        if _is_earlier(told["answer_time"], stored["answer_time"]):
            changes |= {name: told[name] for name in ("answer_time", "answered_by") if told[name] is not None}
        if was_estimated:
            changes["talk_seconds"] = told["talk_seconds"]
            if told["last_answered_by"] is not None:
                changes["last_answered_by"] = told["last_answered_by"]
        return changes
    if not was_taken and stored["end_estimated"]:
        return {"status": told["status"], "disposition": told["disposition"]}
    return {}


def _is_earlier(told: datetime | None, stored: datetime | None) -> bool:
    return told is not None and (stored is None or told < stored - _NEAR)


def _with_more(stored: Iterable[Row], told: Iterable[Row]) -> list[dict[str, Any]]:
    """The stored legs, with the others behind them and what was not known of each filled in."""
    legs = {str(leg.get("name") or number): dict(leg) for number, leg in enumerate(stored)}
    for leg in told:
        known = legs.get(str(leg.get("name")))
        if known is None:
            legs[str(leg.get("name"))] = {key: value for key, value in leg.items() if key != "caller"}
            if leg.get("caller") and not any(one.get("caller") for one in legs.values()):
                legs[str(leg.get("name"))]["caller"] = True
        else:
            for key, value in leg.items():
                if key != "caller":
                    known.setdefault(key, value)
    return sorted(legs.values(), key=lambda leg: not leg.get("caller"))


# CDRs of one call that came at different times


def _told_again(stored: Row, told: Row) -> dict[str, Any]:
    """The same CDRs read again, perhaps by another clock or other rules; more of them; or only a part of them."""
    old, new = _names(stored), _names(told)
    if _is_coarser(stored, told):
        return _fill(stored, told)
    if new == old and abs(stored["total_seconds"] - told["total_seconds"]) <= _NEAR.total_seconds():
        return _replace(stored, told)
    if new <= old and _lies_within(told, stored):
        return _fill(stored, told)
    if old <= new and _lies_within(stored, told):
        return _replace(stored, told)
    return _join(stored, told)


def _names(row: Row) -> frozenset[str]:
    return frozenset(str(leg.get("name")) for leg in row["legs"])


def _lies_within(inner: Row, outer: Row) -> bool:
    return bool(outer["start_time"] - _NEAR <= inner["start_time"] and inner["end_time"] <= outer["end_time"] + _NEAR)


def _is_coarser(stored: Row, told: Row) -> bool:
    """Whether this is what is known already, in whole seconds where microseconds are known."""
    moments = ("start_time", "end_time")
    return (
        _names(told) <= _names(stored)
        and all(not told[name].microsecond and abs(told[name] - stored[name]) < _NEAR for name in moments)
        and any(stored[name].microsecond for name in moments)
    )


def _replace(stored: Row, told: Row) -> dict[str, Any]:
    """The later word; what it does not know stays."""
    changes = {name: value for name, value in told.items() if name not in _NEVER and value is not None}
    return changes | {"legs": told["legs"], "timeline": told["timeline"]}


def _join(stored: Row, told: Row) -> dict[str, Any]:
    """Two parts of one call."""
    changes = _fill(stored, told)
    first, second = sorted((stored, told), key=lambda row: (row["start_time"], row["end_time"]))
    start, end = first["start_time"], max(first["end_time"], second["end_time"])
    taken = [row for row in (first, second) if row["disposition"] in _TAKEN]
    source = taken[0] if taken else second
    changes |= {name: source[name] for name in _OUTCOME if source[name] is not None}
    if len(taken) > 1:
        changes["last_answered_by"] = second["last_answered_by"] or first["last_answered_by"]
        changes["talk_seconds"] = min(first["talk_seconds"] + second["talk_seconds"], (end - start).total_seconds())
    changes |= {
        "start_time": start,
        "end_time": end,
        "total_seconds": round((end - start).total_seconds(), 6),
        "transferred": stored["transferred"] or told["transferred"],
        "queue": second["queue"] or first["queue"],
        "legs": _with_more(first["legs"], second["legs"]),
        "timeline": _both(first["timeline"], second["timeline"]),
    }
    return changes


def _both(first: Iterable[Row], second: Iterable[Row]) -> list[dict[str, Any]]:
    entries = [dict(entry) for entry in first]
    entries += [dict(entry) for entry in second if entry not in entries and entry.get("event") != "began"]
    return sorted(entries, key=lambda entry: str(entry.get("at")))
