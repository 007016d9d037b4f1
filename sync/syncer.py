"""Takes waiting calls from the outbox to the centre: soon after a commit, at every tick, and after an outage."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from config.settings import CentralSettings
from sync.backoff import Backoff
from sync.errors import OutboxUnavailable, SyncError, UplinkRefused, UplinkUnavailable
from sync.outbox import Outbox
from sync.records import Batch, Receipt, Verdict
from sync.uplink import Uplink

log = logging.getLogger(__name__)

# From one look at the outbox to the next: calls that end within it share a batch, its commits here and at the centre,
# and nobody who waits for a call to appear notices.
_GATHER_SECONDS = 0.2
# So many calls rejected with none taken between are the centre's fault, or our own, not theirs: stop and ask.
_REJECTED_IN_A_ROW = 20
_TROUBLES: dict[type[SyncError], tuple[int, str]] = {
    UplinkUnavailable: (logging.WARNING, "the centre is away; calls are kept here and sent later"),
    UplinkRefused: (logging.ERROR, "sync is paused until somebody acts; calls are kept here"),
    OutboxUnavailable: (logging.WARNING, "the outbox cannot be read; sync goes on later"),
}


class SyncState(StrEnum):
    """What the syncer does now."""

    IDLE = "idle"  # everything is sent
    SENDING = "sending"
    WAITING = "waiting"  # the centre is away; it is tried again at next_try_at
    PAUSED = "paused"  # a person has to act; looked at again at next_try_at
    OFF = "off"  # not running


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


@dataclass(frozen=True, slots=True)
class _Trouble:
    kind: type[SyncError]
    text: str
    since: datetime
    retry_at: float  # the loop's time
    next_try_at: datetime


class Syncer:
    """Sends one batch at a time. `run` does the work in a task; the rest is called from the same loop."""

    def __init__(
        self,
        outbox: Outbox,
        uplink: Uplink,
        settings: CentralSettings,
        *,
        backoff: Backoff | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._outbox = outbox
        self._uplink = uplink
        self._settings = settings
        self._backoff = backoff or Backoff(maximum=settings.retry_max_seconds, stable_seconds=0)
        self._now = now
        self._calls_wait = asyncio.Event()
        self._at_once = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._running = False
        self._is_checked = False  # the centre has been reached since the start
        self._sending = False
        self._limit = settings.batch_records
        self._trouble: _Trouble | None = None
        self._last_success_at: datetime | None = None
        self._sent = 0
        self._rejected = 0
        self._rejected_in_a_row = 0

    @property
    def status(self) -> SyncStatus:
        """How it goes."""
        trouble = self._trouble
        return SyncStatus(
            state=self._state(),
            last_success_at=self._last_success_at,
            last_error=trouble.text if trouble else None,
            troubled_since=trouble.since if trouble else None,
            next_try_at=trouble.next_try_at if trouble else None,
            sent=self._sent,
            rejected=self._rejected,
        )

    def wake(self) -> None:
        """Calls were committed: send them soon, or when the centre is back."""
        self._calls_wait.set()

    def wake_now(self) -> None:
        """An operator wishes it: try at once, also if the centre was away or refused."""
        self._calls_wait.set()
        self._at_once.set()

    async def run(self) -> None:
        """Send until cancelled; lets go of the uplink then."""
        scheduler = AsyncIOScheduler(timezone=UTC)
        # A late or missed tick is worth one look, however many were missed.
        scheduler.add_job(
            self._tick,
            "interval",
            seconds=self._settings.interval_seconds,
            max_instances=1,
            coalesce=True,
            misfire_grace_time=None,
        )
        scheduler.start()
        self._running = True
        try:
            while True:
                await self._send_all()
                await self._until_there_is_a_reason()
        finally:
            self._running = False
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
            await self._calls_wait.wait()

    async def _send_all(self) -> bool:
        """Send batch after batch until nothing waits; False if something is in the way."""
        async with self._one_at_a_time:
            self._sending = True
            try:
                self._calls_wait.clear()
                is_to_check = self._at_once.is_set() or not self._is_checked
                self._at_once.clear()
                while (batch := await self._outbox.next_batch(limit=self._limit)) is not None:
                    await self._send(batch)
                    is_to_check, self._is_checked = False, True
                if is_to_check:
                    # Nothing waits, so nothing else would show that the way is closed before the first call comes.
                    await self._uplink.check()
                    self._is_checked = True
                    self._trouble_ends()
                self._trouble = None
            except OutboxUnavailable as exc:
                self._trouble_comes(exc, self._backoff.next_delay())
                return False
            except UplinkUnavailable as exc:
                # Smaller ones next: perhaps the line is too slow for a batch of this size.
                self._limit = max(1, self._limit // 2)
                self._trouble_comes(exc, self._backoff.next_delay(at_least=exc.retry_after_seconds))
                return False
            except UplinkRefused as exc:
                self._trouble_comes(exc, self._settings.retry_max_seconds)
                return False
            finally:
                self._sending = False
            return True

    async def _send(self, batch: Batch) -> None:
        receipt = await self._uplink.send(batch)
        if not receipt.verdicts:
            raise UplinkUnavailable("the centre answered without a verdict on any call")
        self._stop_if_all_are_rejected(receipt)
        await self._outbox.settle(receipt)
        self._limit = min(self._limit * 2, self._settings.batch_records)
        self._trouble_ends()
        self._count(receipt)

    def _stop_if_all_are_rejected(self, receipt: Receipt) -> None:
        rejected = [verdict for verdict in receipt.verdicts if verdict.verdict is Verdict.REJECTED]
        if len(rejected) < len(receipt.verdicts):
            self._rejected_in_a_row = 0
            return
        if self._sent:
            # Others' calls are taken: a tenant that the centre does not know is that one tenant's trouble.
            rejected = [verdict for verdict in rejected if verdict.code != "unknown_tenant"]
        if not rejected:
            return
        if self._rejected_in_a_row + len(rejected) >= _REJECTED_IN_A_ROW:
            raise UplinkRefused(
                f"the centre rejects call after call, so no more are set aside; the last one: {rejected[-1].reason} "
                f"({rejected[-1].code})"
            )
        self._rejected_in_a_row += len(rejected)

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
            retry_at=asyncio.get_running_loop().time() + delay,
            next_try_at=now + timedelta(seconds=delay),
        )
        if before is None or before.kind is not type(exc):
            level, message = _TROUBLES[type(exc)]
            log.log(level, message, extra={"reason": str(exc)})

    def _trouble_ends(self) -> None:
        self._backoff.succeeded()
        if self._trouble is not None:
            lasted = (self._now() - self._trouble.since).total_seconds()
            log.info("the centre takes calls again", extra={"outage_seconds": round(lasted)})
            self._trouble = None

    def _state(self) -> SyncState:
        if not self._running:
            return SyncState.OFF
        if self._trouble is not None:
            return SyncState.PAUSED if self._trouble.kind is UplinkRefused else SyncState.WAITING
        return SyncState.SENDING if self._sending else SyncState.IDLE
