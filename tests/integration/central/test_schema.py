"""The central tables: migrations and models say the same."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.ext.asyncio import create_async_engine

from sync.central import migrations
from sync.central.connection import CentralAddress
from sync.central.migrate import check, migrate
from sync.central.schema import OF_A_TENANT, SCHEMA_REVISION, central_metadata
from sync.errors import SchemaMismatch, UplinkRefused
from tests.postgres import PostgresDatabase

Found = TypeVar("Found")


def test_the_schema_revision_is_the_newest_migration() -> None:
    assert ScriptDirectory(migrations.__path__[0]).get_heads() == [SCHEMA_REVISION]


async def test_models_and_migrations_give_the_same_tables(central_database: PostgresDatabase) -> None:
    def compare(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return list(compare_metadata(context, central_metadata()))

    assert await _inspected(central_database, compare) == []


async def test_primary_keys_and_foreign_keys_are_those_of_the_models(central_database: PostgresDatabase) -> None:
    metadata = central_metadata()

    def read(connection: Connection) -> dict[str, object]:
        inspector = inspect(connection)
        return {
            name: (
                inspector.get_pk_constraint(name)["constrained_columns"],
                sorted(
                    (key["constrained_columns"], key["referred_columns"], key["options"].get("ondelete"))
                    for key in inspector.get_foreign_keys(name)
                ),
            )
            for name in metadata.tables
        }

    assert await _inspected(central_database, read) == {
        name: (
            table.primary_key.columns.keys(),
            sorted(
                (key.column_keys, [element.column.name for element in key.elements], key.ondelete)
                for key in table.foreign_key_constraints
            ),
        )
        for name, table in metadata.tables.items()
    }


@pytest.mark.parametrize("name", sorted(OF_A_TENANT))
async def test_every_unique_key_of_a_tenants_table_starts_with_the_tenant(
    central_database: PostgresDatabase, name: str
) -> None:
    def read(connection: Connection) -> list[list[str]]:
        inspector = inspect(connection)
        unique = [key["column_names"] for key in inspector.get_unique_constraints(name)]
        return [inspector.get_pk_constraint(name)["constrained_columns"], *unique]

    keys = await _inspected(central_database, read)

    assert len(keys) == 2
    assert all(key[0] == "tenant_id" for key in keys)


async def test_migrating_twice_changes_nothing(empty_database: PostgresDatabase) -> None:
    assert await migrate(empty_database.dsn) == SCHEMA_REVISION
    assert await migrate(empty_database.dsn) == SCHEMA_REVISION


async def test_two_operators_may_migrate_at_the_same_moment(empty_database: PostgresDatabase) -> None:
    both = await asyncio.gather(migrate(empty_database.dsn), migrate(empty_database.dsn))

    assert set(both) == {SCHEMA_REVISION}


async def test_a_migration_takes_nothing_away_from_calls_already_there(central_database: PostgresDatabase) -> None:
    await central_database.add_tenants("acme")

    await migrate(central_database.dsn)

    assert [row["name"] for row in await central_database.fetch("SELECT name FROM tenant")] == ["acme"]


async def test_tables_of_the_first_revision_are_upgraded_and_keep_their_calls(empty_database: PostgresDatabase) -> None:
    await _migrate_to("0001", empty_database)
    await empty_database.add_tenants("acme")
    await empty_database.execute(_OLD_CALL)
    [before] = await empty_database.fetch("SELECT * FROM call")

    await migrate(empty_database.dsn)

    [after] = await empty_database.fetch("SELECT * FROM call")
    new = {name: after[name] for name in set(after.keys()) - set(before.keys())}
    assert {name: after[name] for name in before.keys()} == dict(before)  # noqa: SIM118 - a Record's own are values
    assert new.pop("queue_wait_seconds") == 0.0
    assert len(new) == 6
    assert set(new.values()) == {None}


async def test_what_names_none_of_the_new_columns_is_still_taken(central_database: PostgresDatabase) -> None:
    await central_database.add_tenants("acme")

    await central_database.execute(_OLD_CALL)

    [row] = await central_database.fetch("SELECT caller_presentation, queue_wait_seconds FROM call")
    assert tuple(row) == (None, 0.0)


async def test_a_newer_schema_is_left_alone(central_database: PostgresDatabase) -> None:
    await central_database.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(SchemaMismatch, match=r"newer than this program knows.*install the newer version"):
        await migrate(central_database.dsn)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DROP TABLE alembic_version", "has no call tables yet; run `edge-hub migrate`"),
        ("DELETE FROM alembic_version", "has no call tables yet; run `edge-hub migrate`"),
        ("UPDATE alembic_version SET version_num = '0000'", "of revision 0000, this program needs"),
        (
            "UPDATE alembic_version SET version_num = '9999'; UPDATE centre SET compatible_from = '9999'",
            "of revision 9999, newer than this program",
        ),
    ],
)
async def test_a_schema_that_does_not_fit_is_told_with_what_to_do(
    central_database: PostgresDatabase, change: str, told: str
) -> None:
    await central_database.execute(change)

    async with central_database.connection() as connection:
        with pytest.raises(SchemaMismatch, match=told):
            await check(connection, "central:5432/sentiric")


async def test_a_user_who_may_not_make_tables_is_told_to_migrate_as_the_owner(empty_database: PostgresDatabase) -> None:
    await empty_database.execute(f"CREATE ROLE visitor_{empty_database.name} LOGIN PASSWORD 'visitor'")
    server = empty_database.server
    dsn = f"postgresql://visitor_{empty_database.name}:visitor@{server.host}:{server.port}/{empty_database.name}"

    with pytest.raises(UplinkRefused, match="may not make tables there; migrate as the owner"):
        await migrate(CentralAddress(dsn))


async def test_a_database_with_other_tables_of_the_same_name_is_not_touched(empty_database: PostgresDatabase) -> None:
    await empty_database.execute("CREATE TABLE tenant (mine text)")

    with pytest.raises(UplinkRefused, match="give the calls a database of their own"):
        await migrate(empty_database.dsn)


_OLD_CALL = """
INSERT INTO call (call_sid, trace_id, tenant_id, site, pbx, direction, caller_id, caller_name, status, disposition,
    start_time, ring_seconds, talk_seconds, hold_seconds, total_seconds, queue, transferred, legs, timeline,
    full_transcript, source, start_estimated, end_estimated, revision, created_at, updated_at)
VALUES ('berlin:main:1.1', '0af7', 1, 'berlin', 'main', 'inbound', '905321234567', 'Ayşe', 'completed', 'answered',
    now(), 1.5, 88, 0, 95, 'sales', false, '[{"channel": "PJSIP/1"}]', '[]', '[]', 'ami', false, false, 1, now(), now())
"""


async def _migrate_to(revision: str, database: PostgresDatabase) -> None:
    def upgrade(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", migrations.__path__[0])
        config.attributes["connection"] = connection
        command.upgrade(config, revision)

    engine = create_async_engine(database.dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(upgrade)
    finally:
        await engine.dispose()


async def _inspected(database: PostgresDatabase, read: Callable[[Connection], Found]) -> Found:
    engine = create_async_engine(database.dsn.replace("postgresql://", "postgresql+asyncpg://"))
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(read)
    finally:
        await engine.dispose()
