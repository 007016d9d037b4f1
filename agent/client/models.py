"""What the agent tells a service, as values. `raw` holds all of it, also what this version has no name for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypedDict

Json = dict[str, Any]  # Any: JSON


class Interaction(TypedDict, total=False):
    """Something said or done; other members may be added. Moments are aware datetimes, or text as ISO 8601 has it."""

    id: str
    type: str  # "utterance" if not given
    speaker: str
    text: str
    language: str
    confidence: float  # from 0 to 1
    started_at: datetime | str
    ended_at: datetime | str
    tool: str
    arguments: Any  # Any: JSON, here and below
    result: Any
    sentiment: Any


@dataclass(frozen=True, slots=True)
class Task:
    """What a service is busy with."""

    id: str
    task_name: str
    state_data: Json
    start_time: datetime
    raw: Json = field(repr=False)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """As the agent tells it."""
        return cls(
            id=told.get("id") or "",
            task_name=told["task_name"],
            state_data=dict(told["state_data"]),
            start_time=moment(told["start_time"]),
            raw=dict(told),
        )


@dataclass(frozen=True, slots=True)
class LiveCall:
    """What the PBX says of a call."""

    call_sid: str
    trace_id: str
    tenant_id: str | None
    site: str
    pbx: str
    direction: str
    state: str  # ringing, queued, menu, answered, held, ended
    caller_id: str | None = field(repr=False)
    caller_name: str | None = field(repr=False)
    callee_id: str | None = field(repr=False)
    call_start_time: datetime
    revision: int
    raw: Json = field(repr=False)
    traceparent: str | None  # W3C: the parent of a service's own spans

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """As the agent tells it."""
        return cls(**_facts(told))


@dataclass(frozen=True, slots=True)
class CallContext(LiveCall):
    """All that is known of a call: what the PBX says, and what services wrote."""

    tasks: Sequence[Task] = field(repr=False)  # the stack; the one on top is the last
    tasks_done: Sequence[Task] = field(repr=False)
    interactions: Sequence[Json] = field(repr=False)
    variables: Json = field(repr=False)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """As the agent tells it."""
        return cls(
            **_facts(told),
            tasks=[Task.of(task) for task in told["task_stack"]],
            tasks_done=[Task.of(task) for task in told.get("tasks_done", ())],
            interactions=list(told["interaction_history"]),
            variables=dict(told["variables"]),
        )

    @property
    def is_live(self) -> bool:
        """Whether the call goes on."""
        return self.state != "ended"


@dataclass(frozen=True, slots=True)
class Written:
    """A write that is kept, whatever happens to the agent."""

    call_sid: str
    revision: int
    ids: Sequence[str]  # of the task or the interactions that were written

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """As the agent tells it."""
        return cls(told["call_sid"], int(told["revision"]), tuple(told["ids"]))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a call; of kind `resync`, that some of it is not known: read again what matters."""

    id: str
    kind: str  # call.started, call.changed, call.ended, context.changed, resync
    call_sid: str | None
    tenant_id: str | None
    revision: int | None
    state: str | None
    merged_into: str | None  # the call that goes on, when this one has become a part of it

    @classmethod
    def of(cls, event_id: str, kind: str, told: Mapping[str, Any]) -> Self:
        """As the agent tells it."""
        return cls(
            id=event_id,
            kind=kind,
            call_sid=told.get("call_sid"),
            tenant_id=told.get("tenant_id"),
            revision=told.get("revision"),
            state=told.get("state"),
            merged_into=told.get("merged_into"),
        )


def moment(text: str) -> datetime:
    """A moment as JSON tells it."""
    return datetime.fromisoformat(text)


def _facts(told: Mapping[str, Any]) -> Json:
    names = ("call_sid", "trace_id", "tenant_id", "site", "pbx", "direction", "state", "caller_id", "caller_name",
             "callee_id", "revision")  # fmt: skip
    facts: Json = {name: told[name] for name in names} | {"traceparent": told.get("traceparent")}
    return facts | {"call_start_time": moment(told["call_start_time"]), "raw": dict(told)}
