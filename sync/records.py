"""What travels from a site to the centre: one record per call, in batches, answered record by record.

A record is a plain tuple whose JSON members are JSON text, so that it goes from SQLite's row to PostgreSQL's COPY
without being parsed and printed again on the way. On its way to a hub it is JSON as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple, cast


class CallRecord(NamedTuple):
    """One revision of one call with its children, as both sides understand it.

    Moments are aware UTC. `legs`, `timeline`, `full_transcript`, `tasks` and `interactions` are JSON arrays as text;
    an element of `tasks` is {position, task_name, state_data, start_time}, of `interactions` {position, data}.
    Fields are only ever added at the end, with a default: a record of an older agent lacks them and is as good.
    """

    call_sid: str
    revision: int
    tenant: str  # the tenant's name; each side has its own key for it
    trace_id: str
    site: str
    pbx: str
    direction: str
    caller_id: str | None
    caller_name: str | None
    callee_id: str | None
    answered_by: str | None
    status: str
    disposition: str | None
    start_time: datetime
    pbx_answer_time: datetime | None
    answer_time: datetime | None
    end_time: datetime | None
    ring_seconds: float
    talk_seconds: float
    hold_seconds: float
    total_seconds: float
    hangup_cause: int | None
    hangup_source: str | None
    queue: str | None
    transferred: bool
    recording: str | None
    merged_into: str | None
    legs: str
    timeline: str
    full_transcript: str
    source: str
    start_estimated: bool
    end_estimated: bool
    created_at: datetime
    updated_at: datetime
    tasks: str = "[]"
    interactions: str = "[]"
    caller_e164: str | None = None
    caller_presentation: str | None = None
    callee_e164: str | None = None
    last_answered_by: str | None = None
    queue_position: int | None = None
    queue_wait_seconds: float = 0.0
    conference: str | None = None


class EncodedRecord(NamedTuple):
    """A record that is JSON already, as docs/hub.md has it, and what the sender has to know of it."""

    call_sid: str
    revision: int
    tenant: str
    json: bytes


class CopyRecord(NamedTuple):
    """A record that is a row of PostgreSQL's COPY already (`sync.central.copying`), and what its ingest has to know."""

    call_sid: str
    revision: int
    tenant: str
    site: str
    tasks: str
    interactions: str
    row: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one site, at most one per call. `high_water` is the largest outbox sequence among them.

    `holder` and `lease` show that the sender may speak for the site, `receipts` is the greatest receipt number it
    holds: docs/hub.md.
    """

    site: str
    records: Sequence[CallRecord | EncodedRecord | CopyRecord]  # a hub takes the first two, PostgreSQL all but encoded
    high_water: int
    holder: str = ""
    lease: str | None = field(default=None, repr=False)
    receipts: int = 0

    @property
    def values(self) -> Sequence[CallRecord]:
        """The records of a batch that holds nothing but values."""
        return cast(Sequence[CallRecord], self.records)

    @property
    def for_hub(self) -> Sequence[CallRecord | EncodedRecord]:
        """The records of a batch on its way to a hub."""
        return cast(Sequence[CallRecord | EncodedRecord], self.records)

    @property
    def for_copy(self) -> Sequence[CallRecord | CopyRecord]:
        """The records of a batch on its way into PostgreSQL."""
        return cast(Sequence[CallRecord | CopyRecord], self.records)


class Verdict(StrEnum):
    """What became of a record at the centre. ACCEPTED and SUPERSEDED both mean: it need not be sent again."""

    ACCEPTED = "accepted"
    SUPERSEDED = "superseded"  # the centre already holds this revision or a newer one
    REJECTED = "rejected"  # the centre will not take this record, now or later, as it is


@dataclass(frozen=True, slots=True)
class RecordReceipt:
    """The verdict on one revision of one call. `code` and `reason` say why it was rejected.

    `held_revision` is the one the centre holds, told of a superseded record.
    """

    call_sid: str
    revision: int
    verdict: Verdict
    code: str | None = None
    reason: str | None = None
    held_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A verdict on each record of the batch, in the batch's order; everything accepted is durable.

    Records that the centre could not decide on in time have none, and go on waiting. `number` counts the batches of
    this site that the centre has stored.
    """

    verdicts: Sequence[RecordReceipt]
    number: int = 0


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a site tells before it sends anything: docs/hub.md."""

    site: str
    agent_version: str
    holder: str  # of this running installation, a hash
    host: str  # where it runs, in words
    lease: str | None = field(repr=False)  # the token last given
    lease_seconds: float  # how long it wishes to hold the site without a word


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the centre answers to a greeting."""

    centre: str  # its identity, a UUID made with its tables
    receipts: int  # the number of the last batch of this site that it stored
    lease: str = field(repr=False)
    lease_seconds: float
    server_time: datetime
    tenants: tuple[str, ...]  # granted to the site
    max_records: int  # of a batch
    max_bytes: int  # of a batch before compression


@dataclass(frozen=True, slots=True)
class DayDigest:
    """A tenant's calls of one UTC day at one site: how many, and the digest of docs/hub.md, 16 hex digits."""

    tenant: str
    day: date
    calls: int
    digest: str


@dataclass(frozen=True, slots=True)
class HeldCall:
    """A call as reconciliation knows it."""

    call_sid: str
    revision: int
