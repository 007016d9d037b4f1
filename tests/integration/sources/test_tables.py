"""Tables of a real MariaDB as FreePBX and Issabel keep them: every row once, none left out, faults in a sentence."""

import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import SecretStr

from agent.pbx.asterisk.cdr import CdrReader
from agent.pbx.asterisk.cel import CelReader, CelRow
from agent.sources.mariadb import ReadOnly, TableTrouble
from agent.sources.source import looks
from agent.sources.table_layout import TableKind
from agent.sources.table_ledger import BATCH_ROWS
from agent.sources.table_reading import SWEEP_SECONDS
from agent.sources.tables import Batch, Table
from tests.integration.pbx.authority import Authority
from tests.mariadb_server import CDR_TABLE, READER_PASSWORD, MariaDb

ISTANBUL = ZoneInfo("Europe/Istanbul")
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
NOON = datetime(2026, 11, 22, 15, 0)  # NOW, on the clock of Istanbul  # noqa: DTZ001 - as the table has it


class Clock:
    """Time of the tests, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_table(mariadb: MariaDb, clock: Clock) -> Iterator[Callable[..., Table]]:
    tables: list[Table] = []

    def opened(kind: str = "cdr", place: dict[str, Any] | None = None, **changes: Any) -> Table:  # Any: as Table
        values: dict[str, Any] = {"zone": ISTANBUL, "now": clock.now, "monotonic": clock.monotonic} | changes
        address = values.pop("address", None) or mariadb.address(kind)
        tables.append(Table(address, TableKind(kind), place, **values))
        return tables[-1]

    yield opened
    for table in tables:
        table.close()


def cdr(number: int, start: datetime = NOON, *, seconds: int = 10, **changes: Any) -> dict[str, Any]:  # Any: values
    return {
        "calldate": start,
        "clid": '"Ayşe Yılmaz" <101>',
        "src": "101",
        "dst": "0532",
        "duration": seconds,
        "billsec": seconds,
        "disposition": "ANSWERED",
        "uniqueid": f"{1795348800 + number}.{number}",
        "linkedid": f"{1795348800 + number}.{number}",
        "sequence": number,
    } | changes


def cel(number: int, at: datetime = NOON, **changes: Any) -> dict[str, Any]:  # Any: values
    texts = ("cid_ani", "cid_rdnis", "cid_dnid", "context", "appname", "appdata", "accountcode", "peer", "userdeftype")
    return {
        "eventtype": "CHAN_START",
        "eventtime": at,
        "cid_name": "Ayşe Yılmaz",
        "cid_num": "101",
        "exten": "0532",
        "channame": f"PJSIP/101-{number:08x}",
        "amaflags": 3,
        "uniqueid": f"1795348800.{number}",
        "linkedid": f"1795348800.{number}",
        "extra": "",
        **dict.fromkeys(texts, ""),
    } | changes


def rest(table: Table) -> list[Batch]:
    """Everything up to the end, as the follower reads it."""
    found = []
    while True:
        batch = table.read()
        assert batch.trouble is None
        found.append(batch)
        if batch.is_at_end:
            return found


def sequences(batches: list[Batch]) -> list[int]:
    return [int(row.data["sequence"]) for batch in batches for row in batch.records]


def channels(batches: list[Batch]) -> list[str]:
    return [row.data["uniqueid"] for batch in batches for row in batch.records]


# Every row once


def test_rows_are_told_once_in_any_number_of_looks(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    table = open_table()
    told: Counter[int] = Counter()
    for round_ in range(6):
        mariadb.insert("cdr", [cdr(10 * round_ + n, NOON - timedelta(minutes=n)) for n in range(10)])
        told.update(sequences(rest(table)))
        told.update(sequences(rest(table)))

    assert told == Counter(range(60))


def test_a_call_of_hours_that_ends_now_is_found_though_it_began_long_ago(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    table = open_table()
    mariadb.insert("cdr", [cdr(n, NOON - timedelta(minutes=30 * n)) for n in range(48)])
    assert sorted(sequences(rest(table))) == list(range(48))

    mariadb.insert("cdr", [cdr(100, NOON - timedelta(hours=23, minutes=55), seconds=23 * 3600)])

    assert sequences(rest(table)) == [100]
    assert sequences(rest(table)) == []


def test_a_call_of_more_than_a_day_is_found_by_the_count_of_older_days(
    mariadb: MariaDb, open_table: Callable[..., Table], clock: Clock
) -> None:
    table = open_table()
    mariadb.insert("cdr", [cdr(n, NOON - timedelta(days=n)) for n in range(5)])
    assert sorted(sequences([*rest(table), *rest(table)])) == list(range(5))

    mariadb.insert("cdr", [cdr(100, NOON - timedelta(days=3), seconds=3 * 86_400)])

    assert sequences(rest(table)) == []
    clock.seconds = SWEEP_SECONDS
    assert sorted(sequences(rest(table))) == [3, 100]
    clock.seconds *= 2
    assert sequences(rest(table)) == []


def test_a_table_of_months_is_read_from_its_beginning_in_batches(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    days = [NOON - timedelta(days=400), *(NOON - timedelta(days=n) for n in range(30))]
    rows = [cdr(100 * at + n, day + timedelta(minutes=n)) for at, day in enumerate(days) for n in range(100)]
    mariadb.insert("cdr", rows)

    batches = rest(open_table())

    assert Counter(sequences(batches)) == Counter(row["sequence"] for row in rows)
    assert max(len(batch.records) for batch in batches) <= BATCH_ROWS


def test_what_began_before_the_wanted_time_is_left_out(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    mariadb.insert("cdr", [cdr(n, NOON - timedelta(days=n)) for n in range(20)])
    mariadb.insert("cel", [cel(n, NOON - timedelta(days=20 - n)) for n in range(20)])
    since = NOW - timedelta(days=5)

    assert sorted(sequences(rest(open_table(since=since)))) == [0, 1, 2, 3, 4, 5]
    assert channels(rest(open_table("cel", since=since))) == [f"1795348800.{n}" for n in range(15, 20)]


def test_the_same_row_twice_in_the_table_is_told_twice(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    table = open_table()
    mariadb.insert("cdr", [cdr(1), cdr(1)])
    assert sequences(rest(table)) == [1, 1]

    mariadb.insert("cdr", [cdr(1)])

    assert sequences(rest(table)) == [1]


def test_rows_that_somebody_deletes_bring_back_no_others(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    table = open_table()
    mariadb.insert("cdr", [cdr(n, NOON - timedelta(hours=n)) for n in range(100)])
    rest(table)

    mariadb.execute("DELETE FROM cdr WHERE sequence % 2 = 0")

    assert sequences(rest(table)) == []


def test_a_cdr_table_whose_rows_are_numbered_is_read_by_the_numbers(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    mariadb.execute("ALTER TABLE cdr ADD COLUMN id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY")
    table = open_table()
    mariadb.insert("cdr", [cdr(n, NOON - timedelta(days=n)) for n in range(BATCH_ROWS + 5)])

    batches = rest(table)

    assert sequences(batches) == list(range(BATCH_ROWS + 5))
    assert [len(batch.records) for batch in batches] == [BATCH_ROWS, 5]
    mariadb.insert("cdr", [cdr(2000, NOON - timedelta(days=900))])
    assert sequences(rest(table)) == [2000]


def test_an_event_that_shows_after_one_with_a_higher_number_is_told(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    table = open_table("cel")
    mariadb.insert("cel", [cel(0)])
    assert channels(rest(table)) == ["1795348800.0"]
    slow = mariadb.connect(database="asteriskcdrdb", autocommit=False)
    with slow, slow.cursor() as cursor:
        row = cel(1)
        cursor.execute(
            f"INSERT INTO cel ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})", list(row.values())
        )
        mariadb.insert("cel", [cel(2)])
        assert channels(rest(table)) == ["1795348800.2"]
        slow.commit()

    assert channels(rest(table)) == ["1795348800.1"]
    assert channels(rest(table)) == []


def test_an_event_that_was_late_is_told_also_by_another_reader(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    mariadb.insert("cel", [cel(0), cel(1), cel(2)])
    late = mariadb.execute("SELECT * FROM cel WHERE id = 2")
    mariadb.execute("DELETE FROM cel WHERE id = 2")
    (batch,) = rest(open_table("cel"))
    assert batch.place is not None

    with mariadb.connect(database="asteriskcdrdb") as connection, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO cel VALUES ({', '.join(['%s'] * len(late[0]))})", late[0])

    assert channels(rest(open_table("cel", batch.place.as_json()))) == ["1795348800.1"]


def test_a_table_that_was_emptied_is_read_anew(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    table = open_table("cel")
    mariadb.insert("cel", [cel(n) for n in range(10)])
    rest(table)

    mariadb.execute("TRUNCATE TABLE cel")
    mariadb.insert("cel", [cel(50)])
    (batch,) = rest(table)

    assert channels([batch]) == ["1795348800.50"]
    assert batch.notes == ("the rows of asteriskcdrdb.cel are numbered anew; it is read from its beginning",)


# Readers come and go


@pytest.mark.parametrize("kind", ["cdr", "cel"])
def test_every_place_is_one_from_which_the_rest_is_read(
    mariadb: MariaDb, open_table: Callable[..., Table], kind: str
) -> None:
    make = cdr if kind == "cdr" else cel
    mariadb.insert(kind, [make(n, NOON - timedelta(minutes=7 * n)) for n in range(40)])
    table = open_table(kind)
    rows = [row for batch in rest(table) for row in batch.records]
    assert len(rows) == 40

    for number, row in enumerate(rows):
        before = channels(rest(open_table(kind, row.at.as_json())))
        after = channels(rest(open_table(kind, row.after.as_json())))
        assert before == [each.data["uniqueid"] for each in rows[number:]]
        assert after == [each.data["uniqueid"] for each in rows[number + 1 :]]


def test_a_reader_that_comes_days_later_tells_what_was_written_meanwhile(
    mariadb: MariaDb, open_table: Callable[..., Table], clock: Clock
) -> None:
    mariadb.insert("cdr", [cdr(n, NOON - timedelta(hours=n)) for n in range(60)])
    table = open_table()
    place = rest(table)[-1].place
    assert place is not None
    mariadb.insert("cdr", [cdr(100 + n, NOON + timedelta(hours=2 * n)) for n in range(50)])

    clock.seconds = timedelta(days=5).total_seconds()
    told = sequences(rest(open_table(place=place.as_json())))

    assert sorted(told) == list(range(100, 150))


def test_rows_come_once_though_reader_and_server_are_started_anew_in_between(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    told: Counter[str] = Counter()
    place = None
    for round_ in range(4):
        table = open_table(place=place)
        mariadb.insert("cdr", [cdr(10 * round_ + n, NOON + timedelta(minutes=round_)) for n in range(10)])
        told.update(channels(rest(table)))
        mariadb.restart()
        batches = rest(table)
        told.update(channels(batches))
        assert batches[-1].place is not None
        place = batches[-1].place.as_json()
        table.close()

    assert set(told.values()) == {1}
    assert len(told) == 40


# What stands in a table


def test_a_row_becomes_the_cdr_that_a_line_of_a_file_would(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    mariadb.insert("cdr", [cdr(1, did="902125551001", recordingfile="a.wav")])
    ((row,),) = (batch.records for batch in rest(open_table()))

    told = CdrReader(ISTANBUL, tuple(row.data)).row_of(list(row.data.values()))

    assert told is not None
    assert (told.start, told.end) == (NOW, NOW + timedelta(seconds=10))
    assert (told.clid, told.did, told.recordingfile) == ('"Ayşe Yılmaz" <101>', "902125551001", "a.wav")
    assert (told.disposition, told.billsec, told.key) == ("ANSWERED", 10.0, "1795348801.1")


def test_the_columns_that_a_table_has_are_taken_and_null_is_nothing(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    mariadb.execute(
        "DROP TABLE cdr",
        "CREATE TABLE cdr (CallDate datetime, disposition varchar(45), uniqueid varchar(32), duration int, "
        "dst varchar(80) NULL, realdst varchar(80))",
    )
    mariadb.insert("cdr", [{"CallDate": NOON, "disposition": "BUSY", "uniqueid": "1.1", "duration": 3, "dst": None}])

    ((row,),) = (batch.records for batch in rest(open_table()))

    assert row.data == {
        "calldate": "2026-11-22 15:00:00",
        "disposition": "BUSY",
        "uniqueid": "1.1",
        "duration": "3",
        "dst": "",
    }


def test_the_empty_channel_of_an_old_table_does_not_hide_the_real_one(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    mariadb.execute("ALTER TABLE cel ADD COLUMN channel varchar(80) NOT NULL DEFAULT ''")
    mariadb.insert("cel", [cel(1)])
    ((row,),) = (batch.records for batch in rest(open_table("cel")))

    told = CelReader().row_of(row.data)

    assert isinstance(told, CelRow)
    assert (told.name, told.caller_name, told.at) == ("PJSIP/101-00000001", "Ayşe Yılmaz", NOW)


@pytest.mark.parametrize(
    ("table", "connection", "encoding"),
    [
        ("utf8mb4", "utf8mb4", "utf-8"),
        ("utf8mb3", "utf8mb3", "utf-8"),
        ("latin1", "latin1", "utf-8"),  # by an Asterisk that does not say what it writes
        ("latin1", "latin1", "cp1254"),
        ("latin5", "utf8mb4", "utf-8"),
    ],
)
def test_names_are_read_whatever_the_table_is_said_to_hold(
    mariadb: MariaDb, open_table: Callable[..., Table], table: str, connection: str, encoding: str
) -> None:
    mariadb.execute(f"ALTER TABLE cdr CONVERT TO CHARACTER SET {table}")
    mariadb.insert("cdr", [cdr(1, clid="")])
    with mariadb.connect(database="asteriskcdrdb") as writer, writer.cursor() as cursor:
        cursor.execute(f"SET NAMES {connection}")
        cursor.execute(b"UPDATE cdr SET clid = '" + "Ayşe Yılmaz".encode(encoding) + b"'")

    ((row,),) = (batch.records for batch in rest(open_table(encoding="cp1254")))

    assert row.data["clid"] == "Ayşe Yılmaz"


def test_events_of_the_hour_that_comes_twice_are_told_in_the_order_of_their_numbers(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    """Berlin's clock went from 03:00 back to 02:00 at 01:00 UTC on 25 October 2026."""
    day = "2026-10-25"
    shown = ("02:30:00", "02:50:00", "02:05:00", "02:40:00", "03:10:00")
    epoch = int(datetime(2026, 10, 25, 0, 20, tzinfo=UTC).timestamp())
    local = [datetime.fromisoformat(f"{day} {at}") for at in shown]
    mariadb.insert("cel", [cel(n, at, uniqueid=f"{epoch}.{n}") for n, at in enumerate(local)])

    times = [row.data["eventtime"] for batch in rest(open_table("cel", zone=BERLIN)) for row in batch.records]

    assert times == [f"{day}T{at}:00+00:00" for at in ("00:30", "00:50", "01:05", "01:40", "02:10")]


