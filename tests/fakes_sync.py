"""Stand-ins for the two sides of the syncer, and call records to send."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from sync import wire
from sync.outbox import Backlog, Standing
from sync.records import (
    Batch,
    CallRecord,
    DayDigest,
    Greeting,
    HeldCall,
    Receipt,
    RecordReceipt,
    Verdict,
    Welcome,
)
from sync.syncer import Identity

HOLDER, LEASE = "0123456789abcdef", "7.the-lease"  # of an installation that has greeted
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
IDENTITY = Identity("istanbul", "1.2.3", holder="a-holder", host="pbx-1")
WELCOME = Welcome(
    centre="a-centre",
    receipts=0,
    lease="1.token",
    lease_seconds=60.0,
    server_time=NOON,
    tenants=("acme",),
    max_records=10_000,
    max_bytes=2**25,
)


def a_record(number: int = 1, /, **changes: Any) -> CallRecord:  # Any: whatever fields a record has
    """An answered inbound call, the number-th of a day."""
    start = NOON + timedelta(seconds=number)
    record = CallRecord(
        call_sid=f"istanbul:asterisk:{1772452800 + number}.{number}",
        revision=1,
        tenant="acme",
        trace_id=f"{number:032x}",
        site="istanbul",
        pbx="asterisk",
        direction="inbound",
        caller_id="+905321234567",
        caller_name="Gülşen Işık",
        callee_id="902121234567",
        answered_by="101",
        status="completed",
        disposition="answered",
        start_time=start,
        pbx_answer_time=start + timedelta(seconds=1),
        answer_time=start + timedelta(seconds=4),
        end_time=start + timedelta(seconds=64),
        ring_seconds=4.0,
        talk_seconds=60.0,
        hold_seconds=0.0,
        total_seconds=64.0,
        hangup_cause=16,
        hangup_source="caller",
        queue=None,
        transferred=False,
        recording=None,
        merged_into=None,
        legs='[{"channel": "PJSIP/trunk-acme-00000001"}]',
        timeline="[]",
        full_transcript="[]",
        source="ami",
        start_estimated=False,
        end_estimated=False,
        created_at=start + timedelta(seconds=64),
        updated_at=start + timedelta(seconds=64),
    )
    return record._replace(**changes)


def a_batch(*records: CallRecord, high_water: int = 1, site: str = "istanbul") -> Batch:
    """These records as one batch."""
    return Batch(site, list(records), high_water, HOLDER, LEASE)


class MemoryOutbox:
    """An Outbox in a dict: call_sid to its latest revision, oldest first."""

    def __init__(self, *records: CallRecord) -> None:
        self.waiting: dict[str, CallRecord] = {}
        self.quarantined: dict[str, RecordReceipt] = {}
        self.set_aside: dict[str, tuple[RecordReceipt, CallRecord]] = {}  # the same with the records
        self.deleted_until: datetime | None = None
        self.deleted_receipt = 0
        self.sequence = 0
        self.confirmed: dict[str, tuple[int, CallRecord]] = {}  # with the receipt's number
        self.under_way: set[str] = set()
        self.kept = Standing()
        self.faults: deque[Exception] = deque()  # raised by the next `settle`s
        for record in records:
            self.add(record)

    def add(self, record: CallRecord) -> None:
        """A call's revision was committed."""
        self.sequence += 1
        self.waiting[record.call_sid] = record

    async def next_batch(self, *, limit: int, fresh_since: datetime | None = None) -> Batch | None:
        """See `sync.outbox.Outbox`."""
        free = [record for sid, record in self.waiting.items() if sid not in self.under_way]
        fresh = [one for one in free if fresh_since is None or (one.end_time and one.end_time >= fresh_since)]
        records = fresh[:limit]
        self.under_way |= {record.call_sid for record in records}
        return Batch("istanbul", records, self.sequence) if records else None

    def release(self, batch: Batch) -> None:
        """See `sync.outbox.Outbox`."""
        self.under_way -= {record.call_sid for record in batch.records}

    async def settle(self, receipt: Receipt) -> None:
        """See `sync.outbox.Outbox`."""
        if self.faults:
            raise self.faults.popleft()
        for verdict in receipt.verdicts:
            waiting = self.waiting.get(verdict.call_sid)
            if waiting is None or waiting.revision != verdict.revision:
                continue
            del self.waiting[verdict.call_sid]
            if verdict.verdict is Verdict.REJECTED:
                self.quarantined[verdict.call_sid] = verdict
                self.set_aside[verdict.call_sid] = (verdict, waiting)
            else:
                self.confirmed[verdict.call_sid] = (receipt.number, waiting)
        self.kept = replace(self.kept, receipts=max(self.kept.receipts, receipt.number))

    async def backlog(self) -> Backlog:
        """See `sync.outbox.Outbox`."""
        return Backlog(len(self.waiting), NOON if self.waiting else None, len(self.quarantined))

    async def standing(self) -> Standing:
        """See `sync.outbox.Outbox`."""
        return self.kept

    async def keep_standing(self, standing: Standing) -> None:
        """See `sync.outbox.Outbox`."""
        self.kept = standing

    async def refill(self, *, after: int) -> int:
        """See `sync.outbox.Outbox`; two at once."""
        lost = [sid for sid, (number, _) in self.confirmed.items() if number > after][:2]
        for sid in lost:
            self.add(self.confirmed.pop(sid)[1])
        return len(lost)

    async def deleted_after(self, *, receipt: int) -> datetime | None:
        """See `sync.outbox.Outbox`."""
        return self.deleted_until if receipt < self.deleted_receipt else None

    async def readmit(self, tenants: Sequence[str]) -> int:
        """See `sync.outbox.Outbox`."""
        strangers = [sid for sid, (verdict, record) in self.set_aside.items()
                     if verdict.code == "unknown_tenant" and record.tenant in tenants]  # fmt: skip
        for sid in strangers:
            self.quarantined.pop(sid)
            self.add(self.set_aside.pop(sid)[1])
        return len(strangers)


