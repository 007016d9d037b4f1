"""The same call told by several sources becomes one record; nothing known is overwritten by less. No I/O.

docs/call-record.md, "Several sources", says the rules. An account is what one source tells of a call: columns by name.
The record depends on the accounts alone, not on the order in which they came.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final

from agent.calls.queue_merging import queue_told_again, with_queue
from agent.calls.traces import minted_trace_id, traced_entry
from sync.models import Direction, Disposition

Row = Mapping[str, Any]  # Any: the columns' own types

CEL: Final = "cel"
CDR: Final = "cdr"
QUEUE_LOG: Final = "queue_log"
_WRITTEN_DOWN: Final = frozenset({CEL, CDR, QUEUE_LOG})  # all others are live feeds

# Filled where nothing is known, each for itself.
_DESCRIPTIVE: Final = (
    "caller_id", "caller_name", "callee_id", "queue", "queue_position", "conference", "recording",
)  # fmt: skip
_E164: Final = {"caller_e164": "caller_id", "callee_e164": "callee_id"}
_CALLER: Final = ("caller_id", "caller_name", "caller_e164", "caller_presentation")
FILLED: Final = (*_DESCRIPTIVE, *_E164, "caller_presentation")
# How it went: one source's word, or the other's.
_OUTCOME: Final = (
    "status", "disposition", "pbx_answer_time", "answer_time", "answered_by", "last_answered_by", "ring_seconds",
    "talk_seconds",
)  # fmt: skip
_NEVER: Final = frozenset({"call_sid", "trace_id", "site", "pbx", "source", "legs", "timeline"})
_TAKEN: Final = frozenset({Disposition.ANSWERED, Disposition.VOICEMAIL})
_NEAR: Final = timedelta(seconds=1)  # what whole seconds can hide
_NEAR_SECONDS: Final = 0.1  # by which lengths differ that say the same
_AT_ONCE: Final = timedelta(seconds=0.2)  # how far two who heard the same may be apart
# What nobody writes down of a leg, and of what happens.
_OF_A_LEG: Final = frozenset({"ring_time", "number", "caller_name", "hold_seconds"})
_ONLY_HEARD: Final = frozenset({"held", "unheld", "ringing"})


class Rank(IntEnum):
    """How good an account is; the best one is the record, the others fill in what it lacks."""

    HEARD_WHOLE = 0
    EVENT_LOG = 1  # CEL, to the call's end
    HEARD_TO_ITS_END = 2  # by a live feed that missed a part of it
    EVENT_LOG_CUT_OFF = 3
    HEARD_IN_PART = 4
    RECORDS = 5  # CDR
    QUEUE = 6


def rank_of(account: Row) -> Rank:
    """By its source and by what is missing in it."""
    match account["source"]:
        case "cel":
            return Rank.EVENT_LOG_CUT_OFF if account.get("end_estimated") else Rank.EVENT_LOG
        case "cdr":
            return Rank.RECORDS
        case "queue_log":
            return Rank.QUEUE
        case _:
            if account.get("end_estimated"):
                return Rank.HEARD_IN_PART
            return Rank.HEARD_TO_ITS_END if was_missed(account) else Rank.HEARD_WHOLE


def is_part(account: Row) -> bool:
    """Whether it tells only some columns, which is nothing to begin a record with."""
    return "legs" not in account


def combined(accounts: Iterable[Row]) -> dict[str, Any]:  # Any: as above
    """The record of a call of which each source gave one account."""
    best, *others = sorted(accounts, key=_by_worth)
    row, sources = dict(best), [str(best["source"])]
    for other in sorted(others, key=rank_of):
        supplied = _supplied(row, best, other)
        supplied |= _trace({**row, **supplied}, other)
        told = {name: value for name, value in supplied.items() if row.get(name) != value}
        if told:
            row |= told
            sources.append(str(other["source"]))
    return row | {"source": "+".join(sources)}


def with_account(stored: Row, accounts: Mapping[str, Row], told: Row) -> tuple[dict[str, Any], dict[str, Row]]:
    """The record, and the accounts to be kept beside it, once `told` is known too.

    `accounts` are those that were kept beside the stored record, by source: none if one source told all of it. With a
    call that was heard whole only what filled it in is kept.
    """
    source, first = str(told["source"]), _first_source(stored)
    known = dict(accounts)
    if not accounts or is_part(accounts.get(first, stored)):
        known[first] = {**stored, "source": first, **accounts.get(first, {})}
    known[source] = told_again(known[source], told) if source in known else told
    row = combined(known.values())
    if not accounts and row["source"] == first and _is_same(row, stored):
        row["source"] = stored["source"]  # of a record from before accounts were kept
    if len(known) == 1:
        return row, {}
    if rank_of(min(known.values(), key=_by_worth)) is not Rank.HEARD_WHOLE:
        return row, known
    told_it = row["source"].split("+")
    parts = {name: _part(account) for name, account in known.items() if name in told_it}
    return row, parts if len(parts) > 1 else {}


def _first_source(stored: Row) -> str:
    return str(stored["source"]).partition("+")[0]


def _is_same(row: Row, stored: Row) -> bool:
    return all(stored.get(name) == value for name, value in row.items() if name != "source")


def _part(account: Row) -> Row:
    """As much of it as a call that was heard whole may need."""
    if account["source"] == QUEUE_LOG:
        return account
    return {name: account.get(name) for name in ("call_sid", "source", *FILLED)}


def told_again(earlier: Row, later: Row) -> Row:
    """One source's account after it told of the call once more: the later word, unless it knows less."""
    if is_part(earlier) or is_part(later):
        whole, other = (earlier, later) if is_part(later) else (later, earlier)
        return {**whole, **{name: value for name, value in other.items() if whole.get(name) is None}}
    if earlier["source"] == QUEUE_LOG:
        return queue_told_again(earlier, later)
    if earlier["source"] == CDR:
        return {**earlier, **_told_again(earlier, later)}
    worse, better = (later, earlier) if rank_of(later) > rank_of(earlier) else (earlier, later)
    return {**better, **_trace(better, worse)}


