"""The W3C trace context of a call: accepted from who sent it, else minted from the call's name. Pure.

https://www.w3.org/TR/trace-context/ says the form of a `traceparent`.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

# Of a version that is not known, what stands behind the flags belongs to that version.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_NO_VERSION: Final = "ff"
_FIRST_VERSION: Final = "00"
_SAMPLED: Final = 1  # the first of the flags

# What stands in the call's timeline when a trace was accepted.
TRACED: Final = "traced"


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The span under which who sent the call wants it to be seen; ids in lower-case hex."""

    trace_id: str
    span_id: str
    sampled: bool


def parse_traceparent(text: str) -> TraceParent | None:
    """What a `traceparent` says; None if it is none, which W3C wants to be treated as if it had not been sent."""
    match = _TRACEPARENT.fullmatch(text.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == _NO_VERSION or (version == _FIRST_VERSION and more is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceParent(trace_id, span_id, sampled=bool(int(flags, 16) & _SAMPLED))


def minted_trace_id(call_sid: str) -> str:
    """The id that every source of this call finds by itself (docs/decisions/0002)."""
    return blake2b(call_sid.encode("utf-8", "replace"), digest_size=16).hexdigest()


def span_id(call_sid: str) -> str:
    """Of the call's own span: sixteen hex digits, the same whoever sees the call."""
    return blake2b(call_sid.encode("utf-8", "replace"), digest_size=8, person=b"span").hexdigest()


def traceparent(call_sid: str, trace_id: str, *, sampled: bool) -> str:
    """What services hand on, so that their spans are children of the call's."""
    return f"00-{trace_id}-{span_id(call_sid)}-{'01' if sampled else '00'}"


def traced_entry(timeline: Iterable[Mapping[str, Any]]) -> Mapping[str, Any] | None:  # Any: JSON
    """The entry of a timeline that tells under which `parent` the call is seen, and whether it is `sampled`."""
    return next((entry for entry in timeline if entry.get("event") == TRACED), None)
