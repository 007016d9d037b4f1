"""The database's shape: models equal migrations, and no program touches a database it does not understand."""

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlmodel import SQLModel

from agent.errors import StoreUnavailable
from agent.store import schema
from agent.store.engine import open_store
from agent.store.tables import STORE_TABLES, store_tables


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(tmp_path / "migrated.db", isolation_level=None)) as connection:
        schema.bring_up_to_date(connection, tmp_path)
        yield connection


def test_models_equal_migrations(migrated: sqlite3.Connection, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    with engine.connect() as connection:
        options = {"include_name": lambda name, kind, _: kind != "table" or name in STORE_TABLES}
        context = MigrationContext.configure(connection, opts={"compare_type": True, **options})
        tables = {table.name for table in store_tables()}
        differences = [
            found
            for found in compare_metadata(context, SQLModel.metadata)
            if not (found[0] == "add_table" and found[1].name not in tables)
        ]
    engine.dispose()

    assert differences == [], "write a new revision in agent/store/migrations/versions"


def test_tables_triggers_and_indexes_are_those_of_the_models(migrated: sqlite3.Connection, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'created.db'}")
    SQLModel.metadata.create_all(engine, tables=store_tables())
    engine.dispose()

    with closing(sqlite3.connect(tmp_path / "created.db")) as created:
        assert _shape(migrated) == _shape(created)


def test_the_newest_revision_is_the_one_the_program_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")

    assert ScriptDirectory.from_config(config).get_current_head() == schema.HEAD


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(sqlite3.connect(tmp_path / "edge.db", isolation_level=None)) as connection:
        connection.set_authorizer(lambda action, *_: int(action == sqlite3.SQLITE_CREATE_TRIGGER))
        with pytest.raises(Exception, match="not authorized"):
            schema.bring_up_to_date(connection, tmp_path)
        connection.set_authorizer(None)

        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
        assert not connection.in_transaction


def test_a_database_of_the_first_revision_is_upgraded_and_keeps_its_calls(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "edge.db", isolation_level=None)) as connection:
        for statement in _first_revision():
            connection.execute(statement)
        connection.execute("INSERT INTO tenant (name, is_active) VALUES ('acme', 1)")
        connection.execute(_OLD_CALL)
        connection.execute("INSERT INTO outbox (call_id, revision, enqueued_at) VALUES (1, 1, '2026-11-22 09:01:35')")
        before = _only_call(connection)

        schema.bring_up_to_date(connection, tmp_path)

        after = _only_call(connection)
        [(waiting,)] = connection.execute("SELECT value FROM counter WHERE name = 'outbox_records'").fetchall()
    new = {name: after.pop(name) for name in after.keys() - before.keys()}
    assert after == before
    assert new.pop("queue_wait_seconds") == 0.0
    assert len(new) == 6
    assert set(new.values()) == {None}
    assert waiting == 1


async def test_a_database_of_a_newer_program_is_refused_with_a_sentence(database: Path) -> None:
    async with open_store(database):
        pass
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    with pytest.raises(StoreUnavailable, match=r"newer version of this program.*9999"):
        async with open_store(database):
            pass


async def test_a_stranger_s_database_is_left_alone(database: Path) -> None:
    database.parent.mkdir()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE theirs (id)")

    with pytest.raises(StoreUnavailable, match="not one of this agent"):
        async with open_store(database):
            pass


async def test_an_empty_file_left_by_a_kill_at_the_first_start_becomes_a_database(database: Path) -> None:
    database.parent.mkdir()
    database.touch()

    async with open_store(database) as store:
        assert await store.connection.run(schema.revision_of) == schema.HEAD


async def test_alembic_is_not_imported_when_there_is_nothing_to_do(database: Path) -> None:
    async with open_store(database):
        pass
    program = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom agent.store.engine import open_store\n"
        "async def main():\n    async with open_store(Path(sys.argv[1])): pass\n"
        "asyncio.run(main())\nsys.exit('alembic' in sys.modules)\n"
    )

    starter = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(database))

    assert await starter.wait() == 0


_OLD_CALL = """
INSERT INTO call (call_sid, trace_id, tenant_id, site, pbx, direction, caller_id, caller_name, status, disposition,
    start_time, ring_seconds, talk_seconds, hold_seconds, total_seconds, queue, transferred, legs, timeline,
    full_transcript, source, start_estimated, end_estimated, revision, created_at, updated_at)
VALUES ('berlin:main:1.1', '0af7', 1, 'berlin', 'main', 'inbound', '905321234567', 'Ayşe', 'completed', 'answered',
    '2026-11-22 09:00:00.000000', 1.5, 88, 0, 95, 'sales', 0, '[{"channel":"PJSIP/1"}]', '[]', '[]', 'ami', 0, 0, 1,
    '2026-11-22 09:01:35.000000', '2026-11-22 09:01:35.000000')
"""


def _first_revision() -> list[str]:
    """The statements that made a database of revision 0001."""
    first = import_module("agent.store.migrations.versions.0001_first")
    return [
        *first._STATEMENTS,
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)",
        "INSERT INTO alembic_version VALUES ('0001')",
    ]


def _only_call(connection: sqlite3.Connection) -> dict[str, object]:
    cursor = connection.execute("SELECT * FROM call")
    [values] = cursor.fetchall()
    return dict(zip((name for name, *_ in cursor.description), values, strict=True))


def _shape(connection: sqlite3.Connection) -> dict[str, object]:
    names = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE name NOT LIKE '%alembic%' AND name NOT LIKE 'sqlite_%'"
    )
    found: dict[str, object] = {}
    for kind, name in names.fetchall():
        if kind == "table":
            # Whatever their places: a column that came later stands at the end of a database that was upgraded.
            found[name] = sorted(column[1:] for column in connection.execute(f"PRAGMA table_info('{name}')"))
            found[f"{name} keys"] = connection.execute(f"PRAGMA foreign_key_list('{name}')").fetchall()
        else:
            query = "SELECT sql FROM sqlite_master WHERE name = ?"
            found[name] = " ".join(connection.execute(query, (name,)).fetchone()[0].split())
    return found
