"""The tables both sides share: tenants, users, calls and what was done during a call.

One definition serves the agent's SQLite and the central PostgreSQL. The centre holds the same tables with the
tenant in front of every key; `sync.central.schema` says how.
"""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, Index, text, types
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Column, Field, SQLModel

# JSON in SQLite, JSONB in PostgreSQL.
JsonColumn = JSON().with_variant(JSONB(), "postgresql")


class UtcDateTime(types.TypeDecorator[datetime]):
    """An aware UTC moment: `timestamptz` in PostgreSQL, ISO text with microseconds in SQLite.

    Raises ValueError for a naive datetime, because nobody could say later which zone it was in.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"the moment {value} has no time zone; use aware UTC datetimes")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Direction(StrEnum):
    """Seen from the site: a call from a trunk is inbound, to a trunk outbound, between phones internal."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"


class Status(StrEnum):
    """How far a call came."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"


class Disposition(StrEnum):
    """How an ended call ended, in the words of CDRs."""

    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    FAILED = "failed"
    CANCELLED = "cancelled"
    CONGESTION = "congestion"
    VOICEMAIL = "voicemail"


class Presentation(StrEnum):
    """Whether the caller showed a number."""

    ALLOWED = "allowed"
    RESTRICTED = "restricted"  # withheld
    UNAVAILABLE = "unavailable"  # nothing was told


class HangupSource(StrEnum):
    """Who ended the call."""

    CALLER = "caller"
    CALLEE = "callee"
    PBX = "pbx"


def _now() -> datetime:
    return datetime.now(UTC)


def _json_list() -> Any:  # Any: what SQLModel's Field returns stands for every type
    return Field(default_factory=list, sa_column=Column(JsonColumn, nullable=False))


def _moment(*, nullable: bool) -> Any:  # Any: as above
    column = Column[datetime](UtcDateTime(), nullable=nullable)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


class Tenant(SQLModel, table=True):
    """Whose calls they are."""

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, index=True, max_length=255)
    is_active: bool = True


class User(SQLModel, table=True):
    """A person who may see one tenant's calls."""

    id: int | None = Field(default=None, primary_key=True)
    email: str = Field(unique=True, index=True, max_length=320)
    hashed_password: str = Field(repr=False)  # argon2id
    tenant_id: int = Field(foreign_key="tenant.id", index=True)


class Call(SQLModel, table=True):
    """One logical call, whatever legs it had."""

    __table_args__ = (
        Index("ix_call_tenant_id_start_time", "tenant_id", "start_time"),
        Index("ix_call_start_time", "start_time"),
    )

    id: int | None = Field(default=None, primary_key=True)
    call_sid: str = Field(unique=True, max_length=255)  # "<site>:<pbx>:<native id>"
    trace_id: str = Field(max_length=32)  # W3C trace id, 32 hex digits
    tenant_id: int | None = Field(default=None, foreign_key="tenant.id")  # None: no rule matched, at a site only
    site: str = Field(max_length=64)
    pbx: str = Field(max_length=64)
    direction: Direction = Field(sa_type=types.String(16))
    caller_id: str | None = None  # as the PBX told it; None when withheld or unknown
    caller_e164: str | None = None  # the same as a public number, "+905321234567"; None if it is none
    caller_name: str | None = None
    caller_presentation: Presentation | None = Field(default=None, sa_type=types.String(16))  # None: not noted
    callee_id: str | None = None  # the number first dialled
    callee_e164: str | None = None
    answered_by: str | None = None  # the number of who answered first
    last_answered_by: str | None = None  # of who joined last and talked
    status: Status = Field(sa_type=types.String(16))
    disposition: Disposition | None = Field(default=None, sa_type=types.String(16))
    start_time: datetime = _moment(nullable=False)
    pbx_answer_time: datetime | None = _moment(nullable=True)  # picked up by a menu, queue or announcement
    answer_time: datetime | None = _moment(nullable=True)  # by a person, a far end or an answering service
    end_time: datetime | None = _moment(nullable=True)
    ring_seconds: float = 0.0
    talk_seconds: float = 0.0
    hold_seconds: float = 0.0
    total_seconds: float = 0.0
    hangup_cause: int | None = None  # Q.850
    hangup_source: HangupSource | None = Field(default=None, sa_type=types.String(16))
    queue: str | None = None  # the last one it waited in
    queue_position: int | None = None  # the place it was given there
    queue_wait_seconds: float = Field(default=0.0, sa_column_kwargs={"server_default": text("0")})  # in all queues
    conference: str | None = None  # the room
    transferred: bool = False
    recording: str | None = None
    merged_into: str | None = None  # the call_sid of the call that went on, after an attended transfer
    legs: list[dict[str, Any]] = _json_list()
    timeline: list[dict[str, Any]] = _json_list()
    full_transcript: list[dict[str, Any]] = _json_list()
    source: str = Field(default="ami", max_length=64)  # ami, cel, cdr …; several joined by "+"
    start_estimated: bool = False  # the agent came when the call was already up
    end_estimated: bool = False  # the end was not seen; end_time is the last moment it was known alive
    revision: int = 1
    created_at: datetime = Field(default_factory=_now, sa_column=Column(UtcDateTime(), nullable=False))
    updated_at: datetime = Field(default_factory=_now, sa_column=Column(UtcDateTime(), nullable=False))


class Task(SQLModel, table=True):
    """A task a service ran during a call, in the order they were begun."""

    __table_args__ = (Index("uq_task_call_id_position", "call_id", "position", unique=True),)

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: int | None = Field(default=None, foreign_key="tenant.id")
    call_id: int = Field(sa_column=Column(ForeignKey("call.id", ondelete="CASCADE"), nullable=False))
    position: int
    task_name: str
    state_data: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JsonColumn, nullable=False))
    start_time: datetime = _moment(nullable=False)


class Interaction(SQLModel, table=True):
    """One thing said or done during a call, in order."""

    __table_args__ = (Index("uq_interaction_call_id_position", "call_id", "position", unique=True),)

    id: int | None = Field(default=None, primary_key=True)
    tenant_id: int | None = Field(default=None, foreign_key="tenant.id")
    call_id: int = Field(sa_column=Column(ForeignKey("call.id", ondelete="CASCADE"), nullable=False))
    position: int
    data: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JsonColumn, nullable=False))


SHARED_TABLES = ("tenant", "user", "call", "task", "interaction")
