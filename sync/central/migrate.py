"""Brings the central schema up to date, and tells whether it fits this program."""

import asyncio
from pathlib import Path
from typing import Any

import asyncpg

from sync.central import migrations
from sync.central.connection import CentralAddress, connect, explain
from sync.central.guard import secure
from sync.central.schema import SCHEMA_REVISION
from sync.errors import SchemaMismatch, SyncError, UplinkRefused

_ONE_AT_A_TIME = 0x5E17  # an advisory lock: two operators may migrate at the same moment
_MIGRATE_SECONDS = 3600.0  # a large table may take its time; a lost server must not take for ever


async def migrate(address: CentralAddress | str) -> str:
    """Make or upgrade the central tables in one transaction, and return the revision they are at now.

    Roles and rights are made afterwards. Raises SchemaMismatch if the tables are newer than this program,
    UplinkUnavailable or UplinkRefused if the database cannot be reached or changed, or roles are missing.
    """
    if isinstance(address, str):
        address = CentralAddress(address)
    connection = await connect(address, application_name="edge-hub migrate")
    try:
        async with asyncio.timeout(_MIGRATE_SECONDS):
            found = await read_revision(connection)
            if found is not None and found > SCHEMA_REVISION:
                raise SchemaMismatch(_newer(found, address.label))
            await _upgrade(connection)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as exc:
        raise _explain_upgrading(exc, address.label) from None
    finally:
        connection.terminate()
    return SCHEMA_REVISION


async def check(connection: asyncpg.Connection, label: str) -> None:
    """Raise SchemaMismatch, saying what to do, unless the tables are of this program or newer and compatible."""
    found = await read_revision(connection)
    if found is None:
        raise SchemaMismatch(f"{label} has no call tables yet; run `edge-hub migrate` on it")
    if found > SCHEMA_REVISION and await _compatible_from(connection) > SCHEMA_REVISION:
        raise SchemaMismatch(_newer(found, label))
    if found < SCHEMA_REVISION:
        raise SchemaMismatch(
            f"the tables in {label} are of revision {found}, this program needs {SCHEMA_REVISION}; "
            "run its `edge-hub migrate` on it"
        )


async def read_revision(connection: asyncpg.Connection) -> str | None:
    """The revision of the central tables; None if there are none."""
    try:
        found = await connection.fetchval("SELECT version_num FROM alembic_version")
    except asyncpg.UndefinedTableError:
        return None
    return None if found is None else str(found)


async def _compatible_from(connection: asyncpg.Connection) -> str:
    """The oldest revision whose programs these newer tables still serve."""
    found = await connection.fetchval("SELECT compatible_from FROM centre")
    return SCHEMA_REVISION + "~" if found is None else str(found)


def _newer(found: str, label: str) -> str:
    return (
        f"the tables in {label} are of revision {found}, newer than this program knows ({SCHEMA_REVISION}); "
        "install the newer version here"
    )


def _explain_upgrading(exc: Exception, label: str) -> SyncError:
    match exc:
        case asyncpg.InsufficientPrivilegeError():
            return UplinkRefused(f"{label}: the database user may not make tables there; migrate as the owner")
        case asyncpg.DuplicateTableError() | asyncpg.DuplicateObjectError():
            return UplinkRefused(
                f"{label} holds other tables of the same names; give the calls a database of their own"
            )
        case _:
            return explain(exc, label)


async def _upgrade(connection: asyncpg.Connection) -> None:
    # Heavy, and the agent, which only checks, does without them.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import Connection, text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import StaticPool

    async def the_open_connection(*_: Any, **__: Any) -> asyncpg.Connection:  # Any: what SQLAlchemy would connect with
        return connection

    def upgrade(sync_connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
        config.attributes["connection"] = sync_connection
        command.upgrade(config, "head")

    engine = create_async_engine(
        "postgresql+asyncpg://", async_creator=the_open_connection, poolclass=StaticPool, hide_parameters=True
    )
    try:
        async with engine.begin() as transaction:
            await transaction.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _ONE_AT_A_TIME})
            await transaction.run_sync(upgrade)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _ONE_AT_A_TIME)
            await secure(connection)
    except DBAPIError as exc:
        raise (exc.orig.__cause__ if exc.orig is not None and exc.orig.__cause__ is not None else exc) from None
    finally:
        await engine.dispose()
