"""What goes over the services' API, as its OpenAPI document shows it.

Loaded only when somebody asks for the document: requests are checked in `agent.calls.wishes`, answers made where they
are told.
"""

from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from agent.calls.context import CallContext, CallState

Name = Annotated[str, Field(min_length=1, max_length=255)]


class Interaction(BaseModel):
    """Something said or done. Members that are not named here are kept as they are."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "speaker": "caller",
                    "text": "Yarın akşam sekize dört kişilik masa var mı?",
                    "language": "tr",
                    "confidence": 0.94,
                    "started_at": "2026-11-22T18:04:05.120+03:00",
                    "ended_at": "2026-11-22T18:04:07.900+03:00",
                },
                {
                    "type": "tool_call",
                    "speaker": "assistant",
                    "tool": "tables.find",
                    "arguments": {"people": 4, "at": "2026-11-23T20:00:00+03:00"},
                    "result": {"table": 7},
                },
            ]
        },
    )

    id: Name | None = Field(default=None, description="Not given: the agent gives one. Known already: nothing is added")
    type: Name = Field(default="utterance", description="utterance, tool_call, event or a word of the service's own")
    speaker: str | None = None
    text: str | None = None
    language: str | None = None
    confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    tool: str | None = None
    arguments: Any = None
    result: Any = None
    sentiment: Any = None


class Task(BaseModel):
    """Something a service is busy with. Members that are not named here are kept as they are."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={"examples": [{"task_name": "reservation", "state_data": {"step": "ask_date", "people": 4}}]},
    )

    id: Name | None = Field(
        default=None, description="Not given: the agent gives one. Known already: nothing is pushed"
    )
    task_name: Name
    state_data: dict[str, Any] = Field(default_factory=dict)
    start_time: AwareDatetime | None = Field(default=None, description="Not given: now")


class TaskChange(BaseModel):
    """A merge patch of `state_data`; other members are replaced."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"state_data": {"step": "confirm", "table": 7}}]}
    )

    task_name: Name = "unchanged"
    state_data: dict[str, Any] = Field(default_factory=dict)


class ContextPatch(BaseModel):
    """A JSON merge patch (RFC 7396) of `variables` and of members that this version does not know."""

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"variables": {"customer_id": "C-1042", "is_vip": True}}]}
    )

    variables: dict[str, Any] | None = None


class LiveCall(BaseModel):
    """What the PBX says of a live call; the whole context is one request further."""

    model_config = ConfigDict(extra="allow")

    revision: int
    call_sid: str
    trace_id: str
    traceparent: str | None = None
    tenant_id: str | None
    site: str
    pbx: str
    direction: str
    state: CallState
    caller_id: str | None
    caller_name: str | None
    callee_id: str | None
    call_start_time: AwareDatetime


class LiveCalls(BaseModel):
    """Live calls, the oldest first."""

    calls: list[LiveCall]


class NextCall(BaseModel):
    """A call that has begun, or null when the time was over, and what to ask `after` next time."""

    call: CallContext | None
    after: str


class Receipt(BaseModel):
    """A write that is kept, whatever happens to the agent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "call_sid": "istanbul-1:main:1795371845.12",
                    "revision": 7,
                    "ids": ["0d4e3a4f0f0b4a6c8f5a3c1d2e3f4a5b"],
                    "repeated": False,
                }
            ]
        }
    )

    call_sid: str = Field(description="Another than asked for, if that call has turned out to be a part of this one")
    revision: int
    ids: list[str] = Field(description="Of the task or the interactions that were written")
    repeated: bool = Field(description="The idempotency key was used before: nothing was written now")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Unprocessable Entity",
                    "status": 422,
                    "code": "invalid",
                    "detail": "interactions.0.confidence: Input should be less than or equal to 1",
                    "field": "interactions.0.confidence",
                }
            ]
        },
    )

    type: str
    title: str
    status: int
    code: str
    detail: str
    field: str | None = Field(default=None, description="The member, parameter or header at fault")
    bound: str | None = Field(default=None, description="Of 413: the setting in [live] that was exceeded")
    limit: int | None = None