def _by_worth(account: Row) -> tuple[bool, Rank, str]:
    """A part is nothing to begin with, and otherwise as good as the whole of it."""
    return is_part(account), rank_of(account), str(account["source"])


def _supplied(row: Row, best: Row, other: Row) -> dict[str, Any]:
    """What a lesser account adds to the record so far."""
    rank = rank_of(best)
    if other["source"] == QUEUE_LOG:
        return with_queue(row, other, heard_whole=rank is Rank.HEARD_WHOLE)
    if is_part(other):
        return _fill(row, other) | _went_over(row, other, rank)
    if rank is Rank.EVENT_LOG and other["source"] not in _WRITTEN_DOWN:
        return _with_heard(row, other)
    if rank in {Rank.HEARD_TO_ITS_END, Rank.EVENT_LOG_CUT_OFF, Rank.HEARD_IN_PART}:
        return _complete(row, other)
    return _fill(row, other)


def _went_over(row: Row, other: Row, rank: Rank) -> dict[str, Any]:
    """What seemed to be a call to who missed a part of it was a leg of another."""
    into = other.get("merged_into")
    return {"merged_into": into} if rank is not Rank.HEARD_WHOLE and row.get("merged_into") is None and into else {}


def _trace(row: Row, other: Row) -> dict[str, Any]:
    """The trace that came with the call, whoever heard of it: who did not can only mint one."""
    minted = minted_trace_id(row["call_sid"])
    if row["trace_id"] != minted or other.get("trace_id", minted) == minted:
        return {}
    entry = traced_entry(other.get("timeline", ()))
    timeline = row["timeline"] if entry is None else _with_entry(row["timeline"], entry)
    return {"trace_id": other["trace_id"], "timeline": timeline}


