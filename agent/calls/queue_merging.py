"""What a queue log adds to the record of a call that others told; pure. docs/call-record.md says the rules.

A queue log tells whole seconds, and of a call only its time in queues. So another source's moments stay, but what a
CDR cannot know is taken from it: the queue's name, the place in it, the wait, and when somebody took the caller.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from agent.calls.outcome import CANCELLED, NO_ANSWER
from sync.models import Disposition

Row = Mapping[str, Any]  # Any: the columns' own types

_TAKEN: Final = frozenset({Disposition.ANSWERED, Disposition.VOICEMAIL})
_ADDED: Final = frozenset({"queued", "left_queue", "transferred", "answered", "hangup"})
_NEAR: Final = timedelta(seconds=2)  # whole seconds, and what Asterisk takes from one line to the next
_OF_ANSWER: Final = ("status", "disposition", "answer_time", "answered_by", "last_answered_by", "talk_seconds")
_GAVE_UP: Final = frozenset({"timeout", "empty"})


def with_queue(row: Row, queue: Row, *, heard_whole: bool) -> dict[str, Any]:  # Any: as above
    """What changes in a record by a queue log's account of the same call; to say it twice changes nothing.

    `heard_whole`: a live feed heard all of it; then only a queue that nobody told of is added.
    """
    if row.get("merged_into") is not None or (heard_whole and row.get("queue") is not None):
        return {}
    changes = _waiting(row, queue)
    if not heard_whole:
        changes |= _caller(row, queue) | _end(row, queue)
        changes |= _outcome({**row, **changes}, queue)
        changes["transferred"] = row["transferred"] or queue["transferred"]
    return {name: value for name, value in changes.items() if row.get(name) != value}


def queue_told_again(earlier: Row, later: Row) -> dict[str, Any]:  # Any: as above
    """A queue log's account after it told of the call once more: the longer one, with what the other tells besides."""
    long, short = sorted((later, earlier), key=_length, reverse=True)
    account = dict(long)
    entries = [entry for entry in short["timeline"] if entry not in long["timeline"] and entry.get("event") != "began"]
    if entries:
        account["timeline"] = sorted([*long["timeline"], *entries], key=_when)
        account["legs"] = [*short["legs"], *(leg for leg in long["legs"][1:] if leg not in short["legs"])]
        account |= _of_timeline(account["timeline"], account["end_time"])
        if short["answer_time"] is not None:
            account |= {name: short[name] for name in ("answer_time", "answered_by", "ring_seconds")}
            account["last_answered_by"] = long["last_answered_by"] or short["last_answered_by"]
            account |= {name: short[name] for name in ("status", "disposition")}
            account["talk_seconds"] = short["talk_seconds"] + long["talk_seconds"]
    account["caller_id"] = long["caller_id"] or short["caller_id"]
    account["caller_e164"] = long["caller_e164"] or short["caller_e164"]
    account["transferred"] = long["transferred"] or short["transferred"]
    return account


def _length(account: Row) -> tuple[datetime, int]:
    end: datetime = account["end_time"]
    return end, len(account["timeline"])


# The time in queues


def _waiting(row: Row, queue: Row) -> dict[str, Any]:
    timeline = [dict(entry) for entry in row["timeline"]]
    added = [dict(entry) for entry in queue["timeline"] if _is_new(entry, row)]
    if not any(entry["event"] in {"queued", "left_queue"} for entry in added) and row["queue"] is not None:
        return {"timeline": sorted([*timeline, *added], key=_when)} if added else {}
    timeline = sorted([*timeline, *added], key=_when)
    return {"timeline": timeline, **_of_timeline(timeline, row["end_time"] or queue["end_time"])}


