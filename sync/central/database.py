"""The central database as a place for calls: connects by itself, stores batches, knows how far a site has come."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from sync.central.connection import CentralAddress, connect, explain
from sync.central.ingest import Ingest
from sync.central.migrate import check
from sync.errors import SchemaMismatch, SyncError, UplinkRefused, UplinkUnavailable
from sync.records import Batch, Receipt

# What a pooler without support for prepared statements (pgbouncer before 1.21, by transaction) makes of them.
_LOST_STATEMENTS = frozenset({"26000", "42P05"})


class CentralDatabase:
    """One connection, made when needed and dropped after any trouble. Used by one task at a time.

    Works behind a pooler by session or by transaction: everything it sets ends with the transaction.
    """

    def __init__(
        self,
        address: CentralAddress,
        *,
        application_name: str,
        agent_version: str | None = None,
        timeout_seconds: float = 30.0,
    ) -> None:
        self._address = address
        self._application_name = application_name
        self._agent_version = agent_version
        self._timeout_seconds = timeout_seconds
        self._statement_cache_size = 100
        self._connection: asyncpg.Connection | None = None

    async def store(self, batch: Batch) -> Receipt:
        """Store the batch in one transaction and return a verdict on each record that was decided in time.

        Raises UplinkUnavailable or UplinkRefused; the batch is then stored wholly or not at all, and can be sent
        again in either case.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                connection = await self._connected()
                ingest = Ingest(connection, batch, self._agent_version, self._timeout_seconds)
                async with self._dropped_after_trouble(connection):
                    receipt = await ingest.run()
        except TimeoutError:
            raise UplinkUnavailable(
                f"{self._address.label} did not answer within {self._timeout_seconds:g} s"
            ) from None
        if batch.records and not receipt.verdicts:
            raise UplinkUnavailable(f"{self._address.label} is too slow to decide on any record in time")
        return receipt

    async def close(self) -> None:
        """Let go of the connection; it is made anew if needed."""
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
    async def _dropped_after_trouble(self, connection: asyncpg.Connection) -> AsyncIterator[None]:
        well = False
        try:
            yield
            well = True
        except SchemaMismatch as exc:
            raise UplinkRefused(str(exc)) from exc
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError) as exc:
            raise self._explained(exc) from None
        finally:
            if not well:
                # Not closed in good order, nor rolled back: a server that hangs would keep us waiting there too.
                connection.terminate()

    def _explained(self, exc: Exception) -> SyncError:
        if isinstance(exc, asyncpg.PostgresError) and exc.sqlstate in _LOST_STATEMENTS:
            self._statement_cache_size = 0
            return UplinkUnavailable(f"{self._address.label} forgets prepared statements; going on without them")
        return explain(exc, self._address.label)
