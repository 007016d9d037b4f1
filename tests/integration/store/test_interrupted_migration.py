"""An upgrade of the oldest database that is killed at any statement, or finds no room, is done by the next start."""

import multiprocessing
import os
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import Final

import pytest

from agent.errors import StoreUnavailable
from agent.store import schema
from agent.store.engine import new_database, open_store, problems_of
from config import failpoints
from tests.agent_process import WITHOUT_PBX, AgentProcess
from tests.pbx.waiting import wait_until
from tests.small_disk import small_disk
from tests.usual_rows import insert_row

CALLS: Final = 40
_PARENTS_FIRST: Final = (
    "tenant", "call", "user", "interaction", "outbox", "quarantine", "task", "gap", "journal_segment", "live_call",
)  # fmt: skip

Contents = dict[str, list[tuple[object, ...]]]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A database of revision 0001 with rows in each of its tables; the second half of its calls has been sent."""
    database = tmp_path / "state" / "edge.db"
    database.parent.mkdir()
    _make_old(database)
    return database


def _make_old(database: Path) -> None:
    first = import_module("agent.store.migrations.versions.0001_first")
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA foreign_keys = ON")
        for statement in first._STATEMENTS:
            connection.execute(statement)
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
        connection.execute("BEGIN")
        for table in _PARENTS_FIRST:
            for number in range(1, (CALLS if table == "call" else CALLS // 2) + 1):
                insert_row(connection, table, number)
        connection.execute("COMMIT")


def _contents(database: Path, columns: dict[str, str] | None = None) -> tuple[str, Contents]:
    """The revision, and every row of the tables of 0001, in the columns that they had then."""
    columns = columns or _columns(database)
    with closing(sqlite3.connect(database)) as connection:
        assert problems_of(connection) == []
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        query = "SELECT {} FROM {} ORDER BY rowid"
        return revision, {
            name: connection.execute(query.format(listed, name)).fetchall() for name, listed in columns.items()
        }


def _columns(database: Path) -> dict[str, str]:
    with closing(sqlite3.connect(database)) as connection:
        return {
            table: ", ".join(f'"{row[1]}"' for row in connection.execute(f"PRAGMA table_info({table})"))
            for table in (*_PARENTS_FIRST, "counter")
        }


def _upgrade(database: Path, wish: str) -> int:
    """Open the database in a process of its own, and tell how that ended."""

    def work() -> None:
        failpoints.hit = failpoints.armed(wish)  # type: ignore[misc]  # as its environment would have at the start
        new_database(database).close()

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(20)
    assert process.exitcode is not None
    return process.exitcode


def _killed_at_each(database: Path, step: str) -> Iterator[int]:
    number = 1
    while (code := _upgrade(database, f"{step}=kill@{number}")) == -signal.SIGKILL:
        yield number
        number += 1
    assert code == 0


def test_an_upgrade_killed_after_each_of_its_statements_is_done_by_the_next_start(old: Path, tmp_path: Path) -> None:
    import alembic.command  # noqa: F401 - once, and not again in every process

    columns, before = _columns(old), _contents(old)
    assert {len(rows) for name, rows in before[1].items() if name != "counter"} == {CALLS, CALLS // 2}
    for step in ("store.migrate.before", "store.migrate.revision", "store.migrate.statement"):
        copy = tmp_path / step / "edge.db"
        copy.parent.mkdir()
        _make_old(copy)
        left = [_contents(copy, columns) for _ in _killed_at_each(copy, step)]
        assert all(each == before for each in left)
        assert (
            len(left) >= {"store.migrate.before": 1, "store.migrate.revision": 10, "store.migrate.statement": 30}[step]
        )
        assert _contents(copy, columns) == (schema.HEAD, before[1])

    assert _upgrade(old, "store.migrate.after=kill") == -signal.SIGKILL
    assert _contents(old, columns) == (schema.HEAD, before[1])
    assert _upgrade(old, "") == 0
    with closing(sqlite3.connect(old)) as connection:
        confirmed = connection.execute("SELECT call_id FROM call_receipt").fetchall()
    assert {number for (number,) in confirmed} == set(range(CALLS // 2 + 1, CALLS + 1))


def test_an_agent_killed_in_its_upgrade_captures_and_tells_the_old_calls_after_the_next_start(
    old: Path, tmp_path: Path
) -> None:
    columns, before = _columns(old), _contents(old)
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("DELETE FROM live_call")  # what would be heard again
    agent = AgentProcess(tmp_path, WITHOUT_PBX, environ={failpoints.VARIABLE: "store.migrate.revision=kill@5"})
    agent.launch()
    assert agent.wait() == -signal.SIGKILL
    with closing(AgentProcess(tmp_path, WITHOUT_PBX)) as again:
        again.launch()
        wait_until(lambda: "the agent captures" in again.log(), what="the agent over the upgraded database", seconds=15)
        assert again.stop() == 0
    revision, found = _contents(old, columns)
    assert revision == schema.HEAD
    assert found["call"] == before[1]["call"]


async def test_an_upgrade_on_a_full_disk_says_so_and_is_done_after_room_was_made(tmp_path: Path) -> None:
    with small_disk(tmp_path, megabytes=16) as disk:
        database = disk.path / "state" / "edge.db"
        database.parent.mkdir()
        _make_old(database)
        columns, before = _columns(database), _contents(database)
        told = []
        for kilobytes in (0, 64, 96, 128, 192):  # the end comes at the first file, or in the middle of the log
            _leave_only(disk.path, kilobytes)
            try:
                async with open_store(database):
                    break
            except StoreUnavailable as exc:
                told.append(str(exc))
            _leave_only(disk.path, None)
            assert _contents(database, columns) == before
        assert told
        assert all("the disk is full; free some space" in each for each in told), told
        assert "edge.db: the disk is full" in told[-1]  # in its middle
        _leave_only(disk.path, None)
        async with open_store(database):
            pass
        assert _contents(database, columns) == (schema.HEAD, before[1])


def _leave_only(directory: Path, kilobytes: int | None) -> None:
    """Fill the disk but for so much; None: make room."""
    ballast = directory / "ballast"
    ballast.unlink(missing_ok=True)
    if kilobytes is None:
        return
    room = directory / "room"
    room.write_bytes(b"x" * (kilobytes << 10))
    with ballast.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096, 1):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
        os.fsync(stream.fileno())
    room.unlink()
