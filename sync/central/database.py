"""The central database as both doors use it: connects by itself, lets sites in, stores and compares their calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date

import asyncpg

from sync.central import credentials, digests, guard, presence
from sync.central.connection import LOST_STATEMENTS, CentralAddress, connect, explain
from sync.central.credentials import Verified
from sync.central.ingest import Ingest
from sync.central.migrate import check
from sync.central.transaction import for_site, require_enabled
from sync.errors import SchemaMismatch, SyncError, UplinkRefused, UplinkUnavailable
from sync.records import Batch, DayDigest, Greeting, HeldCall, Receipt, Welcome
from sync.wire import Enrolled


class CentralDatabase:
    """One connection, made when needed and dropped after any trouble; several tasks take turns on it.

    `max_records` and `max_bytes` (before compression) of a batch are what it tells sites that greet. Works behind a
    pooler by session or by transaction: everything it sets ends with the transaction.
    """

    def __init__(
        self,
        address: CentralAddress,
        *,
        application_name: str,
        agent_version: str | None = None,
        timeout_seconds: float = 30.0,
        max_records: int = 10_000,
        max_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self._address = address
        self._application_name = application_name
        self._agent_version = agent_version
        self._timeout_seconds = timeout_seconds
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._statement_cache_size = 100
        self._one_at_a_time = asyncio.Lock()
        self._connection: asyncpg.Connection | None = None

    async def greet(self, greeting: Greeting) -> Welcome:
        """Answer a site's greeting. Raises UplinkUnavailable (LeaseHeld) or UplinkRefused (SiteRefused, Fenced)."""
        async with self._in_time() as connection, for_site(connection, greeting.site, self._timeout_seconds):
            return await presence.greet(connection, greeting, max_records=self._max_records, max_bytes=self._max_bytes)

    async def store(self, batch: Batch) -> Receipt:
        """Store the batch in one transaction and return a verdict on each record that was decided in time.

        Raises UplinkUnavailable (LeaseHeld, LeaseLost, CentreBehind) or UplinkRefused (SiteRefused, Fenced); the batch
        is then stored wholly or not at all, and can be sent again in either case.
        """
        async with self._in_time() as connection:
            receipt = await Ingest(connection, batch, self._agent_version, self._timeout_seconds).run()
        if batch.records and not receipt.verdicts:
            raise UplinkUnavailable(f"{self._address.label} is too slow to decide on any record in time")
        return receipt

    async def days(self, site: str, first: date, last: date) -> list[DayDigest]:
        """What the centre holds of a site by tenant and UTC day, both days included."""
        async with self._in_time() as connection, for_site(connection, site, self._timeout_seconds):
            await require_enabled(connection, site)
            return await digests.days(connection, site, first, last)

    async def calls(self, site: str, tenant: str, day: date, *, after: str, limit: int) -> list[HeldCall]:
        """A page of a site's calls of a tenant and UTC day, by `call_sid`; at most `digests.MOST_CALLS_AT_ONCE`."""
        async with self._in_time() as connection, for_site(connection, site, self._timeout_seconds):
            await require_enabled(connection, site)
            return await digests.calls(connection, site, tenant, day, after=after, limit=limit)

    async def verify(self, credential: str) -> Verified:
        """Tell whose credential it is; raises SiteRefused as `credentials.verify` does."""
        async with self._in_time() as connection:
            return await credentials.verify(connection, credential, self._timeout_seconds)

    async def enrol(self, code: str, *, site: str | None, host: str) -> Enrolled:
        """Exchange an enrolment code for a credential; raises SiteRefused as `credentials.enrol` does."""
        async with self._in_time() as connection:
            return await credentials.enrol(
                connection, code, site=site, host=host, timeout_seconds=self._timeout_seconds
            )

    async def rotate(self, credential: str) -> str:
        """Give a site a new credential; raises SiteRefused as `credentials.verify` does."""
        async with self._in_time() as connection:
            return await credentials.rotate(connection, credential, self._timeout_seconds)

    async def ping(self) -> None:
        """Raise UplinkUnavailable or UplinkRefused unless the database answers and its tables fit."""
        async with self._in_time() as connection:
            await connection.execute("SELECT 1")

    async def unguarded(self) -> str | None:
        """Why row-level security does not bind this login, in words; None if it does."""
        async with self._in_time() as connection:
            return await guard.unguarded(connection)

    async def check_role(self) -> None:
        """Raise UplinkRefused unless this login is one for a hub: bound by row-level security, in the hub's group."""
        async with self._in_time() as connection:
            await guard.require_hub(connection)

    async def close(self) -> None:
        """See `let_go`."""
        self.let_go()

    @property
    def is_busy(self) -> bool:
        """Whether somebody uses the connection, so that the next one waits."""
        return self._one_at_a_time.locked()

    def let_go(self) -> None:
        """Drop the connection; it is made anew if needed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            connection = await connect(
                self._address,
                application_name=self._application_name,
                statement_cache_size=self._statement_cache_size,
            )
            async with self._dropped_after_trouble(connection):
                await check(connection, self._address.label)
            self._connection = connection
        return self._connection

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[asyncpg.Connection]:
        """The connection, for one user at a time; waiting for one's turn is not part of the time there is."""
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    connection = await self._connected()
                    async with self._dropped_after_trouble(connection):
                        yield connection
            except TimeoutError:
                raise UplinkUnavailable(
                    f"{self._address.label} did not answer within {self._timeout_seconds:g} s"
                ) from None

    @asynccontextmanager
    async def _dropped_after_trouble(self, connection: asyncpg.Connection) -> AsyncIterator[None]:
        well = False
        try:
            yield
            well = True
        except SchemaMismatch as exc:
            raise UplinkRefused(str(exc)) from exc
        except SyncError:
            well = not connection.is_in_transaction()  # the centre said no in good order
            raise
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as exc:
            raise self._explained(exc) from None
        finally:
            if not well:
                # Not closed in good order, nor rolled back: a server that hangs would keep us waiting there too.
                connection.terminate()

    def _explained(self, exc: Exception) -> SyncError:
        if isinstance(exc, asyncpg.PostgresError) and exc.sqlstate in LOST_STATEMENTS:
            self._statement_cache_size = 0
            return UplinkUnavailable(f"{self._address.label} forgets prepared statements; going on without them")
        return explain(exc, self._address.label)
