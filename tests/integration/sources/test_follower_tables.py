"""Tables of a real MariaDB that are followed into a real database, whatever stops the reader or the server."""

import csv
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment
from agent.sources.mariadb import address_of
from agent.sources.opening import PbxSources, opener
from agent.sources.source import Source
from agent.sources.table_layout import TableKind
from agent.sources.tables import WINDOW, Table
from agent.store.engine import open_store
from agent.store.writer import Group, Writer
from config.settings import AsteriskSettings, SourceKind, SourceSettings
from tests.integration.sources.world import MINUTE, NINE, SETTLE, World, heard
from tests.mariadb_server import DATABASE, READER, READER_PASSWORD, MariaDb
from tests.pbx.record import WIRE


@dataclass
class TableWorld(World):
    """A source that is a table."""

    kind: SourceKind = SourceKind.CDR_MARIADB
    mariadb: MariaDb = field(default_factory=MariaDb)
    password_file: Path = Path("password")
    table: str | None = None

    def settings(self) -> SourceSettings:
        url = f"mariadb://{READER}@{self.mariadb.host}:{self.mariadb.port}/{DATABASE}"
        return SourceSettings(
            kind=self.kind, url=url, password_file=self.password_file, table=self.table, settle_seconds=SETTLE,
            history_days=self.history_days,
        )  # fmt: skip

    def opened(self, told: dict[str, Any] | None, since: datetime) -> Source:
        kind = TableKind.CEL if self.kind is SourceKind.CEL_MARIADB else TableKind.CDR
        return Table(
            address_of(self.settings()), kind, told, zone=UTC, since=since - WINDOW, now=self.now,
            monotonic=lambda: self.seconds,
        )  # fmt: skip

    def insert(self, *numbers: int, **changes: Any) -> None:  # Any: values
        self.mariadb.insert("cdr", [row(number) | changes for number in numbers])


def row(number: int) -> dict[str, Any]:  # Any: values
    """The CDR of call `number`, as `cdr_lines.cdr` has it."""
    native = f"1795340000.{number}"
    return {
        "calldate": (NINE + number * MINUTE).replace(tzinfo=None), "clid": '"Ayşe" <101>', "src": "101", "dst": "102",
        "dcontext": "phones", "channel": f"PJSIP/101-{number:08x}", "dstchannel": f"PJSIP/102-{number:08x}",
        "lastapp": "Dial", "lastdata": "PJSIP/102", "duration": 10, "billsec": 9, "disposition": "ANSWERED",
        "uniqueid": native, "linkedid": native, "sequence": number,
    }  # fmt: skip


def cel_rows(name: str) -> list[dict[str, Any]]:  # Any: values
    """What Asterisk wrote into a file, as FreePBX's table has it."""
    with (WIRE / f"{name}.cel.csv").open(newline="", encoding="utf-8") as file:
        told = list(csv.DictReader(file))
    rows = []
    for values in told:
        at = datetime.fromtimestamp(float(values.pop("eventtime")), UTC).replace(tzinfo=None, microsecond=0)
        channame, userdef = values.pop("channel"), values.pop("userfield")
        rows.append(values | {"eventtime": at, "channame": channame, "userdeftype": userdef, "amaflags": 3})
    return rows


@pytest.fixture
async def world(tmp_path: Path, mariadb: MariaDb) -> AsyncIterator[TableWorld]:
    password_file = tmp_path / "password"
    password_file.write_text(READER_PASSWORD + "\n", encoding="utf-8")
    async with open_store(tmp_path / "edge.db") as store:
        writer = await Writer.over(store.connection)
        yield TableWorld(tmp_path, store, writer, mariadb=mariadb, password_file=password_file)


async def test_calls_that_nobody_heard_are_found_in_a_table_and_their_gap_is_filled(world: TableWorld) -> None:
    world.insert(0, 1, 2, 8)
    await world.blind(NINE + timedelta(seconds=50), NINE + 3 * MINUTE)
    follower = await world.run()
    assert await world.calls() == [("1", "cdr", 1), ("2", "cdr", 1)]
    assert await world.rows("SELECT filled_by, calls_found FROM gap") == [("cdr-mariadb", 2)]
    assert (follower.status.records, follower.status.waiting) == (4, 0)


async def test_what_a_table_holds_of_long_ago_is_not_read_if_nobody_wants_it(world: TableWorld) -> None:
    world.insert(0, calldate=(NINE - timedelta(days=30)).replace(tzinfo=None))
    world.insert(11)
    follower = await world.run()
    assert follower.status.records == 1


