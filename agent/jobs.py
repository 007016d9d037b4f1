"""What is done beside capturing: what is old goes, days are verified, and a doubtful database is looked through."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from agent.errors import StoreDamaged, StoreUnavailable
from agent.store.engine import Store, quick_check
from agent.store.retention import Retention

log = logging.getLogger(__name__)

_PRUNE_MINUTES: Final = 10
_RECONCILE_MINUTES: Final = 60
_RECONCILE_JITTER_SECONDS: Final = 1800
_VERIFY_MINUTES: Final = 20
_FIRST_VERIFY: Final = timedelta(minutes=5)  # after a start, when what was missed has been read


class Jobs:
    """The scheduled work of one agent."""

    def __init__(
        self,
        *,
        store: Store,
        retention: Retention,
        reconcile: Callable[[], Awaitable[None]],
        verify: Callable[[], Awaitable[None]],
    ) -> None:
        self._store = store
        self._retention = retention
        self._reconcile = reconcile
        self._verify = verify

    async def run(self) -> None:
        """Work by the clock until cancelled. A bug in a job ends the agent, as everywhere."""
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def guarded(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            except Exception as exc:  # noqa: BLE001 - handed on to `run`: APScheduler would only log it
                if not failed.done():
                    failed.set_exception(exc)

        scheduler = AsyncIOScheduler(timezone=UTC)  # the machine's own may be one that nobody knows
        prune = IntervalTrigger(minutes=_PRUNE_MINUTES, timezone=UTC)
        scheduler.add_job(guarded, prune, [self._prune], coalesce=True, max_instances=1)
        # Once a day it does something; sites that were switched on together do not all come at once.
        look = IntervalTrigger(minutes=_RECONCILE_MINUTES, jitter=_RECONCILE_JITTER_SECONDS, timezone=UTC)
        scheduler.add_job(guarded, look, [self._reconcile], coalesce=True, max_instances=1)
        # At the quiet hour it does something, or as soon after it as the agent runs.
        hour = IntervalTrigger(minutes=_VERIFY_MINUTES, start_date=datetime.now(UTC) + _FIRST_VERIFY, timezone=UTC)
        scheduler.add_job(guarded, hour, [self._verify], coalesce=True, max_instances=1)
        scheduler.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                if self._store.check_due:
                    tasks.create_task(self._check(), name="quick-check")
                await failed
        finally:
            scheduler.shutdown(wait=False)

    async def _check(self) -> None:
        """Look through the database once: after an unclean stop it was too large to be checked before the start."""
        path = self._store.path
        try:
            problems = await quick_check(path)
        except StoreDamaged as exc:
            problems = [str(exc)]
        except StoreUnavailable as exc:
            log.warning("the database could not be looked through: %s", exc)
            return
        if not problems:
            log.info("the database is sound after an unclean stop", extra={"file": str(path)})
            return
        self._store.damage.note(StoreDamaged(f"{path} is damaged ({problems[0]})"))

    async def _prune(self) -> None:
        try:
            await self._retention.run_due()
        except StoreUnavailable as exc:
            log.warning("what is old could not be deleted: %s", exc)