# What was heard before the line broke


def was_missed(account: Row) -> bool:
    """Whether a live feed missed a part of the call."""
    marks = account.get("start_estimated") or account.get("end_estimated")
    return bool(marks) or any(entry.get("event") == "unheard" for entry in account.get("timeline", ()))


def _with_heard(row: Row, heard: Row) -> dict[str, Any]:
    """What CEL cannot tell, or only less exactly, and a live feed heard although it missed a part."""
    changes = _fill(row, heard)
    if row.get("merged_into") is None:
        if not any("hold_seconds" in leg for leg in row["legs"]):
            changes["hold_seconds"] = heard["hold_seconds"]
        if row["hangup_source"] is None and any(entry.get("event") == "hangup" for entry in heard["timeline"]):
            changes["hangup_source"] = heard["hangup_source"]
    if heard["answered_by"] is not None and _are_at_once(row["answer_time"], heard["answer_time"]):
        changes["answered_by"] = heard["answered_by"]
    changes["legs"] = _with_unknown(row["legs"], heard["legs"])
    changes["timeline"] = _with_untold(row["timeline"], heard["timeline"])
    return changes


def _with_unknown(told: Iterable[Row], heard: Iterable[Row]) -> list[dict[str, Any]]:
    """Legs with what is known of each only from having heard it."""
    known = {leg.get("name"): leg for leg in heard}
    legs = []
    for leg in told:
        other = known.get(leg.get("name"), {})
        filled = {name: value for name, value in other.items() if name not in leg and name in _OF_A_LEG}
        legs.append(dict(leg) | filled)
    return legs


def _with_untold(told: Iterable[Row], heard: Iterable[Row]) -> list[dict[str, Any]]:
    """The timeline with what is never written down."""
    entries = [dict(entry) for entry in told]
    for entry in heard:
        if entry.get("event") in _ONLY_HEARD:
            entries = _with_entry(entries, entry)
            continue
        for known in entries:
            if (
                known.get("event") == entry.get("event")
                and known.get("who") == entry.get("who")
                and _is_near(known, entry)
            ):
                known |= {name: value for name, value in entry.items() if name not in known}
                break
    return entries


def _with_entry(entries: Iterable[Row], entry: Row) -> list[dict[str, Any]]:
    """The timeline with one entry more, in its place."""
    found = [dict(one) for one in entries]
    place = next((number for number, one in enumerate(found) if _when(one) > _when(entry)), len(found))
    return [*found[:place], dict(entry), *found[place:]]


def _when(entry: Row) -> str:
    return str(entry.get("at"))


