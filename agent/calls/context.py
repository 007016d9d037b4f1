"""The Sentiric Model Context Protocol's packet: what services on the box share about a call while it lasts."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1


# What every language's JSON tells exactly.
_Number = Annotated[int, Field(ge=0, le=2**53)]


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

    id: str | None = None  # the agent gives one to a task that has none
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

    `revision` grows with every write, whoever writes; it is what compare-and-set compares. `operation` is the number
    of the last operation of the agent's services that is in it, by which the agent knows an old copy; whoever writes to
    a shared store leaves it as it is.
    """

    model_config = ConfigDict(validate_assignment=True, extra="allow")

    schema_version: int = SCHEMA_VERSION
    revision: _Number = 0
    operation: _Number | None = None
    call_sid: str
    trace_id: str
    traceparent: str | None = None  # W3C: the call's own span, for services to hand on
    tenant_id: str | None = None  # the tenant's name; None while no rule has matched
    site: str
    pbx: str
    direction: str
    state: CallState = CallState.RINGING
    caller_id: str | None = None
    caller_name: str | None = None
    callee_id: str | None = None
    participants: list[Participant] = Field(default_factory=list)
    merged_into: str | None = None  # the call_sid of the call that goes on, after an attended transfer
    task_stack: list[TaskState] = Field(default_factory=list)  # the one on top is the last
    tasks_done: list[TaskState] = Field(default_factory=list)  # that were popped
    interaction_history: list[dict[str, Any]] = Field(default_factory=list)
    variables: dict[str, Any] = Field(default_factory=dict)
    transcript: list[dict[str, Any]] | None = None  # a service's own; None: what was said is the transcript
    call_start_time: AwareDatetime
    last_interaction_time: AwareDatetime


# What the tracker says of a call; everything else in a context belongs to the services.
TRACKER_FIELDS = frozenset(
    {
        "schema_version", "call_sid", "trace_id", "traceparent", "tenant_id", "site", "pbx", "direction",
        "state", "caller_id", "caller_name", "callee_id", "participants", "merged_into", "call_start_time",
    }
)  # fmt: skip


def with_facts(context: CallContext, facts: CallContext, *, at: datetime) -> CallContext:
    """`context` with what the tracker knows now, leaving untouched what services wrote."""
    return context.model_copy(
        update={name: getattr(facts, name) for name in TRACKER_FIELDS} | {"last_interaction_time": at}
    )
