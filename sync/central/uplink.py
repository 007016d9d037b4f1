"""The way to the centre without a hub: straight into its PostgreSQL."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import date

from config.settings import CentralSettings
from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.records import Batch, DayDigest, Greeting, HeldCall, Receipt, Welcome

_SPARE_SECONDS = 60.0

log = logging.getLogger(__name__)


class DirectUplink:
    """An Uplink that writes into the central database itself, as a database user of the site's.

    On one connection; while a backlog goes, on a second one as well, where the next batch is copied while one is
    merged. That one is closed when it was not needed for a minute.
    """

    door = "direct"
    lanes = 4  # one is merged, one copied, the others are read and settled here

    def __init__(self, settings: CentralSettings, *, site: str, agent_version: str) -> None:
        self._site = site
        self._is_guarded: bool | None = None  # None: not asked yet
        self._database, self._spare = (
            CentralDatabase(
                address_of(settings),
                application_name=f"edge-agent {site}",
                agent_version=agent_version,
                timeout_seconds=settings.timeout_seconds,
            )
            for _ in range(2)
        )
        self._two_at_a_time = asyncio.Semaphore(2)
        self._spare_ends: asyncio.TimerHandle | None = None

    async def greet(self, greeting: Greeting) -> Welcome:
        """Greet the centre; see `sync.uplink.Uplink`."""
        welcome = await self._database.greet(greeting)
        if self._is_guarded is None:
            why = await self._database.unguarded()
            self._is_guarded = why is None
            if why is not None:
                log.warning(
                    "nothing but this agent's own care keeps it from the calls of other sites at the centre; "
                    "`edge-hub sites add --direct` makes a database user of the site's own",
                    extra={"reason": why},
                )
        return welcome

    async def send(self, batch: Batch) -> Receipt:
        """Store the batch; see `sync.uplink.Uplink`."""
        async with self._two_at_a_time:
            if not self._database.is_busy:
                return await self._database.store(batch)
            try:
                return await self._spare.store(batch)
            finally:
                self._keep_spare_for(_SPARE_SECONDS)

    async def days(self, first: date, last: date) -> Sequence[DayDigest]:
        """What the centre holds by day; see `sync.uplink.Uplink`."""
        return await self._database.days(self._site, first, last)

    async def calls(self, tenant: str, day: date, *, after: str, limit: int) -> Sequence[HeldCall]:
        """What the centre holds of a day; see `sync.uplink.Uplink`."""
        return await self._database.calls(self._site, tenant, day, after=after, limit=limit)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._spare_ends is not None:
            self._spare_ends.cancel()
        self._spare.let_go()
        self._database.let_go()

    def _keep_spare_for(self, seconds: float) -> None:
        if self._spare_ends is not None:
            self._spare_ends.cancel()
        self._spare_ends = asyncio.get_running_loop().call_later(seconds, self._end_spare)

    def _end_spare(self) -> None:
        if not self._spare.is_busy:  # else it is kept anew afterwards
            self._spare.let_go()


def address_of(settings: CentralSettings) -> CentralAddress:
    """The central database that the settings name."""
    return CentralAddress(
        settings.url,
        password=settings.password,
        password_file=settings.password_file,
        tls_ca_file=settings.tls_ca_file,
    )