@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("pauses", range(0, 10, 2))
async def test_a_crash_at_any_time_loses_and_doubles_no_row(world: TableWorld, pauses: int, numbered: bool) -> None:
    if numbered:
        world.mariadb.execute("ALTER TABLE cdr ADD COLUMN id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY")
    world.insert(11)
    world.steps = [
        lambda: world.insert(13, 12),
        lambda: world.insert(9, duration=400),
        lambda: world.insert(14, linkedid="1795340000.13"),
    ]
    for _ in range(6):
        await world.run(pauses=pauses)
    await world.run(pauses=20)
    assert sorted(call[0] for call in await world.calls()) == ["11", "12", "13", "9"]
    assert await world.rows("SELECT legs ->> '$[#-1].channel' FROM call WHERE call_sid LIKE '%.13'") != []
    assert await world.rows("SELECT rejects FROM source_place") == [(0,)]


async def test_a_server_that_was_stopped_and_a_reader_that_was_killed_meanwhile_cost_no_row(world: TableWorld) -> None:
    world.insert(11)
    world.steps = [world.mariadb.stop]
    follower = await world.run(pauses=4)
    assert "no MariaDB answers" in str(follower.status.trouble) or "closed" in str(follower.status.trouble)
    follower = await world.run(pauses=2)  # a place that could not be gone to is kept
    assert "no MariaDB answers at 127.0.0.1:" in str(follower.status.trouble)
    world.mariadb.start()
    world.insert(12)
    follower = await world.run()
    assert follower.status.trouble is None
    assert [call[0] for call in await world.calls()] == ["11", "12"]
    assert await world.rows("SELECT records FROM source_place") == [(2,)]


async def test_a_wrong_password_is_told_and_its_mending_needs_no_restart(world: TableWorld) -> None:
    world.insert(11)
    world.password_file.write_text("guessed", encoding="utf-8")
    troubles: list[str | None] = []

    def tell() -> None:
        assert world.follower is not None
        troubles.append(world.follower.status.trouble)

    world.steps = [
        tell,
        world.password_file.unlink,
        tell,
        lambda: world.password_file.write_text(READER_PASSWORD, encoding="utf-8"),
    ]
    follower = await world.run()
    assert "denies access to the user sentiric" in str(troubles[0])
    assert f"{world.password_file} is not there" in str(troubles[1])
    assert follower.status.trouble is None
    assert [call[0] for call in await world.calls()] == ["11"]


async def test_a_row_that_is_no_cdr_is_set_aside_with_what_stands_in_it(world: TableWorld) -> None:
    world.insert(11, disposition="WHAT")
    world.insert(12)
    await world.run()
    [(raw, reason, position)] = await world.rows("SELECT raw, reason, position FROM source_reject")
    assert b'"disposition":"WHAT"' in raw
    assert reason == "'WHAT' is no disposition"
    assert position == f"the row of uniqueid 1795340000.11, sequence 11 of {world.settings().place}"
    assert [call[0] for call in await world.calls()] == ["12"]


async def test_a_call_that_was_heard_wholly_is_only_confirmed_by_its_row(world: TableWorld) -> None:
    await world.writer.commit(Group(finished=[heard(11)]))
    world.insert(11)
    follower = await world.run()
    assert (follower.status.found, follower.status.confirmed) == (0, 1)


async def test_another_table_under_the_same_name_is_read_by_its_own_numbers(world: TableWorld) -> None:
    world.mariadb.execute("CREATE TABLE cdr2 LIKE cdr", f"GRANT SELECT ON {DATABASE}.cdr2 TO '{READER}'@'127.0.0.1'")
    for table in ("cdr", "cdr2"):
        world.mariadb.execute(f"ALTER TABLE {table} ADD COLUMN id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY")
    world.insert(11, 12, 13)
    await world.run()
    world.mariadb.insert("cdr2", [row(number) for number in (14, 15, 16, 17)])
    world.table = "cdr2"
    await world.run()
    assert [call[0] for call in await world.calls()] == ["11", "12", "13", "14", "15", "16", "17"]