def _is_new(entry: Row, row: Row) -> bool:
    """Whether the record's timeline lacks it."""
    event = entry.get("event")
    if event not in _ADDED or (event == "answered" and row["answer_time"] is not None):
        return False
    if event == "hangup" and row.get("hangup_source") is not None:
        return False
    return not any(
        known.get("event") == event
        and known.get("queue") == entry.get("queue")
        and abs(_moment(known) - _moment(entry)) <= _NEAR
        for known in row["timeline"]
    )


def _of_timeline(timeline: Sequence[Row], end: datetime) -> dict[str, Any]:
    """The columns about queues."""
    entered: datetime | None = None
    last: Row = {}
    waited = 0.0
    for entry in timeline:
        if entry.get("event") == "queued":
            entered, last = _moment(entry), entry
        elif entry.get("event") == "left_queue" and entered is not None:
            waited += max(0.0, (_moment(entry) - entered).total_seconds())
            entered = None
    if entered is not None:
        waited += max(0.0, (end - entered).total_seconds())
    told: dict[str, Any] = {"queue_wait_seconds": round(waited, 6)}
    return told | {"queue": last["queue"], "queue_position": last.get("position")} if last else told


def _moment(entry: Row) -> datetime:
    return datetime.fromisoformat(entry["at"])


def _when(entry: Row) -> str:
    return str(entry.get("at"))


# Who, and how it went


def _caller(row: Row, queue: Row) -> dict[str, Any]:
    if row["caller_id"] is not None or queue["caller_id"] is None:
        return {}
    return {name: queue[name] for name in ("caller_id", "caller_e164", "caller_presentation")}


def _end(row: Row, queue: Row) -> dict[str, Any]:
    """An end that was not seen, if the queue log tells it."""
    if not row["end_estimated"] or queue["end_estimated"]:
        return {}
    end = max(row["start_time"], queue["end_time"])
    total = round((end - row["start_time"]).total_seconds(), 6)
    return {"end_time": end, "end_estimated": False, "total_seconds": total}


def _outcome(row: Row, queue: Row) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    was_answered = row["disposition"] == Disposition.ANSWERED
    if queue["answer_time"] is not None and row["disposition"] not in _TAKEN:
        changes |= {name: queue[name] for name in _OF_ANSWER}
        changes["ring_seconds"] = max(row["ring_seconds"], queue["ring_seconds"])
    elif queue["answer_time"] is not None and was_answered and row["answer_time"] is None:
        changes |= _answer(row, queue)
    elif row["disposition"] not in _TAKEN and _ends_with(row, queue) and (last := _last_leaving(queue)) is not None:
        outcome = {"abandoned": CANCELLED}.get(last, NO_ANSWER if last in _GAVE_UP else None)
        if outcome is not None:
            changes |= {"status": outcome.status, "disposition": outcome.disposition}
    if row.get("hangup_source") is None and _ends_with(row, queue):
        changes["hangup_source"] = queue["hangup_source"]
    return changes


def _answer(row: Row, queue: Row) -> dict[str, Any]:
    """When somebody took whom the PBX had picked up before; a CDR's talk begins with that."""
    answer = min(max(queue["answer_time"], row["start_time"]), row["end_time"])
    picked_up = [leg["answer_time"] for leg in row["legs"] if leg.get("answer_time") and not leg.get("caller")]
    talk = row["talk_seconds"]
    if picked_up:
        talk = max(0.0, talk - max(0.0, (answer - datetime.fromisoformat(min(picked_up))).total_seconds()))
    changes = {"answer_time": answer, "talk_seconds": round(talk, 6)}
    changes["ring_seconds"] = max(row["ring_seconds"], queue["ring_seconds"])
    for name in ("answered_by", "last_answered_by"):
        changes[name] = row[name] or queue[name]
    return changes


def _ends_with(row: Row, queue: Row) -> bool:
    return row["end_time"] is not None and abs(row["end_time"] - queue["end_time"]) <= _NEAR


def _last_leaving(queue: Row) -> str | None:
    left = [entry for entry in queue["timeline"] if entry.get("event") == "left_queue"]
    return left[-1].get("reason") if left else None
