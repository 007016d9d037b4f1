"""`edge-agent salvage` looks before it rewrites."""

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import orjson
import pytest
from typer.testing import CliRunner, Result

from agent.cli.main import app
from agent.store.lease import Lease


@pytest.fixture
def database(installed: Path) -> Path:
    return installed


def _salvage(database: Path, *options: str) -> Result:
    return CliRunner().invoke(app, ["salvage", "--config", str(database.with_name("agent.toml")), *options])


def _files(database: Path) -> dict[str, str]:
    return {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in database.parent.iterdir()
        if not file.name.endswith(("-wal", "-shm", ".lock"))  # empty, and SQLite's own
    }


def test_where_nothing_is_damaged_nothing_is_changed(database: Path) -> None:
    before = _files(database)
    done = _salvage(database)
    assert (done.exit_code, done.output.partition("(")[0]) == (0, "nothing is damaged; nothing was changed ")
    assert _files(database) == before
    assert orjson.loads(_salvage(database, "--json").stdout) == {"database": str(database), "is_damaged": False}


def test_a_look_at_a_sound_database_does_not_make_the_next_start_look_again(database: Path) -> None:
    Lease.take(database).leave_clean()
    _salvage(database)
    lease = Lease.take(database)
    lease.leave()
    assert lease.was_clean


def test_force_salvages_a_sound_database(database: Path) -> None:
    assert _salvage(database, "--force").exit_code == 0
    assert len(list(database.parent.glob("edge.db.damaged-*[0-9]"))) == 1
    assert _tenants(database) == [("acme",)]


def test_into_reads_a_sound_database_without_force_and_leaves_it_alone(database: Path) -> None:
    before = _files(database)
    assert _salvage(database, "--into", str(database.with_name("new.db"))).exit_code == 0
    assert _tenants(database.with_name("new.db")) == [("acme",)]
    assert _files(database).items() >= before.items()
    assert _salvage(database, "--into", str(database.with_name("other.db")), "--force").exit_code == 2


def test_an_index_that_does_not_agree_with_its_table_is_damage(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE INDEX elsewhere ON tenant (id)")
        roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'index'").fetchall())
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with database.open("r+b") as stream:  # an index leaf without a cell
        stream.seek((roots["elsewhere"] - 1) * 8192)
        stream.write(bytes([10, 0, 0, 0, 0, 32, 0, 0]))
    done = _salvage(database)
    assert "nothing is damaged" not in done.output
    assert _tenants(database) == [("acme",)]


@pytest.mark.parametrize("content", [b"somebody's letter" * 1000, b"SQLite format 3\0" + bytes(range(256)) * 99])
def test_what_sqlite_cannot_read_is_damage(database: Path, content: bytes) -> None:
    database.write_bytes(content)
    done = _salvage(database)
    assert "nothing is damaged" not in done.output
    assert done.exit_code in {0, 1}
    assert len(list(database.parent.glob("edge.db.damaged-*[0-9]"))) == 1


def test_without_a_database_there_is_nothing_to_look_at(database: Path) -> None:
    database.unlink()
    done = _salvage(database)
    assert done.exit_code != 0
    assert "there is no database" in done.output + str(done.exception)
    assert not database.exists()


def _tenants(database: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT name FROM tenant").fetchall()