def test_calls_of_the_hour_that_comes_twice_and_of_the_one_that_is_left_out_are_told_once(
    mariadb: MariaDb, open_table: Callable[..., Table], clock: Clock
) -> None:
    table = open_table(zone=BERLIN)
    clock.seconds = (datetime(2026, 10, 25, 0, 0, tzinfo=UTC) - NOW).total_seconds()
    told: list[int] = []
    began = []
    for number in range(20):  # every ten minutes across the change, of half an hour each
        moment = clock.now() + timedelta(minutes=10 * number)
        began.append(moment)
        local = moment.astimezone(BERLIN).replace(tzinfo=None)
        mariadb.insert("cdr", [cdr(number, local, seconds=1800, uniqueid=f"{int(moment.timestamp())}.{number}")])
        batches = rest(table)
        told += sequences(batches)
        reader = CdrReader(BERLIN, tuple(batches[0].records[0].data))
        row = reader.row_of(list(batches[0].records[0].data.values()))
        assert row is not None
        assert row.start == moment
    assert told == list(range(20))

    clock.seconds = (datetime(2027, 3, 28, 6, 0, tzinfo=UTC) - NOW).total_seconds()
    mariadb.insert("cdr", [cdr(50, datetime(2027, 3, 28, 2, 30))])  # noqa: DTZ001 - never shown by that clock
    assert sequences(rest(table)) == [50]


