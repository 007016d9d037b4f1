"""A damaged database gives up whatever stands on whole pages; backups come back."""

import random
import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.errors import StoreHeld, StoreNewer, StoreUnavailable
from agent.store.backup import back_up, restore
from agent.store.engine import new_database, problems_of
from agent.store.files import wal_file
from agent.store.lease import Lease
from agent.store.rescue import rescue, rescue_if_damaged, told_of_last
from agent.store.salvage import salvage
from agent.store.swap import finish_swap, incoming_file

AT = "2026-11-22 10:00:00.000000"
CALLS = 1500
PAGE = 8192


def _fill(connection: sqlite3.Connection) -> None:
    usual = {"INTEGER": 1, "DATETIME": AT, "FLOAT": 1.5, "BOOLEAN": 0, "JSON": "[]"}
    columns = [
        (str(row[1]), str(row[2]).partition("(")[0])
        for row in connection.execute("PRAGMA table_info(call)")
        if row[3] and not row[5]
    ]
    connection.execute("BEGIN")
    for number in range(1, CALLS + 1):
        row = {name: usual.get(kind, f"{name}{number}") for name, kind in columns}
        row |= {"id": number, "site": "here", "legs": "[" + '"x",' * (9000 if number % 100 == 0 else 90) + "1]"}
        names, marks = ", ".join(row), ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO call ({names}) VALUES ({marks})", list(row.values()))
        connection.execute("INSERT INTO interaction (call_id, position, data) VALUES (?, 0, '{}')", (number,))
        if number % 2:
            connection.execute("INSERT INTO outbox (call_id, revision, enqueued_at) VALUES (?, 1, ?)", (number, AT))
        else:
            connection.execute("INSERT INTO call_receipt (call_id, number) VALUES (?, ?)", (number, number))
    connection.execute("COMMIT")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "edge.db"
    with closing(new_database(path)) as connection:
        _fill(connection)
    return path


@pytest.fixture
def database(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(sound, tmp_path / "edge.db"))


def _ids(path: Path, table: str, column: str = "call_id") -> set[int]:
    with closing(sqlite3.connect(path)) as connection:
        return {int(row[0]) for row in connection.execute(f"SELECT {column} FROM {table}")}


