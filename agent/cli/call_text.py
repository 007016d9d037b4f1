"""One call as a person reads it."""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from agent.cli.output import clock, moment, printable, table, zone

if TYPE_CHECKING:
    from agent.cli.local import Row

# Q.850 causes that say something to a person.
_CAUSES: Final = {
    1: "unallocated number", 3: "no route", 16: "normal", 17: "busy", 18: "no answer from the phone",
    19: "not answered", 20: "subscriber absent", 21: "rejected", 22: "number changed", 26: "answered elsewhere",
    27: "out of order", 28: "incomplete number", 31: "normal", 34: "no circuit", 38: "network out of order",
    41: "temporary failure", 42: "congestion", 58: "not available", 127: "interworking",
}  # fmt: skip
_SYNC: Final = {
    "sent": "the centre has it",
    "unassigned": "not synced: no tenant rule matched",
}


def call_lines(call: "Row") -> Iterator[str]:
    """Everything about the call, in the order in which people ask."""
    yield printable(f"{call['call_sid']}")
    for name, text in _facts(call):
        if text:
            yield f"  {name:<12}{printable(text)}"
    legs = call["legs"]
    if legs:
        yield ""
        yield from table(("LEG", "NUMBER", "RINGS", "ANSWERED", "ENDED", "TALK", "CAUSE"), [_leg(leg) for leg in legs])
    if call["timeline"]:
        yield ""
        yield from timeline_lines(call)
    for heading, entries in (("TASK", call["tasks"]), ("INTERACTION", call["interactions"])):
        if entries:
            yield ""
            yield from table((heading,), [(_entry(entry),) for entry in entries])


def transcript_lines(call: "Row") -> list[str]:
    """What was said, by whom and how long after the call's start."""
    if not call["full_transcript"]:
        return ["Nothing that was said is noted for this call."]
    return table(("AFTER", "WHO", "SAID"), [_said(entry, call["start_time"]) for entry in call["full_transcript"]])


def timeline_lines(call: "Row") -> list[str]:
    """What happened when."""
    start = call["start_time"]
    return table(("AFTER", "WHAT", ""), [_event(event, start) for event in call["timeline"]])


def _said(entry: Any, start: datetime) -> tuple[str, str, str]:  # Any: what a service noted
    told = entry if isinstance(entry, dict) else {"text": entry}
    try:
        at = _parsed(told.get("started_at") or told.get("received_at"))
        after = clock((at - start).total_seconds()) if at is not None else ""
    except (ValueError, TypeError):  # written past the agent, in a form of its own
        after = ""
    return after, str(told.get("speaker") or told.get("service") or ""), str(told.get("text") or "")


def _facts(call: "Row") -> Iterator[tuple[str, str]]:
    yield "tenant", call["tenant"] or "none"
    yield "outcome", " / ".join(word for word in (call["status"], call["disposition"]) if word)
    yield "direction", f"{call['direction']}, PBX {call['pbx']} at {call['site']}"
    yield "caller", _words(_caller(call), _quoted(call["caller_name"]))
    yield "callee", _number(call, "callee") or "unknown"
    yield "answered by", call["answered_by"] or ""
    if call["last_answered_by"] != call["answered_by"]:
        yield "then by", call["last_answered_by"] or ""
    yield "queue", _queue(call)
    yield "conference", call["conference"] or ""
    yield "started", f"{moment(call['start_time'])} {zone()}{_estimated(call['start_estimated'])}"
    yield "picked up", f"{moment(call['pbx_answer_time'])} by the PBX itself" if call["pbx_answer_time"] else ""
    yield "answered", moment(call["answer_time"]) if call["answer_time"] else ""
    yield "ended", f"{moment(call['end_time'])}{_estimated(call['end_estimated'])}"
    names = ("ring", "talk", "hold", "total")
    yield "lasted", ", ".join(f"{name} {clock(call[f'{name}_seconds'])}" for name in names)
    yield "hung up by", _words(call["hangup_source"], _cause(call["hangup_cause"]))
    yield "transferred", "yes" if call["transferred"] else ""
    yield "merged into", call["merged_into"] or ""
    yield "recording", call["recording"] or ""
    yield "transcript", f"{len(call['full_transcript'])} lines: --transcript" if call["full_transcript"] else ""
    yield "trace id", call["trace_id"]
    yield "known by", f"{call['source']}, revision {call['revision']}"
    yield "sync", _sync(call["sync"])


def _caller(call: "Row") -> str:
    """The caller's number; withheld or unknown where there is none. Whoever withholds it may be known all the same."""
    number = _number(call, "caller")
    is_withheld = call["caller_presentation"] == "restricted"
    if not number:
        return "withheld" if is_withheld else "unknown"
    return f"{number} (withheld)" if is_withheld else number


def _number(call: "Row", party: str) -> str:
    """The number as the PBX told it, and as a public one if that reads differently."""
    told, public = call[f"{party}_id"] or "", call[f"{party}_e164"]
    return f"{told} ({public})" if public and public != told else told


def _queue(call: "Row") -> str:
    if not call["queue"]:
        return ""
    position = f"place {call['queue_position']}" if call["queue_position"] is not None else ""
    waited = f"waited {clock(call['queue_wait_seconds'])}" if call["queue_wait_seconds"] else ""
    return ", ".join(word for word in (call["queue"], position, waited) if word)


def _words(*words: str | None) -> str:
    return " ".join(word for word in words if word)


def _sync(sync: "Row") -> str:
    match sync["state"]:
        case "refused":
            return f"refused by the centre: {sync['reason']} ({sync['code']}); edge-agent quarantine retry"
        case "dropped":
            return f"refused by the centre and given up by {sync['by']} on {moment(sync['at'])}"
        case "waiting":
            return f"waiting since {moment(sync['enqueued_at'])}"
        case state:
            return _SYNC[state]


def _estimated(is_so: bool) -> str:
    return " (estimated)" if is_so else ""


def _quoted(text: str | None) -> str:
    return f"“{text}”" if text else ""


def _cause(number: int | None) -> str:
    if number is None:
        return ""
    return f"({_CAUSES[number]}, cause {number})" if number in _CAUSES else f"(cause {number})"


def _leg(leg: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(leg.get("endpoint") or leg.get("channel") or "?"),
        str(leg.get("number") or "-"),
        *(_time_of_day(leg.get(name)) for name in ("ring_time", "answer_time", "end_time")),
        clock(float(leg.get("talk_seconds") or 0)),
        str(leg.get("hangup_cause", "-")),
    )


def _event(event: dict[str, Any], start: datetime) -> tuple[str, str, str]:
    facts = ", ".join(f"{name} {value}" for name, value in event.items() if name not in {"at", "event"})
    at = _parsed(event.get("at"))
    after = f"{(at - start).total_seconds():+.3f} s" if at is not None else "?"
    return after, str(event.get("event", "?")).replace("_", " "), facts


def _entry(entry: "Row") -> str:
    facts = entry.get("data") or {"task": entry.get("task_name"), **(entry.get("state_data") or {})}
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def _time_of_day(text: object) -> str:
    at = _parsed(text)
    return f"{at.astimezone():%H:%M:%S}" if at is not None else "-"


def _parsed(text: object) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