def test_times_of_type_timestamp_are_moments(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    mariadb.execute("ALTER TABLE cdr MODIFY calldate timestamp NOT NULL")
    with mariadb.connect(database="asteriskcdrdb") as connection, connection.cursor() as cursor:
        cursor.execute("SET time_zone = '+03:00'")  # as Asterisk's own connection has it
        cursor.execute(
            "INSERT INTO cdr (calldate, duration, disposition, uniqueid) VALUES (%s, 5, 'BUSY', '1.1')", (NOON,)
        )

    ((row,),) = (batch.records for batch in rest(open_table(zone=BERLIN)))

    assert datetime.fromisoformat(row.data["calldate"]) == NOW


# Faults


def trouble(table: Table) -> str:
    batch = table.read()
    assert batch.records == ()
    assert not batch.is_at_end
    assert batch.trouble is not None
    assert READER_PASSWORD not in batch.trouble
    return batch.trouble


def test_each_fault_is_told_in_a_sentence_with_what_to_do(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    server = f"127.0.0.1:{mariadb.port}"
    cases = {
        "no such database": (
            mariadb.address(database="other"),
            f"the user sentiric may not read other.cdr at {server}; GRANT SELECT ON other.cdr to it",
        ),
        "wrong password": (
            mariadb.address(password=SecretStr("wrong")),
            f"MariaDB at {server} denies access to the user sentiric: "
            "a wrong password, or no such user from this machine",
        ),
        "no rights": (
            mariadb.address("queuelog"),
            f"the user sentiric may not read asteriskcdrdb.queuelog at {server}; "
            "GRANT SELECT ON asteriskcdrdb.queuelog to it",
        ),
        "nobody there": (
            mariadb.address(port=1),
            "no MariaDB answers at 127.0.0.1:1 (Connection refused); is it running, and does it listen there?",
        ),
        "no TLS": (
            mariadb.address(tls=True),
            f"MariaDB at {server} offers no TLS; configure ssl_cert and ssl_key there",
        ),
    }
    for address, sentence in cases.values():
        assert trouble(open_table(address=address)) == sentence


def test_what_a_user_with_more_rights_misses_is_told(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    mariadb.execute("GRANT SELECT ON *.* TO 'sentiric'@'127.0.0.1'", "DROP TABLE cdr")
    server = f"127.0.0.1:{mariadb.port}"

    assert trouble(open_table()) == f"MariaDB at {server} has no table asteriskcdrdb.cdr"
    assert trouble(open_table(address=mariadb.address(database="x"))) == f"MariaDB at {server} has no database x"


def test_a_table_without_what_must_be_there_says_what(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    mariadb.execute("ALTER TABLE cdr DROP COLUMN disposition", "ALTER TABLE cel DROP COLUMN id")

    assert trouble(open_table()) == "asteriskcdrdb.cdr has no column disposition; is it a table of CDR?"
    assert "asteriskcdrdb.cel has no auto_increment column" in trouble(open_table("cel"))
    mariadb.execute("ALTER TABLE cdr ADD COLUMN disposition varchar(45), MODIFY calldate int")
    assert trouble(open_table()) == "asteriskcdrdb.cdr has a calldate of type int; it has to be datetime"


def test_a_server_that_goes_away_and_comes_back_is_read_on(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    table = open_table()
    mariadb.insert("cdr", [cdr(1)])
    assert sequences(rest(table)) == [1]

    mariadb.stop()
    assert "Connection refused" in trouble(table)
    mariadb.start()
    mariadb.insert("cdr", [cdr(2)])

    assert sequences(rest(table)) == [2]


@pytest.mark.parametrize("seed", range(8))
def test_rows_come_once_wherever_the_connection_breaks(
    mariadb: MariaDb, open_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    kind = "cdr" if seed % 2 else "cel"
    make = cdr if kind == "cdr" else cel
    mariadb.insert(kind, [make(n, NOON - timedelta(minutes=11 * n)) for n in range(1500)])
    luck = random.Random(seed)
    ask = ReadOnly.rows
    breaks = 0

    def rows(self: ReadOnly, query: str, *values: str | int) -> list[tuple[bytes | None, ...]]:
        nonlocal breaks
        before, after = luck.random() < 0.2, luck.random() < 0.2
        breaks += before + after
        if before:
            self._connection._force_close()  # type: ignore[attr-defined]  # as if the server had
        found = ask(self, query, *values)
        if after:
            self._connection._force_close()  # type: ignore[attr-defined]  # as above
        return found

    monkeypatch.setattr(ReadOnly, "rows", rows)
    table = open_table(kind)
    told: Counter[str] = Counter()
    ends = 0
    while ends < 15:
        batch = table.read()
        told.update(channels([batch]))
        ends += batch.is_at_end

    assert breaks > 3
    assert set(told.values()) == {1}
    assert len(told) == 1500


def test_a_server_that_knows_no_read_only_transactions_is_read(
    mariadb: MariaDb, open_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.sources.mariadb._BEGIN", "START TRANSACTION OF ANOTHER TIME")
    mariadb.insert("cdr", [cdr(1)])

    assert sequences(rest(open_table())) == [1]


async def test_looks_go_on_for_ever_and_leave_the_server_rest(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    mariadb.insert("cdr", [cdr(1)])
    table = open_table(monotonic=time.monotonic)
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async with aclosing(looks(table, poll_seconds=0.0001, pause=pause)) as stream:
        found = [await anext(stream) for _ in range(4)]

    assert [len(look.records) for look in found] == [1, 0, 0, 0]
    assert pauses == [look.rest_seconds for look in found[:3]]
    assert pauses[1] > 0.001


def test_a_server_that_does_not_answer_is_given_up(
    mariadb: MariaDb, open_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.sources.mariadb.READ_SECONDS", -4)
    table = open_table()
    assert table.read().trouble is None

    mariadb.freeze()

    assert "does not answer any more" in trouble(table)
    mariadb.thaw()
    assert table.read().trouble is None


def test_a_table_has_no_place_before_it_is_known_where_reading_begins(
    mariadb: MariaDb, open_table: Callable[..., Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = ReadOnly.rows

    def refuse(self: ReadOnly, query: str, *values: str | int) -> list[tuple[bytes | None, ...]]:
        if "MAX(" in query:
            raise TableTrouble("the server went away")
        return ask(self, query, *values)

    mariadb.insert("cel", [cel(1, NOON - timedelta(days=2)), cel(2)])
    table = open_table("cel", since=NOW - timedelta(days=1))
    with monkeypatch.context() as patched:
        patched.setattr(ReadOnly, "rows", refuse)
        assert table.read().place is None
    assert channels(rest(table)) == ["1795348800.2"]


def test_a_server_that_says_nonsense_is_told_and_ends_nothing(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    mariadb.insert("cdr", [cdr(n) for n in range(20)])
    troubles = Counter[bool]()
    for seed in range(150):
        with garbling(mariadb.port, random.Random(seed)) as port:
            table = open_table(address=mariadb.address(port=port))
            batch = table.read()
            troubles[batch.trouble is None] += 1
            table.close()
    assert troubles[False] > 75


@contextmanager
def garbling(server_port: int, rng: random.Random) -> Iterator[int]:
    """The port of a way to the server for one connection; what the server says arrives up to a changed byte or two."""
    left = rng.randrange(12)

    def forward(client: socket.socket, server: socket.socket) -> None:
        while asked := client.recv(65536):
            server.sendall(asked)
            answer(client, server)

    def answer(client: socket.socket, server: socket.socket) -> None:
        nonlocal left
        told = bytearray(server.recv(65536))
        left -= 1
        if left < 0 and told:
            for _ in range(rng.randint(1, 2)):
                told[rng.randrange(4, len(told))] = rng.randrange(256)
        client.sendall(told)
        if left < 0:
            client.shutdown(socket.SHUT_WR)

    def serve() -> None:
        client, _ = listener.accept()
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", server_port)) as server:
            answer(client, server)
            forward(client, server)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_a_password_is_in_no_representation(mariadb: MariaDb) -> None:
    assert READER_PASSWORD not in repr(mariadb.address())


def test_the_user_of_the_documentation_can_read_and_nothing_else(mariadb: MariaDb) -> None:
    connection = ReadOnly(mariadb.address())

    assert connection.rows("SELECT COUNT(*) FROM cdr") == [(b"0",)]
    with pytest.raises(TableTrouble, match="may not read"):
        connection.rows("DELETE FROM cdr")
    connection.close()


def test_an_encrypted_connection_wants_a_certificate_that_is_trusted(
    mariadb: MariaDb, open_table: Callable[..., Table]
) -> None:
    directory = mariadb.directory / "tls"
    directory.mkdir(mode=0o755, exist_ok=True)
    authority = Authority(directory)
    authority.server("127.0.0.1")
    (directory / "127.0.0.1.key").chmod(0o644)
    mariadb.restart(f"--ssl-cert={directory / '127.0.0.1.pem'}", f"--ssl-key={directory / '127.0.0.1.key'}")
    mariadb.execute("ALTER USER 'sentiric'@'127.0.0.1' REQUIRE SSL")
    try:
        mariadb.insert("cdr", [cdr(1)])
        trusting = mariadb.address(tls=True, tls_ca_file=authority.ca_file)

        assert sequences(rest(open_table(address=trusting))) == [1]
        assert "shows no certificate that is trusted" in trouble(open_table(address=mariadb.address(tls=True)))
        assert "denies access" in trouble(open_table())
        missing = mariadb.address(tls=True, tls_ca_file=Path("/nowhere.pem"))
        assert "/nowhere.pem is no file of certificates" in trouble(open_table(address=missing))
    finally:
        mariadb.restart()


def test_a_table_in_an_engine_without_transactions_is_read(mariadb: MariaDb, open_table: Callable[..., Table]) -> None:
    mariadb.execute("DROP TABLE cdr", CDR_TABLE.replace("InnoDB", "MyISAM"))
    table = open_table()
    mariadb.insert("cdr", [cdr(n) for n in range(20)])

    assert sorted(sequences(rest(table))) == list(range(20))
    assert sequences(rest(table)) == []
