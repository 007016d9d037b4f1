"""What is done by the clock: the journal is kept within its bounds."""

import asyncio
import logging
from typing import Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from agent.errors import StoreUnavailable
from agent.store.journal import Journal
from config.settings import StoreSettings

log = logging.getLogger(__name__)

_PRUNE_MINUTES: Final = 10


class Jobs:
    """The scheduled work of one agent."""

    def __init__(self, *, journal: Journal, settings: StoreSettings) -> None:
        self._journal = journal
        self._settings = settings

    async def run(self) -> None:
        """Work by the clock until cancelled. A bug in a job ends the agent, as everywhere."""
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def prune() -> None:
            try:
                await self._prune()
            except Exception as exc:  # noqa: BLE001 - handed on to `run`: APScheduler would only log it
                if not failed.done():
                    failed.set_exception(exc)

        scheduler = AsyncIOScheduler()
        scheduler.add_job(prune, IntervalTrigger(minutes=_PRUNE_MINUTES), coalesce=True, max_instances=1)
        scheduler.start()
        try:
            await failed
        finally:
            scheduler.shutdown(wait=False)

    async def _prune(self) -> None:
        try:
            removed = await self._journal.prune(
                keep=self._settings.journal_keep, max_bytes=self._settings.journal_max_megabytes * 2**20
            )
        except StoreUnavailable as exc:
            log.warning("the journal could not be pruned: %s", exc)
            return
        if removed:
            log.info("old journal segments were removed", extra={"segments": removed})
