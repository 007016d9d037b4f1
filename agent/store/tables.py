"""The tables that only the edge has: outbox, quarantine, journal, live calls, gaps, places in sources, and counts.

They live in the same metadata as the shared tables. Counts are kept by triggers, because counting a million waiting
rows is slow while reading one number is not; SQLite does not fire delete triggers for REPLACE, so nothing here is
ever written by INSERT OR REPLACE.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import DDL, JSON, Index, LargeBinary, Table, event, text
from sqlmodel import Column, Field, SQLModel

from sync.models import SHARED_TABLES, UtcDateTime


def _moment(*, nullable: bool = False) -> Any:  # Any: what SQLModel's Field returns stands for every type
    column = Column[datetime](UtcDateTime(), nullable=nullable)
    return Field(default=None, sa_column=column) if nullable else Field(sa_column=column)


class OutboxEntry(SQLModel, table=True):
    """A call whose latest revision waits to be sent. Without a cascade: an unsent call cannot be deleted."""

    __tablename__ = "outbox"
    __table_args__ = {"sqlite_autoincrement": True}

    sequence: int | None = Field(default=None, primary_key=True)
    call_id: int = Field(foreign_key="call.id", unique=True)
    revision: int
    enqueued_at: datetime = _moment()


class QuarantineEntry(SQLModel, table=True):
    """A call the centre refused, set aside with what the centre said."""

    __tablename__ = "quarantine"

    call_id: int = Field(foreign_key="call.id", primary_key=True, sa_column_kwargs={"autoincrement": False})
    revision: int
    code: str
    reason: str
    at: datetime = _moment()


class DroppedCall(SQLModel, table=True):
    """A refused call that an operator gave up: it is kept here and not sent, unless it changes. Outlives the call."""

    __tablename__ = "dropped_call"

    call_sid: str = Field(primary_key=True, max_length=255)
    tenant: str | None = None
    revision: int
    code: str
    reason: str
    refused_at: datetime = _moment()
    by: str  # the operating system's user
    at: datetime = _moment()


class Horizon(SQLModel, table=True):
    """What retention deleted of a tenant's calls: an unknown call of that time may be one of these."""

    tenant_id: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})  # 0: calls of no tenant
    until: datetime = _moment()  # when the latest of them began
    receipt: int  # the greatest number of a receipt that had confirmed one
    calls: int


class CallReceipt(SQLModel, table=True):
    """A call that the centre confirmed, and in which of its receipts: a centre that has given fewer has lost it."""

    __tablename__ = "call_receipt"

    call_id: int = Field(
        foreign_key="call.id", ondelete="CASCADE", primary_key=True, sa_column_kwargs={"autoincrement": False}
    )
    number: int = Field(index=True)  # 0: confirmed before receipts had numbers


class CentreStanding(SQLModel, table=True):
    """One row: how this site stands with its centre, and what the last reconciliation found."""

    __tablename__ = "centre"

    id: int | None = Field(default=None, primary_key=True)
    identity: str | None = None
    lease: str | None = Field(default=None, repr=False)
    receipts: int = 0
    reconciled: dict[str, Any] | None = Field(  # Any: what `sync.reconciler` tells
        default=None, sa_column=Column(JSON(none_as_null=True), nullable=True)
    )


