"""The Sentiric Model Context Protocol's packet: what services on the box share about a call while it lasts."""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1


class CallState(StrEnum):
    """Where a live call is now."""

    RINGING = "ringing"
    QUEUED = "queued"
    MENU = "menu"  # answered by the PBX itself: a menu or an announcement
    ANSWERED = "answered"
    HELD = "held"
    ENDED = "ended"


class TaskState(BaseModel):
    """One task a service is busy with during the call."""

    model_config = ConfigDict(extra="allow")

    task_name: str
    state_data: dict[str, Any] = Field(default_factory=dict)
    start_time: AwareDatetime


class Participant(BaseModel):
    """A phone or line in the call."""

    model_config = ConfigDict(extra="allow")

    channel: str
    number: str | None = None
    name: str | None = None
    role: str  # caller, callee
    state: str  # ringing, up, held, gone


class CallContext(BaseModel):
    """The live memory of one call. Fields unknown to this version survive a round trip.

    `revision` grows by one with every write, whoever writes; it is what compare-and-set compares.
    """

    model_config = ConfigDict(validate_assignment=True, extra="allow")

    schema_version: int = SCHEMA_VERSION
    revision: int = 0
    call_sid: str
    trace_id: str
    tenant_id: str | None = None  # the tenant's name; None while no rule has matched
    site: str
    pbx: str
    direction: str
    state: CallState = CallState.RINGING
    caller_id: str | None = None
    caller_name: str | None = None
    callee_id: str | None = None
    participants: list[Participant] = Field(default_factory=list)
    task_stack: list[TaskState] = Field(default_factory=list)
    interaction_history: list[dict[str, Any]] = Field(default_factory=list)
    variables: dict[str, Any] = Field(default_factory=dict)
    call_start_time: AwareDatetime
    last_interaction_time: AwareDatetime


# What the tracker says of a call; everything else in a context belongs to the services.
TRACKER_FIELDS = frozenset(
    {
        "schema_version", "call_sid", "trace_id", "tenant_id", "site", "pbx", "direction", "state",
        "caller_id", "caller_name", "callee_id", "participants", "call_start_time",
    }
)  # fmt: skip


def with_facts(context: CallContext, facts: CallContext, *, at: datetime) -> CallContext:
    """`context` with what the tracker knows now, leaving untouched what services wrote."""
    return context.model_copy(
        update={name: getattr(facts, name) for name in TRACKER_FIELDS} | {"last_interaction_time": at}
    )
