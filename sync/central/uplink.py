"""The way to the centre without a hub: straight into its PostgreSQL."""

import logging
from collections.abc import Sequence
from datetime import date

from config.settings import CentralSettings
from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.records import Batch, DayDigest, Greeting, HeldCall, Receipt, Welcome

log = logging.getLogger(__name__)


class DirectUplink:
    """An Uplink that writes into the central database itself, as a database user of the site's."""

    door = "direct"
    lanes = 2  # on one connection: while a batch is stored, the last one is settled here and the next is read

    def __init__(self, settings: CentralSettings, *, site: str, agent_version: str) -> None:
        self._site = site
        self._is_guarded: bool | None = None  # None: not asked yet
        self._database = CentralDatabase(
            address_of(settings),
            application_name=f"edge-agent {site}",
            agent_version=agent_version,
            timeout_seconds=settings.timeout_seconds,
        )

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
        return await self._database.store(batch)

    async def days(self, first: date, last: date) -> Sequence[DayDigest]:
        """What the centre holds by day; see `sync.uplink.Uplink`."""
        return await self._database.days(self._site, first, last)

    async def calls(self, tenant: str, day: date, *, after: str, limit: int) -> Sequence[HeldCall]:
        """What the centre holds of a day; see `sync.uplink.Uplink`."""
        return await self._database.calls(self._site, tenant, day, after=after, limit=limit)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._database.close()


def address_of(settings: CentralSettings) -> CentralAddress:
    """The central database that the settings name."""
    return CentralAddress(
        settings.url,
        password=settings.password,
        password_file=settings.password_file,
        tls_ca_file=settings.tls_ca_file,
    )