def _check_sound(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert problems_of(connection) == []
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        (counted,) = connection.execute("SELECT value FROM counter WHERE name = 'outbox_records'").fetchone()
        assert counted == connection.execute("SELECT count(*) FROM outbox").fetchone()[0]


def _overwrite(path: Path, pages: list[int], rng: random.Random) -> None:
    with path.open("r+b") as stream:
        for page in pages:
            stream.seek(page * PAGE)
            stream.write(rng.choice([rng.randbytes(PAGE), bytes(PAGE), rng.randbytes(PAGE // 2)]))


def test_everything_comes_over_from_a_sound_database_and_its_log(tmp_path: Path) -> None:
    path = tmp_path / "edge.db"
    with closing(new_database(path)) as connection:
        _fill(connection)
        found = salvage(path, tmp_path / "new.db")
    assert found.rows["call"] == CALLS
    assert not found.has_losses
    assert not found.requeued
    _check_sound(tmp_path / "new.db")


def test_a_database_whose_first_page_is_noise_is_known_by_the_shape_of_its_rows(database: Path, tmp_path: Path) -> None:
    _overwrite(database, [0], random.Random(1))
    found = salvage(database, tmp_path / "new.db")
    assert found.rows["call"] == CALLS
    assert found.rows["outbox"] == CALLS / 2
    _check_sound(tmp_path / "new.db")


@pytest.mark.parametrize("seed", range(5))
def test_noise_loses_only_what_stood_on_its_pages(database: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pages = database.stat().st_size // PAGE
    hit = rng.sample(range(1, pages), rng.choice([1, 3, 20]))
    _overwrite(database, hit, rng)
    new = tmp_path / "new.db"

    salvage(database, new)

    _check_sound(new)
    calls = _ids(new, "call", "id")
    # A page holds fewer than twenty of these calls, and an inner page none.
    assert len(calls) >= CALLS - 20 * len(hit)
    assert _ids(new, "interaction") <= calls
    # Whatever is not known to be confirmed is sent.
    assert _ids(new, "outbox") == calls - _ids(new, "call_receipt")
    assert _ids(new, "outbox") >= {call for call in calls if call % 2}


@pytest.mark.parametrize("size", [0, 50, PAGE + 7, 300 * PAGE])
def test_a_file_that_was_cut_off_gives_what_is_left(database: Path, tmp_path: Path, size: int) -> None:
    with database.open("r+b") as stream:
        stream.truncate(min(size, database.stat().st_size))
    salvage(database, tmp_path / "new.db")
    _check_sound(tmp_path / "new.db")


def test_the_damaged_database_and_a_report_are_kept(database: Path) -> None:
    _overwrite(database, [5, 9], random.Random(3))
    before = database.read_bytes()
    done = rescue(database)
    assert done.aside.read_bytes() == before
    assert '"saved"' in done.report.read_text()
    _check_sound(database)


def test_what_a_killed_salvage_left_half_made_is_gone_after_the_next_look(database: Path) -> None:
    left = [database.with_name(f"edge.db.incoming.part{ending}") for ending in ("", "-wal", "-shm", "-journal")]
    for file in left:
        file.write_bytes(b"half")
    assert rescue_if_damaged(database) is None
    assert not [file for file in left if file.exists()]


def test_the_report_of_a_newer_program_is_named_and_not_guessed_at(database: Path) -> None:
    report = database.with_name("edge.db.damaged-20261122T100000000000.report.json")
    report.write_text('{"format": 2, "at": "2026-11-22T10:00:00+00:00", "saved": {"call": 3}}')
    told = told_of_last(database, datetime(2026, 11, 22, 11, tzinfo=UTC))
    assert told is not None
    assert told.endswith(f"{report} was written by a newer version of this program")


def test_a_database_of_a_newer_program_is_not_salvaged(database: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = database.read_bytes()
    for attempt in (rescue, rescue_if_damaged, lambda path: salvage(path, tmp_path / "new.db")):
        with pytest.raises(StoreNewer, match=r"newer version of this program.*9999"):
            attempt(database)
    assert database.read_bytes() == before
    assert not [*tmp_path.glob("edge.db.damaged-*"), *tmp_path.glob("new.db*"), *tmp_path.glob("*.part*")]


def test_a_backup_taken_while_somebody_writes_comes_back(database: Path, tmp_path: Path) -> None:
    with closing(new_database(database)) as writer:
        writer.execute("DELETE FROM interaction WHERE call_id = 1")
        back_up(database, tmp_path / "backups" / "one.db")
        writer.execute("DELETE FROM interaction")
    assert (tmp_path / "backups" / "one.db").stat().st_mode & 0o777 == 0o600
    aside = restore(tmp_path / "backups" / "one.db", database, site="here")
    assert len(_ids(database, "interaction")) == CALLS - 1
    assert aside is not None
    assert _ids(aside, "interaction") == set()


def test_a_backup_of_another_site_or_of_a_newer_program_changes_nothing(database: Path, tmp_path: Path) -> None:
    back_up(database, tmp_path / "one.db")
    before = database.read_bytes()
    with pytest.raises(StoreUnavailable, match="calls of the site here, and this one is there"):
        restore(tmp_path / "one.db", database, site="there")
    with closing(sqlite3.connect(tmp_path / "one.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StoreUnavailable, match="newer version"):
        restore(tmp_path / "one.db", database, site="here")
    assert database.read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_nothing_is_restored_under_a_running_agent(database: Path, tmp_path: Path) -> None:
    back_up(database, tmp_path / "one.db")
    lease = Lease.take(database)
    try:
        with pytest.raises(StoreHeld):
            restore(tmp_path / "one.db", database, site="here")
    finally:
        lease.leave()


def test_a_swap_that_was_broken_off_is_finished(database: Path, tmp_path: Path) -> None:
    back_up(database, incoming_file(database))
    database.write_bytes(b"damaged")
    wal_file(database).unlink(missing_ok=True)
    finish_swap(database)
    _check_sound(database)
    assert len(_ids(database, "call", "id")) == CALLS
    assert [path.read_bytes() for path in tmp_path.glob("edge.db.replaced-*[0-9]")] == [b"damaged"]
