"""What is done beside capturing, by the clock: what is old goes, days are verified, the database is looked after."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, timedelta
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from agent.errors import StoreUnavailable
from agent.store.retention import Retention
from agent.store.upkeep import Upkeep
from sync.every import Every, keep_in_step

log = logging.getLogger(__name__)

_PRUNE: Final = timedelta(minutes=10)
_RECONCILE: Final = timedelta(minutes=60)
_RECONCILE_JITTER_SECONDS: Final = 1800
_VERIFY: Final = timedelta(minutes=20)
_UPKEEP: Final = timedelta(minutes=5)
_FIRST: Final = timedelta(minutes=5)  # after a start, when what was missed has been read


class Jobs:
    """The scheduled work of one agent."""

    def __init__(
        self,
        *,
        retention: Retention,
        upkeep: Upkeep,
        reconcile: Callable[[], Awaitable[None]],
        verify: Callable[[], Awaitable[None]],
    ) -> None:
        self._retention = retention
        self._upkeep = upkeep
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

        def add(work: Callable[[], Awaitable[None]], every: Every, *, instances: int = 1) -> None:
            # A late or missed turn is worth one, however many were missed.
            once = {"coalesce": True, "misfire_grace_time": None}
            scheduler.add_job(guarded, every, [work], max_instances=instances, **once)

        add(self._prune, Every(_PRUNE))
        # Once a day it does something; sites that were switched on together do not all come at once.
        add(self._reconcile, Every(_RECONCILE, jitter_seconds=_RECONCILE_JITTER_SECONDS))
        # At the quiet hour it does something, or as soon after it as the agent runs.
        add(self._verify, Every(_VERIFY, first=_FIRST))
        # While one takes long, the next ends at once: else APScheduler would complain each time.
        add(self._upkeep.run_due, Every(_UPKEEP, first=timedelta() if self._upkeep.is_urgent else _FIRST), instances=2)
        scheduler.start()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keep_in_step(scheduler), name="clock")
                await failed
        finally:
            scheduler.shutdown(wait=False)

    async def _prune(self) -> None:
        try:
            await self._retention.run_due()
        except StoreUnavailable as exc:
            log.warning("what is old could not be deleted: %s", exc)
