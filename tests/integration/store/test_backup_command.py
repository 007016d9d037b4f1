"""`edge-agent backup` and `restore` say what is in the way of a copy, and change nothing then."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from agent.cli.main import app


@pytest.fixture
def database(installed: Path) -> Path:
    return installed


def _run(database: Path, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--config", str(database.with_name("agent.toml"))])


def test_a_backup_to_a_directory_that_is_not_there_makes_none(database: Path) -> None:
    missing = database.parent / "disk that is not mounted"
    done = _run(database, "backup", str(missing / "copy.db"))
    assert "make it, or mount what belongs there" in done.stderr
    assert not missing.exists()


@pytest.mark.parametrize("damage", [b"somebody's letter" * 1000, None])
def test_what_is_damaged_or_no_backup_is_not_restored_and_says_what_can_be_done(
    database: Path, damage: bytes | None
) -> None:
    copy = database.with_name("copy.db")
    assert _run(database, "backup", str(copy)).exit_code == 0
    if damage is not None:
        copy.write_bytes(damage)
    else:
        with closing(sqlite3.connect(copy)) as connection:
            (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'gap'").fetchone()
        with copy.open("r+b") as stream:
            stream.seek((root - 1) * 8192)
            stream.write(b"\xff" * 8192)

    told = _run(database, "restore", str(copy)).stderr.strip()

    assert f"`edge-agent salvage {copy} --into FILE` saves what can be read" in told
    assert "\n" not in told
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM tenant").fetchall() == [("acme",)]