class JournalSegment(SQLModel, table=True):
    """What one PBX said between two commits, byte for byte; `agent.store.journal` tells the blob's format."""

    __tablename__ = "journal_segment"
    __table_args__ = (Index("ix_journal_segment_pbx_id", "pbx", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    pbx: str
    boot_id: str
    connection: int  # grows with every connection made to this PBX since the agent started
    first_at: datetime = _moment()
    last_at: datetime = _moment()
    monotonic_ns: int  # the monotonic clock at first_at; together with boot_id it survives a wall clock that jumps
    frame_count: int
    raw_size: int
    blob: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class LiveCall(SQLModel, table=True):
    """A call that has not ended, with the segment from which a replay finds all of it."""

    __tablename__ = "live_call"
    __table_args__ = (Index("ix_live_call_pbx_journal_id", "pbx", "journal_id"),)

    call_sid: str = Field(primary_key=True, max_length=255)
    pbx: str
    journal_id: int  # no foreign key: the anchor may be noted for a PBX that has said nothing yet
    start_time: datetime = _moment()


class PartOfCall(SQLModel, table=True):
    """What seemed to be a call, and the live feed found to be a part of another: no source may tell it as a call."""

    __tablename__ = "part_of_call"

    call_sid: str = Field(primary_key=True, max_length=255)
    part_of: str = Field(max_length=255)  # a call_sid
    at: datetime = _moment()


class Gap(SQLModel, table=True):
    """A time in which a PBX was not heard. At most one per PBX is open, that is, without `to_at`."""

    __table_args__ = (
        Index("uq_gap_pbx_from_at", "pbx", "from_at", unique=True),
        Index("uq_gap_open", "pbx", unique=True, sqlite_where=text("to_at IS NULL")),
    )

    id: int | None = Field(default=None, primary_key=True)
    pbx: str
    from_at: datetime = _moment()
    to_at: datetime | None = _moment(nullable=True)
    reason: str  # a word: line_lost, pbx_restarted, agent_stopped, agent_down
    detail: str | None = None  # a sentence for the operator
    backfilled_at: datetime | None = _moment(nullable=True)  # when a second source had filled it
    filled_by: str | None = None  # that source's name
    calls_found: int | None = None  # by it: calls of this time that were not known, or not wholly


class SourcePlace(SQLModel, table=True):
    """Up to where a second source of a PBX was read; written together with the calls that came of it."""

    __tablename__ = "source_place"

    pbx: str = Field(primary_key=True)
    source: str = Field(primary_key=True)  # its name in the settings
    kind: str
    place: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # Any: what the source's reader makes of it
    since: datetime = _moment()  # calls that ended earlier are none of ours
    read_until: datetime | None = _moment(nullable=True)  # when it was last read to its end
    records: int = 0  # read so far
    rejects: int = 0  # of them not understood
    updated_at: datetime = _moment()


class SourceReject(SQLModel, table=True):
    """What stands in a source and is no record; the latest of each source."""

    __tablename__ = "source_reject"
    __table_args__ = (Index("ix_source_reject_pbx_source", "pbx", "source", "id"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, primary_key=True)
    pbx: str
    source: str
    position: str  # where it stands, in words
    raw: bytes = Field(sa_column=Column(LargeBinary, nullable=False))  # at most its beginning
    reason: str
    at: datetime = _moment()


class Coverage(SQLModel, table=True):
    """A day of a PBX's calls held against what the PBX wrote down itself; `agent.coverage` makes it."""

    pbx: str = Field(primary_key=True)
    day: str = Field(primary_key=True)  # 2026-11-22, in the PBX's time zone
    source: str  # the names of what was read, with + between
    known: int  # to the PBX
    held: int  # here
    missing: int  # known to the PBX and not held
    extra: int  # held, and the PBX should know them and does not
    untold: int  # held, and the source cannot know them
    differing: int
    trouble: str | None = None  # why it could not be verified, a sentence
    at: datetime = _moment()


class Account(SQLModel, table=True):
    """What one source told of a call that several told of, as far as its record may need it again."""

    __tablename__ = "account"

    call_id: int = Field(
        foreign_key="call.id", ondelete="CASCADE", primary_key=True, sa_column_kwargs={"autoincrement": False}
    )
    source: str = Field(primary_key=True)
    told: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # Any: encoded columns of a call


class ContextOperation(SQLModel, table=True):
    """What a service wrote into a call's context, until the call's row holds what came of it."""

    __tablename__ = "context_operation"
    __table_args__ = (Index("ix_context_operation_call_sid", "call_sid", "number"), {"sqlite_autoincrement": True})

    number: int | None = Field(default=None, primary_key=True)
    call_sid: str = Field(max_length=255)  # no foreign key: a live call has no row yet
    kind: str
    content: str = Field(repr=False)  # JSON; `agent.calls.operations` knows its form
    service: str
    at: datetime = _moment()
    revision: int  # of the context, at least
    idempotency_key: str | None = None


class ServiceToken(SQLModel, table=True):
    """A service that may use the live context (`agent.store.services`)."""

    __tablename__ = "service"

    name: str = Field(primary_key=True)
    token_hash: str = Field(unique=True, repr=False)  # SHA-256, in hexadecimal digits
    tenants: list[str] | None = Field(sa_column=Column(JSON(none_as_null=True), nullable=True))  # None: all
    may_write: bool
    added_at: datetime = _moment()


class Erasure(SQLModel, table=True):
    """A person was erased, and how much that was; of the number only a salted hash of each of its forms is kept.

    By these a source that is read again does not bring back what was erased.
    """

    __table_args__ = {"sqlite_autoincrement": True}

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = _moment()
    by: str  # the operating system's user
    tenant: str | None = None  # None: whosever calls
    salt: bytes = Field(sa_column=Column(LargeBinary, nullable=False), repr=False)
    hashes: list[str] = Field(sa_column=Column(JSON, nullable=False), repr=False)
    calls: int = 0  # emptied
    mentions: int = 0  # calls of others in which the number was named
    frames: int = 0  # of the journal
    ended_at: datetime | None = _moment(nullable=True)  # None: it was broken off, and has to be done again


class ErasedCall(SQLModel, table=True):
    """A call that was emptied: nothing is told of it any more, whoever tells it."""

    __tablename__ = "erased_call"

    call_sid: str = Field(primary_key=True, max_length=255)
    erasure_id: int = Field(foreign_key="erasure.id")


class Counter(SQLModel, table=True):
    """A number that triggers keep: rows in the outbox and quarantine, bytes in the journal."""

    name: str = Field(primary_key=True)
    value: int = 0


EDGE_TABLES = (
    "outbox", "quarantine", "dropped_call", "horizon", "call_receipt", "centre", "journal_segment", "live_call",
    "part_of_call", "gap", "source_place", "source_reject", "coverage", "account", "context_operation", "service",
    "erasure", "erased_call", "counter",
)  # fmt: skip
STORE_TABLES = frozenset(SHARED_TABLES) | frozenset(EDGE_TABLES)


COUNTER_DDL = (
    "INSERT INTO counter (name, value) VALUES ('outbox_records', 0)",
    "CREATE TRIGGER outbox_records_added AFTER INSERT ON outbox "
    "BEGIN UPDATE counter SET value = value + 1 WHERE name = 'outbox_records'; END",
    "CREATE TRIGGER outbox_records_removed AFTER DELETE ON outbox "
    "BEGIN UPDATE counter SET value = value - 1 WHERE name = 'outbox_records'; END",
    "INSERT INTO counter (name, value) VALUES ('quarantine_records', 0)",
    "CREATE TRIGGER quarantine_records_added AFTER INSERT ON quarantine "
    "BEGIN UPDATE counter SET value = value + 1 WHERE name = 'quarantine_records'; END",
    "CREATE TRIGGER quarantine_records_removed AFTER DELETE ON quarantine "
    "BEGIN UPDATE counter SET value = value - 1 WHERE name = 'quarantine_records'; END",
    "INSERT INTO counter (name, value) VALUES ('journal_bytes', 0)",
    "CREATE TRIGGER journal_bytes_added AFTER INSERT ON journal_segment "
    "BEGIN UPDATE counter SET value = value + length(NEW.blob) WHERE name = 'journal_bytes'; END",
    "CREATE TRIGGER journal_bytes_removed AFTER DELETE ON journal_segment "
    "BEGIN UPDATE counter SET value = value - length(OLD.blob) WHERE name = 'journal_bytes'; END",
)


def table_of(model: type[SQLModel]) -> Table:
    """The SQLAlchemy table behind a model, which SQLModel leaves untyped."""
    table: Table = model.__table__  # type: ignore[attr-defined]  # set by SQLModel's metaclass
    return table


def store_tables() -> list[Table]:
    """Every table of the edge database, in the order in which they can be created."""
    return [table for table in SQLModel.metadata.sorted_tables if table.name in STORE_TABLES]


def _keep_counts(table: Table, *names: str) -> None:
    for statement in COUNTER_DDL:
        if any(name in statement for name in names):
            ddl = DDL(statement)  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
            event.listen(table, "after_create", ddl.execute_if(dialect="sqlite"))


# A trigger looks for `counter` only when it fires, so the order in which the tables are created does not matter.
_keep_counts(table_of(Counter), "INSERT INTO counter")
_keep_counts(table_of(OutboxEntry), "TRIGGER outbox_records")
_keep_counts(table_of(QuarantineEntry), "TRIGGER quarantine_records")
_keep_counts(table_of(JournalSegment), "TRIGGER journal_bytes")
