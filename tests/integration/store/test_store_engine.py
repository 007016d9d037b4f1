"""Opening the store: permissions, the lease, pragmas, and a sentence for everything that can be wrong."""

import asyncio
import os
import sqlite3
import stat
import sys
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest

from agent.errors import StoreHeld, StoreUnavailable
from agent.store import engine
from agent.store.engine import Store, open_store, quick_check
from agent.store.lease import lock_file
from agent.store.writer import Group, Writer
from tests.integration.store.facts import call

_HOLD = (
    "import asyncio, sys\nfrom pathlib import Path\nfrom agent.store.engine import open_store\n"
    "async def main():\n    async with open_store(Path(sys.argv[1])):\n"
    "        print('open', flush=True)\n        await asyncio.to_thread(sys.stdin.read)\n"
    "asyncio.run(main())\n"
)


async def _pragma(name: str, connection: engine.EdgeConnection) -> object:
    return (await connection.run(lambda c: c.execute(f"PRAGMA {name}").fetchone()))[0]


async def test_directory_and_file_are_for_the_owner_only(store: Store) -> None:
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    for name in ("edge.db", "edge.db-wal", "edge.db-shm", "edge.db.lock"):
        assert stat.S_IMODE((store.path.parent / name).stat().st_mode) == 0o600


async def test_the_writer_keeps_its_promises_through_a_power_cut(store: Store) -> None:
    assert await _pragma("journal_mode", store.connection) == "wal"
    assert await _pragma("synchronous", store.connection) == 2
    assert await _pragma("foreign_keys", store.connection) == 1
    assert await _pragma("journal_size_limit", store.connection) == 64 * 1024 * 1024
    assert await _pragma("auto_vacuum", store.connection) == 2


async def test_readers_cannot_write(store: Store) -> None:
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        await store.reader.run(lambda c: c.execute("DELETE FROM call"))


async def test_a_second_opening_names_the_holder(store: Store) -> None:
    with pytest.raises(StoreHeld, match=f"in use by process {os.getpid()} "):
        async with open_store(store.path):
            pass


async def test_after_a_clean_stop_the_next_start_looks_no_closer(database: Path) -> None:
    async with open_store(database):
        assert lock_file(database).stat().st_size > 0

    assert not lock_file(database).read_text().strip()


async def test_the_lease_of_a_killed_process_is_taken_at_once(database: Path) -> None:
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _HOLD, str(database), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"open\n"
    with pytest.raises(StoreHeld, match=f"process {holder.pid} "):
        async with open_store(database):
            pass
    holder.kill()
    await holder.communicate()

    async with open_store(database) as store:
        assert await _pragma("user_version", store.connection) == 0


async def test_damage_is_found_at_the_start_after_an_unclean_stop(database: Path) -> None:
    await _damaged(database)
    lock_file(database).write_text("{}")  # as a killed holder leaves it

    with pytest.raises(StoreUnavailable, match="damaged"):
        async with open_store(database):
            pass


async def test_a_large_file_is_checked_later_so_that_capture_starts_at_once(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _damaged(database)
    lock_file(database).write_text("{}")
    monkeypatch.setattr(engine, "_CHECK_AT_START_BYTES", 0)

    async with open_store(database) as store:
        assert store.check_due
        assert await quick_check(store.path)


async def test_a_sound_file_has_no_problems(store: Store) -> None:
    assert not store.check_due
    assert await quick_check(store.path) == []


async def test_a_directory_that_cannot_be_made_is_told_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")

    with pytest.raises(StoreUnavailable, match=r"state.*cannot be used"):
        async with open_store(tmp_path / "state" / "edge.db"):
            pass


async def test_a_directory_in_the_file_s_place_is_told(database: Path) -> None:
    database.mkdir(parents=True)

    with pytest.raises(StoreUnavailable, match=r"edge\.db cannot be used"):
        async with open_store(database):
            pass


async def test_a_file_that_is_no_database_is_told_and_left_as_it_is(database: Path) -> None:
    database.parent.mkdir()
    database.write_bytes(b"not a database, but somebody's letter\n" * 100)

    with pytest.raises(StoreUnavailable, match="not a SQLite database"):
        async with open_store(database):
            pass
    assert database.read_bytes().startswith(b"not a database")


async def test_a_failed_opening_lets_go_of_everything(database: Path) -> None:
    database.parent.mkdir()
    database.write_bytes(b"not a database at all\n" * 100)
    with pytest.raises(StoreUnavailable):
        async with open_store(database):
            pass
    database.unlink()

    async with open_store(database) as store:
        assert store.path == database


async def test_a_network_file_system_is_warned_of(
    database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine, "network_filesystem", lambda path, mounts: "nfs4")

    async with open_store(database):
        pass

    assert "network file system" in caplog.text


async def test_the_database_is_read_while_the_daemon_runs(store: Store, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1)]))

    assert _count(store.path) == 1


async def test_the_database_is_read_after_a_clean_stop(database: Path) -> None:
    async with open_store(database) as store:
        await (await Writer.over(store.connection)).commit(Group(finished=[call(1)]))

    assert _count(database) == 1


async def test_the_database_is_read_after_a_kill_with_everything_still_in_the_wal(
    database: Path, tmp_path: Path
) -> None:
    async with open_store(database) as store:
        await (await Writer.over(store.connection)).commit(Group(finished=[call(1)]))
        copy = tmp_path / "killed"
        copy.mkdir()
        for name in ("edge.db", "edge.db-wal"):
            (copy / name).write_bytes((database.parent / name).read_bytes())

    assert _count(copy / "edge.db") == 1


async def test_a_directory_with_odd_characters_is_no_trouble(tmp_path: Path) -> None:
    database = tmp_path / "100% ödd?#dir" / "edge.db"
    async with open_store(database) as store:
        await (await Writer.over(store.connection)).commit(Group(finished=[call(1)]))

    assert _count(database) == 1


async def test_a_waiter_that_is_cancelled_leaves_no_half_transaction(store: Store, writer: Writer) -> None:
    commit = asyncio.create_task(writer.commit(Group(finished=[call(number) for number in range(200)])))
    await asyncio.sleep(0)
    commit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await commit

    result = await writer.commit(Group(finished=[call(number) for number in range(200)]))

    assert result.new + result.unchanged == 200


async def test_connections_of_an_open_that_fails_half_way_are_closed(database: Path) -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(StoreUnavailable):
            await engine.EdgeConnection.open(database / "nowhere", engine._connect_reader, stack)


async def _damaged(database: Path) -> None:
    async with open_store(database) as store:
        writer = await Writer.over(store.connection)
        await writer.commit(Group(finished=[call(number) for number in range(200)]))
        await store.connection.run(_overwrite_a_page_of_calls)


def _overwrite_a_page_of_calls(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_call_start_time'").fetchone()
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    with Path(path).open("r+b") as file:
        file.seek((page - 1) * 8192 + 8)
        file.write(b"\xff" * 4000)


def _count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM call").fetchone()[0])
