"""A context as the store keeps it, and what its change channel says."""

import orjson
from pydantic import ValidationError

from agent.calls.context import CallContext, with_facts


def to_json(context: CallContext) -> bytes:
    """As it stands in the store. What cannot be a context shows when it is read back."""
    return context.model_dump_json(warnings=False).encode()


def from_json(content: bytes | str, call_sid: str) -> CallContext | None:
    """The context of this call; None if it is none, or another call's."""
    try:
        context = CallContext.model_validate_json(content)
    except ValidationError:
        return None
    return context if context.call_sid == call_sid else None


def announcement(context: CallContext, state: str) -> bytes:
    """One message of the change channel."""
    return orjson.dumps({"call_sid": context.call_sid, "revision": context.revision, "state": state})


def merged(stored: CallContext | None, facts: CallContext) -> CallContext:
    """What to write when `stored` is there and the tracker tells `facts`."""
    if stored is None:
        return facts.model_copy(update={"revision": 1})
    latest = max(stored.last_interaction_time, facts.last_interaction_time)
    return with_facts(stored, facts, at=latest).model_copy(update={"revision": stored.revision + 1})
