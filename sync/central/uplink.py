"""The way to the centre without a hub: straight into its PostgreSQL."""

from config.settings import CentralSettings
from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.records import Batch, Receipt


class DirectUplink:
    """An Uplink that writes into the central database itself, as a database user of the site's."""

    def __init__(self, settings: CentralSettings, *, site: str, agent_version: str) -> None:
        self._site = site
        self._database = CentralDatabase(
            address_of(settings),
            application_name=f"edge-agent {site}",
            agent_version=agent_version,
            timeout_seconds=settings.timeout_seconds,
        )

    async def send(self, batch: Batch) -> Receipt:
        """Store the batch; see `sync.uplink.Uplink`."""
        return await self._database.store(batch)

    async def check(self) -> None:
        """Store a batch of nothing; see `sync.uplink.Uplink`."""
        await self._database.store(Batch(site=self._site, records=(), high_water=0))

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
