"""Takes waiting calls from the outbox to the centre: soon after a commit, at every tick, and after an outage."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import partial

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from config import failpoints
from config.settings import CentralSettings
from sync.backoff import Backoff
from sync.errors import (
    BatchTooLarge,
    CentreBehind,
    Fenced,
    LeaseHeld,
    LeaseLost,
    OutboxUnavailable,
    SyncError,
    UplinkRefused,
    UplinkUnavailable,
)
from sync.every import Every, keep_in_step
from sync.outbox import Outbox, Standing
from sync.pace import BulkHours, Pace
from sync.records import Batch, Greeting, Receipt, RecordReceipt, Verdict, Welcome
from sync.refusals import UNKNOWN_TENANT, Refusals
from sync.uplink import Uplink

log = logging.getLogger(__name__)

# From one look at the outbox to the next: calls that end within it share a batch, its commits here and at the centre,
# and nobody who waits for a call to appear notices.
_GATHER_SECONDS = 0.2
# Outside the hours for a backlog, calls that ended so lately go nevertheless.
_FRESH = timedelta(hours=1)
# The first that fits, the gravest first.
_TROUBLES: tuple[tuple[type[SyncError], int, str], ...] = (
    (Fenced, logging.ERROR, "another installation speaks for this site; calls are kept here until somebody decides"),
    (UplinkRefused, logging.ERROR, "sync is paused until somebody acts; calls are kept here"),
    (LeaseHeld, logging.WARNING, "another installation speaks for this site just now; calls are kept here"),
    (UplinkUnavailable, logging.WARNING, "the centre is away; calls are kept here and sent later"),
    (OutboxUnavailable, logging.WARNING, "the outbox cannot be read; sync goes on later"),
)
# A batch that takes longer than this part of its time is made smaller, before one takes longer than all of it.
_SLOW_PART = 1 / 3
# A line that flaps is told no more often, in seconds.
_TOLD_EVERY_SECONDS = 60.0
# Whatever a centre says of its lease, it is neither renewed all the time nor forgotten.
_LEASE_SECONDS = (3.0, 3600.0)


class SyncState(StrEnum):
    """What the syncer does now."""

    IDLE = "idle"  # everything is sent
    SENDING = "sending"
    WAITING = "waiting"  # the centre is away; it is tried again at next_try_at
    PAUSED = "paused"  # a person has to act; looked at again at next_try_at
    OFF = "off"  # not running


@dataclass(frozen=True, slots=True)
class Identity:
    """Who speaks for a site: the site's name, and which running installation it is."""

    site: str
    agent_version: str
    holder: str  # a hash, see docs/hub.md
    host: str  # where it runs, in words


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """How the way to the centre is. `last_error` stays until the centre takes calls again."""

    state: SyncState
    last_success_at: datetime | None
    last_error: str | None
    troubled_since: datetime | None
    next_try_at: datetime | None
    sent: int  # since start: calls that the centre confirmed
    rejected: int  # since start: calls that it refused
    refilled: int  # since start: calls sent again because the centre had lost them
    is_fenced: bool  # another installation speaks for the site
    centre: str | None  # its identity; None until it was greeted since the start, as for the next three
    lease_until: datetime | None
    tenants: tuple[str, ...] | None  # granted to this site
    clock_offset_seconds: float | None  # how far the centre's clock is ahead of ours
    backlog_goes: tuple[str, ...] = ()  # the hours for which it waits now


@dataclass(frozen=True, slots=True)
class _Trouble:
    kind: type[SyncError]
    text: str
    since: datetime
    retry_at: float  # the loop's time
    next_try_at: datetime
    is_told: bool  # in the log


