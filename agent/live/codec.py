"""A context as the store keeps it, and what its change channel says."""

import orjson
from pydantic import ValidationError

from agent.calls.context import CallContext


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


def announced(message: bytes | str) -> tuple[str, int] | None:
    """The call_sid and revision that a message of a change channel tells; None if it tells none."""
    try:
        told = orjson.loads(message)
        sid, revision = told["call_sid"], told["revision"]
    except (ValueError, TypeError, KeyError):
        return None
    return (sid, revision) if isinstance(sid, str) and isinstance(revision, int) else None
