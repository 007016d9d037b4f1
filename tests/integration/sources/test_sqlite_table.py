"""Tables of CDRs in SQLite files as Asterisk makes them, read while others write, and never in their way."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent.sources.sqlite_table import BATCH_ROWS, RowPlace, SqliteRows, SqliteTable

# As cdr_sqlite3_custom makes it.
TABLE = (
    "CREATE TABLE cdr (AcctId INTEGER PRIMARY KEY, calldate, clid, dcontext, channel, dstchannel, lastapp, lastdata, "
    "duration, billsec, disposition, amaflags, accountcode, uniqueid, userfield, test)"
)
INSERT = (
    "INSERT INTO cdr (calldate, clid, channel, duration, billsec, disposition, uniqueid) "
    "VALUES ('2026-11-22 09:00:00', '\"Ayşe\" <101>', 'PJSIP/101-1', '10', 9, 'ANSWERED', '1795340000.' || ?)"
)
# Gives up at once, as old versions of Asterisk nearly do, and says how often.
WRITER = f"""
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
refused = 0
for number in range(int(sys.argv[2])):
    try:
        connection.execute({INSERT!r}, (number,))
    except sqlite3.OperationalError:
        refused += 1
print(refused)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "master db?.db"


@pytest.fixture
def asterisk(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(writer(path)) as connection:
        connection.execute(TABLE)
        yield connection


def writer(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)


def write(connection: sqlite3.Connection, *numbers: int) -> None:
    for number in numbers:
        connection.execute(INSERT, (number,))


def numbers_of(*looks: SqliteRows) -> list[int]:
    return [int(row.data["uniqueid"].partition(".")[2]) for look in looks for row in look.records]


def rest(table: SqliteTable) -> list[SqliteRows]:
    looks = [table.read()]
    while not looks[-1].is_at_end:
        looks.append(table.read())
    assert {look.trouble for look in looks} == {None}
    return looks


def reopened(path: Path, place: RowPlace) -> SqliteTable:
    return SqliteTable(path, "cdr", RowPlace.from_json(place.as_json()))


def test_rows_are_told_once_across_restarts_of_the_reader(path: Path, asterisk: sqlite3.Connection) -> None:
    place, told = RowPlace(), []
    for round_ in range(5):
        write(asterisk, *range(3 * round_, 3 * round_ + 3))
        looks = rest(reopened(path, place))
        told += numbers_of(*looks)
        place = looks[-1].place
    assert told == list(range(15))


def test_every_row_has_a_place_from_which_it_is_told_again(path: Path, asterisk: sqlite3.Connection) -> None:
    write(asterisk, 1, 2, 3)
    (look,) = rest(SqliteTable(path, "cdr"))
    for index, row in enumerate(look.records):
        assert numbers_of(*rest(reopened(path, row.at))) == [1, 2, 3][index:]
        assert numbers_of(*rest(reopened(path, row.after))) == [1, 2, 3][index + 1 :]


def test_values_come_as_texts_by_their_columns_names(path: Path, asterisk: sqlite3.Connection) -> None:
    write(asterisk, 7)
    asterisk.execute("UPDATE cdr SET clid = CAST(X'41D063' AS TEXT)")  # "Ağc" in the byte set of old phones
    ((row,),) = (look.records for look in rest(SqliteTable(path, "cdr", encoding="cp1254")))
    assert row.data["clid"] == "AĞc"
    assert (row.data["duration"], row.data["billsec"], row.data["dstchannel"]) == ("10", "9", "")
    assert "test" not in row.data
    assert row.position == "row 1"


def test_many_rows_come_in_batches(path: Path, asterisk: sqlite3.Connection) -> None:
    asterisk.execute("BEGIN")
    write(asterisk, *range(BATCH_ROWS + 5))
    asterisk.execute("COMMIT")
    looks = rest(SqliteTable(path, "cdr"))
    assert [len(look.records) for look in looks] == [BATCH_ROWS, 5]


@pytest.mark.parametrize("mode", ["DELETE", "TRUNCATE", "PERSIST", "WAL"])
def test_rows_of_a_process_that_writes_all_the_time_are_told_once_and_none_is_refused(
    path: Path, asterisk: sqlite3.Connection, mode: str
) -> None:
    asterisk.execute(f"PRAGMA journal_mode = {mode}")
    table, told, count = SqliteTable(path, "cdr"), list[int](), 300
    command = [sys.executable, "-c", WRITER, str(path), str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            look = table.read()
            assert look.trouble is None
            told += numbers_of(look)
        assert process.stdout is not None
        assert process.stdout.read() == "0\n"
    told += numbers_of(*rest(table))
    assert told == list(range(count))


def test_while_a_write_goes_on_nothing_is_told_and_a_write_that_never_ends_is_said(
    path: Path, asterisk: sqlite3.Connection
) -> None:
    seconds = 0.0
    table = SqliteTable(path, "cdr", monotonic=lambda: seconds, sleep=lambda _: None)
    write(asterisk, 1)
    asterisk.execute("PRAGMA cache_size = 1")
    asterisk.execute("PRAGMA cache_spill = 1")
    asterisk.execute("BEGIN EXCLUSIVE")
    write(asterisk, *range(2, 500))
    look = table.read()
    assert (look.records, look.is_at_end, look.trouble) == ((), False, None)
    seconds = 61.0
    assert "was never finished" in str(table.read().trouble)
    asterisk.execute("COMMIT")
    assert numbers_of(*rest(table)) == list(range(1, 500))


def test_a_file_that_is_not_there_yet_is_read_as_soon_as_it_is(path: Path) -> None:
    table = SqliteTable(path, "cdr")
    assert "does not exist" in str(table.read().trouble)
    path.touch()
    assert table.read().trouble is None
    with closing(writer(path)) as connection:
        assert table.read().trouble is None
        connection.execute(TABLE)
        write(connection, 1)
    assert numbers_of(*rest(table)) == [1]


def test_rows_that_were_deleted_are_not_missed(path: Path, asterisk: sqlite3.Connection) -> None:
    write(asterisk, 1, 2, 3)
    table = SqliteTable(path, "cdr")
    rest(table)
    write(asterisk, 4)
    asterisk.execute("DELETE FROM cdr WHERE AcctId <= 3")
    looks = rest(table)
    assert (numbers_of(*looks), looks[0].notes) == ([4], ())


@pytest.mark.parametrize("more", [range(0), range(11, 12), range(11, 20)])
def test_a_table_that_was_emptied_is_read_from_its_beginning_and_that_is_told(
    path: Path, asterisk: sqlite3.Connection, more: range
) -> None:
    write(asterisk, 1, 2, 3)
    table = SqliteTable(path, "cdr")
    rest(table)
    asterisk.execute("DELETE FROM cdr")
    write(asterisk, *more)
    looks = rest(table)
    assert numbers_of(*looks) == list(more)
    assert "behind row 3 is not known" in looks[0].notes[0]
    assert rest(table)[0].notes == ()


def test_another_file_in_its_place_is_read_from_its_beginning(path: Path, asterisk: sqlite3.Connection) -> None:
    write(asterisk, 1, 2)
    table = SqliteTable(path, "cdr")
    rest(table)
    path.rename(path.with_name("old"))
    with closing(writer(path)) as connection:
        connection.execute(TABLE)
        write(connection, 5, 6, 7)
    looks = rest(table)
    assert numbers_of(*looks) == [5, 6, 7]
    assert len(looks[0].notes) == 1


def test_the_same_table_restored_into_another_file_is_gone_on_with(path: Path, asterisk: sqlite3.Connection) -> None:
    write(asterisk, 1, 2)
    table = SqliteTable(path, "cdr")
    rest(table)
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.rename(path)
    with closing(writer(path)) as connection:
        write(connection, 3)
    looks = rest(table)
    assert (numbers_of(*looks), looks[0].notes) == ([3], ())


def _text_file(path: Path) -> None:
    path.write_text("calldate,clid\n" * 20, encoding="utf-8")


def _of(*statements: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with closing(writer(path)) as connection:
            for statement in statements:
                connection.execute(statement)

    return make


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_text_file, "is no SQLite 3 database"),
        (os.mkdir, "is no file; name the file itself"),
        (_of("CREATE TABLE calls (a)"), "has no table cdr"),
        (_of("CREATE TABLE cdr (calldate, uniqueid)"), "has no column disposition; is it a table of CDR?"),
        (_of("CREATE TABLE cdr (calldate, disposition)"), "has no column uniqueid; is it a table of CDR?"),
        (_of(TABLE.replace("INTEGER", "TEXT") + " WITHOUT ROWID"), "no such column: rowid"),
    ],
)
def test_what_keeps_it_from_being_read_is_told_in_a_sentence(
    path: Path, make: Callable[[Path], Any], sentence: str
) -> None:
    make(path)
    assert sentence in str(SqliteTable(path, "cdr").read().trouble)


def test_a_file_that_is_damaged_is_told_and_ends_nothing(path: Path, asterisk: sqlite3.Connection) -> None:
    write(asterisk, *range(200))
    asterisk.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    assert "cannot be read: " in str(SqliteTable(path, "cdr").read().trouble)