def _are_at_once(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and abs(one - other) < _AT_ONCE


def _is_near(one: Row, other: Row) -> bool:
    return abs(datetime.fromisoformat(one["at"]) - datetime.fromisoformat(other["at"])) < _NEAR


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
    if stored["start_estimated"] and not told["start_estimated"]:
        changes |= {"start_time": told["start_time"], "start_estimated": False, "direction": told["direction"]}
        changes |= _caller(stored, told)
    if stored["end_estimated"] and not told["end_estimated"]:
        changes |= {"end_time": max(told["end_time"], stored["start_time"]), "end_estimated": False}
    changes |= _better_outcome(stored, told)
    answered_at = stored["answer_time"] or told["answer_time"] or told["end_time"]
    if "pbx_answer_time" not in changes and _is_earlier(told["pbx_answer_time"], stored["pbx_answer_time"]):
        changes["pbx_answer_time"] = told["pbx_answer_time"]
    if stored["direction"] == Direction.INTERNAL and _is_any_missed(stored, told, until=answered_at):
        changes["direction"] = told["direction"]  # a trunk may have been dialled that was not seen
    if _may_have_missed(stored, told, "ring_seconds", since=told["start_time"], until=answered_at):
        changes["ring_seconds"] = told["ring_seconds"]
    elif changes.get("ring_seconds", stored["ring_seconds"]) < stored["ring_seconds"]:
        changes["ring_seconds"] = stored["ring_seconds"]
    if stored["end_estimated"] and told.get("queue") is not None:
        changes["queue"] = told["queue"]
    start, end = changes.get("start_time", stored["start_time"]), changes.get("end_time", stored["end_time"])
    if end is not None and ("start_time" in changes or "end_time" in changes):
        changes["total_seconds"] = round((end - start).total_seconds(), 6)
    changes["transferred"] = stored["transferred"] or told["transferred"]
    changes["legs"] = _with_more(stored["legs"], told["legs"])
    return changes


def _caller(stored: Row, told: Row) -> dict[str, Any]:
    """By the one who saw the beginning: later it may be what the dialplan had made of it."""
    if told.get("caller_id") in (None, stored.get("caller_id")):
        return {}
    return {name: told.get(name) for name in _CALLER}


def _better_outcome(stored: Row, told: Row) -> dict[str, Any]:
    is_taken, was_taken = told["disposition"] in _TAKEN, stored["disposition"] in _TAKEN
    if is_taken and (not was_taken or stored["disposition"] == Disposition.VOICEMAIL != told["disposition"]):
        return {name: told[name] for name in _OUTCOME if told[name] is not None}
    if is_taken and was_taken:
        return _better_talk(stored, told)
    if not was_taken and _may_be_missed(stored, told, stored["end_time"]):  # so who gave up is not known
        return {"status": told["status"], "disposition": told["disposition"]}
    return {}


def _better_talk(stored: Row, told: Row) -> dict[str, Any]:
    """Of two who each know a part, the earlier answer if the other may have missed it, and the longer talk."""
    changes = {name: told[name] for name in ("answered_by", "last_answered_by") if stored[name] is None}
    if _is_earlier(told["answer_time"], stored["answer_time"]) and _may_be_missed(stored, told, told["answer_time"]):
        changes |= {name: told[name] for name in ("answer_time", "answered_by") if told[name] is not None}
    if told["answer_time"] is None:
        return changes  # from when on there was talk is not known
    if _may_have_missed(stored, told, "talk_seconds", since=told["answer_time"], until=told["end_time"]):
        changes["talk_seconds"] = told["talk_seconds"]
        if told["last_answered_by"] is not None:
            changes["last_answered_by"] = told["last_answered_by"]
    return changes


def _may_be_missed(stored: Row, told: Row, at: datetime) -> bool:
    """Whether something at that moment may not have been heard."""
    return any(since - _NEAR <= at <= until + _NEAR for since, until in _missed(stored, told))


def _may_have_missed(stored: Row, told: Row, name: str, *, since: datetime, until: datetime) -> bool:
    """Whether it is longer by what may have gone on, in that time, while nobody listened."""
    missed = (min(end, until) - max(begin, since) for begin, end in _missed(stored, told))
    room = sum(max(0.0, each.total_seconds()) for each in missed)
    more = told[name] - stored[name]
    if not stored[name]:
        return bool(more > 0 and room > 0)  # that it began was not heard, so nothing of it was counted
    return bool(_NEAR_SECONDS < more <= room + _NEAR_SECONDS)


def _is_any_missed(stored: Row, told: Row, *, until: datetime) -> bool:
    """Whether nobody listened for a while before that moment."""
    return any(since < until + _NEAR for since, _ in _missed(stored, told))


def _missed(stored: Row, told: Row) -> list[tuple[datetime, datetime]]:
    """When nobody listened while the call went on."""
    missed = [
        (datetime.fromisoformat(entry["since"]), datetime.fromisoformat(entry["at"]))
        for entry in stored["timeline"]
        if entry.get("event") == "unheard"
    ]
    if stored["start_estimated"]:
        missed.append((told["start_time"], stored["start_time"]))
    if stored["end_estimated"]:
        missed.append((stored["end_time"], told["end_time"]))
    return missed


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
