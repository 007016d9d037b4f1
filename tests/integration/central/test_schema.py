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
from sync.central.database import CentralDatabase
from sync.central.migrate import check, migrate
from sync.central.schema import OF_A_TENANT, SCHEMA_REVISION, central_metadata
from sync.central.transaction import for_site, require_enabled
from sync.errors import SchemaMismatch, SiteRefused, UplinkRefused
from sync.records import Batch, Greeting, Verdict
from tests.fakes_sync import a_record
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


async def test_sites_of_the_second_revision_go_on_writing_for_the_tenants_they_have_calls_of(
    empty_database: PostgresDatabase,
) -> None:
    await _migrate_to("0002", empty_database)
    await empty_database.execute(
        "INSERT INTO tenant (name, is_active) VALUES ('acme', true), ('globex', true);"
        "INSERT INTO site (name, first_seen_at, last_seen_at, high_water, agent_version)"
        " VALUES ('berlin', '2026-01-01Z', now(), 41, '0.1'), ('idle', '2026-01-02Z', now(), 0, NULL)"
    )
    await empty_database.execute(_OLD_CALL)

    await migrate(empty_database.dsn)

    grants = await empty_database.fetch("SELECT site, name FROM site_tenant JOIN tenant ON tenant.id = tenant_id")
    assert [tuple(grant) for grant in grants] == [("berlin", "acme")]
    rows = await empty_database.fetch(
        "SELECT name, high_water, receipts, is_disabled, added_at = first_seen_at AS is_known_since FROM site"
        " ORDER BY name"
    )
    assert [tuple(row) for row in rows] == [("berlin", 41, 0, False, True), ("idle", 0, 0, False, True)]
    central = CentralDatabase(empty_database.address, application_name="test")
    welcome = await central.greet(Greeting("berlin", "1", holder="us", host="pbx", lease=None, lease_seconds=60))
    record = a_record(site="berlin", call_sid="berlin:main:1.1", revision=2)
    receipt = await central.store(Batch("berlin", [record], 42, "us", welcome.lease))
    await central.close()
    assert (receipt.number, receipt.verdicts[0].verdict) == (1, Verdict.ACCEPTED)


async def test_each_centre_has_an_identity_of_its_own_that_stays(
    central_database: PostgresDatabase, empty_database: PostgresDatabase
) -> None:
    await migrate(empty_database.dsn)
    [before] = await empty_database.fetch("SELECT id FROM centre")
    await migrate(empty_database.dsn)

    assert await empty_database.fetch("SELECT id FROM centre") == [before]
    assert await central_database.fetch("SELECT id FROM centre") != [before]


async def test_a_transaction_for_a_site_leaves_nothing_set_behind(central_database: PostgresDatabase) -> None:
    """So that a pooler may give the session to others."""
    settings = ("sentiric.site", "statement_timeout", "idle_in_transaction_session_timeout", "enable_seqscan")
    async with central_database.connection() as connection:
        before = [await connection.fetchval("SELECT current_setting($1, true)", name) for name in settings]
        async with for_site(connection, "istanbul", 5.0, "SET LOCAL enable_seqscan = off"):
            assert await connection.fetchval("SELECT current_setting('sentiric.site')") == "istanbul"
        with pytest.raises(SiteRefused):
            async with for_site(connection, "istanbul", 5.0):
                await require_enabled(connection, "istanbul")
        after = [await connection.fetchval("SELECT current_setting($1, true)", name) for name in settings]

    assert [value or None for value in after] == before


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