class Syncer:
    """Greets the centre, then keeps some batches under way. `run` does the work in a task; the rest is called from
    the same loop."""

    def __init__(
        self,
        outbox: Outbox,
        uplink: Uplink,
        settings: CentralSettings,
        *,
        identity: Identity,
        backoff: Backoff | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._outbox = outbox
        self._uplink = uplink
        self._settings = settings
        self._identity = identity
        self._backoff = backoff or Backoff(maximum=settings.retry_max_seconds, stable_seconds=0)
        self._now = now
        self._calls_wait = asyncio.Event()
        self._at_once = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._running = False
        self._sending = False
        self._pace = Pace(
            max_records=settings.largest_batch,
            max_lanes=min(settings.batches_under_way, uplink.lanes),
            slow_seconds=settings.timeout_seconds * _SLOW_PART,
        )
        self._bulk_hours = BulkHours(settings.bulk_hours)
        self._all_is_wished = False  # whatever the hour
        self._standing: Standing | None = None  # None: not read yet
        self._welcome: Welcome | None = None
        self._is_greeted = False  # nothing has gone wrong since
        self._spoke_at = 0.0  # the loop's time when the centre last heard of us
        self._spoke_time: datetime | None = None
        self._clock_offset: float | None = None
        self._trouble: _Trouble | None = None
        self._told: tuple[type[SyncError], float] | None = None  # the last trouble in the log, and the loop's time
        self._untold = 0  # troubles since
        self._last_success_at: datetime | None = None
        self._sent = 0
        self._rejected = 0
        self._refusals = Refusals()
        self._refilled = 0

    @property
    def status(self) -> SyncStatus:
        """How it goes."""
        trouble, welcome = self._trouble, self._welcome
        lease_until = self._spoke_time + timedelta(seconds=self._lease_seconds) if self._spoke_time else None
        return SyncStatus(
            state=self._state(),
            last_success_at=self._last_success_at,
            last_error=trouble.text if trouble else None,
            troubled_since=trouble.since if trouble else None,
            next_try_at=trouble.next_try_at if trouble else None,
            sent=self._sent,
            rejected=self._rejected,
            refilled=self._refilled,
            is_fenced=trouble is not None and issubclass(trouble.kind, LeaseHeld | Fenced),
            centre=welcome.centre if welcome else None,
            lease_until=lease_until,
            tenants=welcome.tenants if welcome else None,
            clock_offset_seconds=self._clock_offset,
            backlog_goes=() if self._bulk_hours.are_now(self._now().astimezone()) else self._settings.bulk_hours,
        )

    def wake(self) -> None:
        """Calls were committed: send them soon, or when the centre is back."""
        self._calls_wait.set()

    def wake_now(self) -> None:
        """An operator wishes it: try at once, also if the centre was away or refused, and send all that waits."""
        self._calls_wait.set()
        self._at_once.set()

    async def run(self) -> None:
        """Send until cancelled; lets go of the uplink then."""
        scheduler = AsyncIOScheduler(timezone=UTC)
        # A late or missed tick is worth one look, however many were missed.
        every = Every(timedelta(seconds=self._settings.interval_seconds))
        scheduler.add_job(self._tick, every, max_instances=1, coalesce=True, misfire_grace_time=None)
        scheduler.start()
        in_step = asyncio.create_task(keep_in_step(scheduler), name="syncer-clock")
        self._running = True
        try:
            while True:
                await self._send_all()
                await self._until_there_is_a_reason()
        finally:
            self._running = False
            in_step.cancel()
            scheduler.shutdown(wait=False)
            await self._uplink.close()

    async def drain(self, timeout: float) -> bool:
        """Before stopping: send what waits, for at most `timeout` seconds, and tell whether all of it went.

        A centre known to be away or refusing is not tried.
        """
        if self._trouble is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    return await self._send_all()
        return False

    async def _tick(self) -> None:
        self.wake()

    async def _until_there_is_a_reason(self) -> None:
        if self._trouble is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._trouble.retry_at):
                    await self._at_once.wait()
        else:
            await asyncio.sleep(_GATHER_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._renewal_at):
                    await self._calls_wait.wait()

    async def _send_all(self) -> bool:
        """Send batch after batch until nothing waits; False if something is in the way."""
        async with self._one_at_a_time:
            self._sending = True
            try:
                self._calls_wait.clear()
                if self._at_once.is_set() or self._loop_time() >= self._renewal_at:
                    self._is_greeted = False
                self._all_is_wished |= self._at_once.is_set()
                self._at_once.clear()
                try:
                    await self._empty_the_outbox()
                except (CentreBehind, LeaseLost):
                    await self._empty_the_outbox()  # which greets first
                self._all_is_wished = False
                self._trouble_ends()
            except OutboxUnavailable as exc:
                self._trouble_comes(exc, self._backoff.next_delay())
                return False
            except UplinkUnavailable as exc:
                self._pace.trouble()
                self._trouble_comes(exc, self._backoff.next_delay(at_least=exc.retry_after_seconds))
                return False
            except UplinkRefused as exc:
                self._trouble_comes(exc, self._settings.retry_max_seconds)
                return False
            finally:
                self._sending = False
            return True

    async def _empty_the_outbox(self) -> None:
        """Raises the gravest of what came in the way, when every batch that was under way has been answered."""
        if not self._is_greeted:
            await self._greet()
        faults: list[SyncError] = []
        async with asyncio.TaskGroup() as tasks:
            under_way: set[asyncio.Task[None]] = set()
            while True:
                while not faults and len(under_way) < self._pace.lanes:
                    batch = await self._next_batch(faults)
                    if batch is None:
                        break
                    under_way.add(tasks.create_task(self._fly(batch, faults), name="batch"))
                if not under_way:
                    break
                _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        if faults:
            raise min(faults, key=_place_in_troubles)

    async def _next_batch(self, faults: list[SyncError]) -> Batch | None:
        try:
            return await self._outbox.next_batch(limit=self._pace.limit, fresh_since=self._fresh_since())
        except OutboxUnavailable as exc:
            faults.append(exc)
            return None

    def _fresh_since(self) -> datetime | None:
        """Which calls go now: those that ended since then; None: all."""
        now = self._now()
        return None if self._all_is_wished or self._bulk_hours.are_now(now.astimezone()) else now - _FRESH

    async def _fly(self, batch: Batch, faults: list[SyncError]) -> None:
        is_full = len(batch.records) >= self._pace.limit
        began = self._loop_time()
        try:
            await self._send(batch)
            self._pace.answered(len(batch.records), seconds=self._loop_time() - began, is_full=is_full)
        except SyncError as exc:
            # Whatever it was, the centre may be another one when it answers again.
            self._is_greeted = self._is_greeted and isinstance(exc, OutboxUnavailable)
            faults.append(exc)
        finally:
            self._outbox.release(batch)

    async def _send(self, batch: Batch) -> None:
        began = self._loop_time()
        try:
            receipt = await self._uplink.send(self._signed(batch))
        except BatchTooLarge as exc:
            self._pace.too_large(len(batch.records))
            await self._send_in_parts(batch, exc)
            return
        if not receipt.verdicts:
            raise UplinkUnavailable("the centre answered without a verdict on any call")
        self._heard_from(began)
        failpoints.hit("syncer.sent")
        await self._settle(batch, receipt)
        failpoints.hit("syncer.settled")

    async def _send_in_parts(self, batch: Batch, exc: BatchTooLarge) -> None:
        middle = len(batch.records) // 2
        if middle:
            # The high-water mark is that of the last part: it says that everything before has come.
            await self._send(replace(batch, records=batch.records[:middle], high_water=0))
            await self._send(replace(batch, records=batch.records[middle:]))
            return
        record = batch.records[0]
        alone = RecordReceipt(record.call_sid, record.revision, Verdict.REJECTED, "batch_too_large", str(exc))
        await self._settle(batch, Receipt([alone]))

    async def _settle(self, batch: Batch, receipt: Receipt) -> None:
        tenants = {record.call_sid: record.tenant for record in batch.records}
        if self._refusals.may_be_set_aside(receipt.verdicts, is_expected=partial(self._is_expected, tenants)):
            await self._take_in(receipt)
            self._trouble_ends()
            return
        passed = [one for one in receipt.verdicts if one.verdict is not Verdict.REJECTED]
        if passed:
            await self._take_in(replace(receipt, verdicts=passed))
        last = [one for one in receipt.verdicts if one.verdict is Verdict.REJECTED][-1]
        raise UplinkRefused(
            f"the centre rejects call after call, so no more are set aside; the last one: {last.reason} ({last.code}); "
            "see the hub's log, and when it is mended: edge-agent sync now"
        )

    def _is_expected(self, tenants: Mapping[str, str], verdict: RecordReceipt) -> bool:
        """Whether the centre said at the greeting that it would: a tenant it does not know stops nobody else."""
        granted = self._welcome.tenants if self._welcome else ()
        is_strange = bool(granted) and tenants.get(verdict.call_sid) not in granted
        return verdict.code == UNKNOWN_TENANT and is_strange

    async def _take_in(self, receipt: Receipt) -> None:
        await self._outbox.settle(receipt)
        standing = self._standing or Standing()
        self._standing = replace(standing, receipts=max(standing.receipts, receipt.number))
        self._count(receipt)

    def _signed(self, batch: Batch) -> Batch:
        standing = self._standing or Standing()
        return replace(batch, holder=self._identity.holder, lease=standing.lease, receipts=standing.receipts)

    async def _greet(self) -> None:
        """Take or renew the lease; send again what the centre has lost, if it was restored or is another one."""
        standing = self._standing = self._standing or await self._outbox.standing()
        began, asked_at = self._loop_time(), self._now()
        welcome = await self._uplink.greet(
            Greeting(
                site=self._identity.site,
                agent_version=self._identity.agent_version,
                holder=self._identity.holder,
                host=self._identity.host,
                lease=standing.lease,
                lease_seconds=self._settings.lease_seconds,
            )
        )
        before, self._welcome = self._welcome, welcome
        self._heard_from(began)
        failpoints.hit("syncer.greeted")
        self._clock_offset = (welcome.server_time - (asked_at + (self._now() - asked_at) / 2)).total_seconds()
        self._pace.allow(welcome.max_records)
        # The lease first: without its token nobody would believe us after a crash in what follows.
        await self._keep(replace(standing, lease=welcome.lease))
        failpoints.hit("syncer.lease_kept")
        if standing.centre not in {None, welcome.centre}:
            await self._refill("the centre is another one than before", after=-1)
        elif welcome.receipts < standing.receipts:
            await self._refill("the centre was restored from a backup", after=welcome.receipts)
        await self._keep(Standing(welcome.centre, welcome.lease, welcome.receipts))
        if before is None or set(before.tenants) != set(welcome.tenants):
            await self._readmit(welcome.tenants)
        self._is_greeted = True

    async def _readmit(self, tenants: Sequence[str]) -> None:
        """What was refused for its tenant's sake goes out again when the centre knows the tenant."""
        calls = 0
        while step := await self._outbox.readmit(tenants):
            calls += step
        if calls:
            log.info("the centre knows a tenant now whose calls it had refused; they are sent", extra={"calls": calls})

    async def _keep(self, standing: Standing) -> None:
        if standing != self._standing:
            await self._outbox.keep_standing(standing)
            self._standing = standing

    async def _refill(self, why: str, *, after: int) -> None:
        calls = 0
        while step := await self._outbox.refill(after=after):
            failpoints.hit("syncer.refilled")
            calls += step
            self._refilled += step
        log.warning("%s; the calls it lacks are sent again", why, extra={"calls": calls})
        until = await self._outbox.deleted_after(receipt=after)
        if until is not None:
            log.warning(
                "of calls that the centre had confirmed, some are no longer kept here and cannot be sent again",
                extra={"until": until.isoformat()},
            )

    def _heard_from(self, began: float) -> None:
        """The centre answered what was asked at `began`, so the lease holds from then on."""
        self._spoke_at = max(self._spoke_at, began)
        self._spoke_time = self._now()

    @property
    def _lease_seconds(self) -> float:
        shortest, longest = _LEASE_SECONDS
        return min(max(self._welcome.lease_seconds if self._welcome else longest, shortest), longest)

    @property
    def _renewal_at(self) -> float:
        return self._spoke_at + self._lease_seconds / 3

    @staticmethod
    def _loop_time() -> float:
        return asyncio.get_running_loop().time()

    def _count(self, receipt: Receipt) -> None:
        rejected = [verdict for verdict in receipt.verdicts if verdict.verdict is Verdict.REJECTED]
        self._last_success_at = self._now()
        self._sent += len(receipt.verdicts) - len(rejected)
        self._rejected += len(rejected)
        if rejected:
            first = rejected[0]
            log.warning(
                "the centre rejects calls; they are set aside",
                extra={"calls": len(rejected), "call_sid": first.call_sid, "code": first.code, "reason": first.reason},
            )

    def _trouble_comes(self, exc: SyncError, delay: float) -> None:
        before, now = self._trouble, self._now()
        self._trouble = _Trouble(
            type(exc),
            str(exc),
            since=before.since if before else now,
            retry_at=self._loop_time() + delay,
            next_try_at=now + timedelta(seconds=delay),
            is_told=self._tell_trouble(exc) if before is None or before.kind is not type(exc) else before.is_told,
        )

    def _tell_trouble(self, exc: SyncError) -> bool:
        """In the log, unless the same was told just now."""
        if self._told is not None:
            kind, told_at = self._told
            if kind is type(exc) and self._loop_time() - told_at < _TOLD_EVERY_SECONDS:
                self._untold += 1
                return False
        _, level, message = _TROUBLES[_place_in_troubles(exc)]
        often = {"times_since_told": self._untold} if self._untold else {}
        log.log(level, message, extra={"reason": str(exc), **often})
        self._told, self._untold = (type(exc), self._loop_time()), 0
        return True

    def _trouble_ends(self) -> None:
        self._backoff.succeeded()
        if self._trouble is not None:
            lasted = (self._now() - self._trouble.since).total_seconds()
            if self._trouble.is_told:
                log.info("the centre takes calls again", extra={"outage_seconds": round(lasted)})
            self._trouble = None

    def _state(self) -> SyncState:
        if not self._running:
            return SyncState.OFF
        if self._trouble is not None:
            return SyncState.PAUSED if issubclass(self._trouble.kind, UplinkRefused) else SyncState.WAITING
        is_wished = self._at_once.is_set()  # and not yet begun
        return SyncState.SENDING if self._sending or is_wished else SyncState.IDLE


def _place_in_troubles(exc: SyncError) -> int:
    return next(at for at, (kind, _, _) in enumerate(_TROUBLES) if isinstance(exc, kind))