class FakeUplink:
    """An Uplink that answers as told: the next of `answers` if there is one, else it accepts everything."""

    def __init__(self, *answers: Exception | Callable[[Batch], Receipt]) -> None:
        self.answers = deque(answers)
        self.batches: list[Batch] = []
        self.closed = False
        self.lanes = 4
        self.delay = 0.0  # seconds to every answer
        self.greetings: list[Greeting] = []
        self.greet_fault: Exception | None = None
        self.welcome = WELCOME
        self.in_flight = 0
        self.most_in_flight = 0
        self.gate = asyncio.Event()  # closed by `clear`, it holds every answer back
        self.gate.set()

    async def send(self, batch: Batch) -> Receipt:
        """See `sync.uplink.Uplink`."""
        self.batches.append(batch)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
            if self.delay:
                await asyncio.sleep(self.delay)
        finally:
            self.in_flight -= 1
        answer = self.answers.popleft() if self.answers else accept_all
        if isinstance(answer, Exception):
            raise answer
        return answer(batch)

    async def greet(self, greeting: Greeting) -> Welcome:
        """See `sync.uplink.Uplink`."""
        self.greetings.append(greeting)
        if self.greet_fault is not None:
            raise self.greet_fault
        return self.welcome

    async def days(self, first: date, last: date) -> Sequence[DayDigest]:
        """See `sync.uplink.Uplink`; it holds nothing."""
        return ()

    async def calls(self, tenant: str, day: date, *, after: str, limit: int) -> Sequence[HeldCall]:
        """See `sync.uplink.Uplink`; it holds nothing."""
        return ()

    async def close(self) -> None:
        """See `sync.uplink.Uplink`."""
        self.closed = True


def accept_all(batch: Batch) -> Receipt:
    """Every record is accepted."""
    return Receipt([RecordReceipt(record.call_sid, record.revision, Verdict.ACCEPTED) for record in batch.records])


def reject_all(batch: Batch) -> Receipt:
    """Every record is rejected."""
    return Receipt(
        [
            RecordReceipt(record.call_sid, record.revision, Verdict.REJECTED, "22P05", "refused")
            for record in batch.records
        ]
    )


def body_of(batch: Batch, records: Sequence[bytes]) -> bytes:
    """A batch as it goes to a hub, of records that were encoded before."""
    return b"".join(wire.encode_batch(batch, records))


def zstd_of(body: bytes) -> bytes:
    """The same for `Content-Encoding: zstd`."""
    return wire.compress([body])[0]