@pytest.mark.parametrize("pauses", [2, 3, 5])
async def test_rows_of_cel_tell_a_call_across_crashes(world: TableWorld, pauses: int) -> None:
    world.kind, world.history_days = SourceKind.CEL_MARIADB, 36_500
    rows = cel_rows("group_answered")
    world.steps = [lambda: world.mariadb.insert("cel", rows[:20]), lambda: world.mariadb.insert("cel", rows[20:])]
    for _ in range(4):
        await world.run(pauses=pauses)
    await world.run()
    query = "SELECT call_sid, source, revision, answered_by, disposition FROM call"
    assert await world.rows(query) == [("s:main:1795366591.39", "cel", 1, "102", "answered")]


class SqliteWorld(World):
    """A source that is a SQLite file of cdr_sqlite3_custom."""

    def settings(self) -> SourceSettings:
        return SourceSettings(kind=SourceKind.CDR_SQLITE, path=self.file, settle_seconds=SETTLE)

    def opened(self, told: dict[str, Any] | None, since: datetime) -> Source:
        return opener(self.settings(), of_pbx())(told, since)

    def insert(self, *numbers: int) -> None:
        with closing(sqlite3.connect(self.file, isolation_level=None)) as connection:
            columns = ", ".join(row(0))
            connection.execute(f"CREATE TABLE IF NOT EXISTS cdr (AcctId INTEGER PRIMARY KEY, {columns})")
            for number in numbers:
                values = [str(value) for value in row(number).values()]
                connection.execute(f"INSERT INTO cdr ({columns}) VALUES ({', '.join('?' * len(values))})", values)


@pytest.mark.parametrize("pauses", range(10))
async def test_a_crash_at_any_time_loses_and_doubles_no_row_of_a_sqlite_file(tmp_path: Path, pauses: int) -> None:
    async with open_store(tmp_path / "edge.db") as store:
        world = SqliteWorld(tmp_path / "master.db", store, await Writer.over(store.connection))
        await world.blind(NINE + 10 * MINUTE, NINE + 15 * MINUTE)
        world.seconds = 600
        world.steps = [
            lambda: world.insert(9, 11),
            lambda: world.insert(12, 13),
            lambda: world.insert(14, 21),
        ]
        for _ in range(6):
            await world.run(pauses=pauses)
        follower = await world.run(pauses=40)
        assert [call[0] for call in await world.calls()] == ["11", "12", "13", "14", "21"]
        assert await world.rows("SELECT filled_by FROM gap") == [("cdr-sqlite",)]
        assert follower.status.records == 6


def of_pbx() -> PbxSources:
    """What a follower is told of its PBX, whose clock shows UTC."""
    pbx = AsteriskSettings(name="main", username="u", time_zone="UTC")
    return PbxSources(site="s", pbx=pbx, encoding="cp1254", rules=CallRules, assign=lambda _: Assignment("acme"))


@pytest.mark.parametrize("kind", [SourceKind.CDR_MARIADB, SourceKind.CEL_MARIADB])
async def test_the_settings_open_their_table_to_read_it_once(world: TableWorld, kind: SourceKind) -> None:
    world.kind = kind
    now = datetime.now(UTC)
    world.insert(1, 2, calldate=now.replace(tzinfo=None))
    rows = [each | {"eventtime": now.replace(tzinfo=None)} for each in cel_rows("group_answered")]
    world.mariadb.insert("cel", rows)
    source = opener(world.settings(), of_pbx())(None, now - timedelta(hours=1))
    look = source.read()
    source.close()
    assert (look.trouble, look.is_at_end) == (None, True)
    assert len(look.records) == (2 if kind is SourceKind.CDR_MARIADB else len(rows))


def test_a_server_on_this_machine_is_reached_by_its_unix_socket(mariadb: MariaDb) -> None:
    mariadb.execute(
        f"CREATE OR REPLACE USER '{READER}'@'localhost' IDENTIFIED BY '{READER_PASSWORD}'",
        f"GRANT SELECT ON {DATABASE}.cdr TO '{READER}'@'localhost'",
    )
    mariadb.insert("cdr", [row(11)])
    source = SourceSettings(
        kind=SourceKind.CDR_MARIADB,
        url=f"mariadb://{READER}@/{DATABASE}",
        socket=mariadb.directory / "s",
        password=SecretStr(READER_PASSWORD),
    )
    table = Table(address_of(source), TableKind.CDR, zone=UTC)
    batch = table.read()
    table.close()
    assert (batch.trouble, len(batch.records)) == (None, 1)
    missing = source.model_copy(update={"socket": mariadb.directory / "none"})
    assert "no MariaDB answers at" in str(Table(address_of(missing), TableKind.CDR, zone=UTC).read().trouble)
