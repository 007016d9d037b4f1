"""For programs that share a call's live context: `EdgeClient` for threads, `AsyncEdgeClient` for asyncio.

Both speak the agent's HTTP API (docs/live-context.md), wherever the agent keeps contexts: in its own process or in a
shared Valkey.
"""

from agent.client.asynchronous import AsyncEdgeClient
from agent.client.errors import (
    AccessDenied,
    CallNotFound,
    ContextChanged,
    EdgeError,
    EdgeUnavailable,
    WriteRefused,
)
from agent.client.models import CallContext, Event, Interaction, LiveCall, Task, Written
from agent.client.synchronous import EdgeClient

__all__ = [
    "AccessDenied",
    "AsyncEdgeClient",
    "CallContext",
    "CallNotFound",
    "ContextChanged",
    "EdgeClient",
    "EdgeError",
    "EdgeUnavailable",
    "Event",
    "Interaction",
    "LiveCall",
    "Task",
    "WriteRefused",
    "Written",
]
