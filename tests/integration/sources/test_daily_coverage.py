"""The nightly verification on a real database, a clock of its own, and what is kept of it."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment
from agent.coverage.daily import DailyCoverage
from agent.coverage.days import Day
from agent.coverage.errors import NotVerifiable
from agent.coverage.verifying import Verification
from agent.sources.opening import PbxSources
from agent.store import coverage, sources
from agent.store.engine import Store, open_store
from agent.store.sources import SourceState
from agent.store.writer import Group, Writer
from config.settings import AsteriskSettings
from tests.integration.sources.cdr_lines import cdr
from tests.integration.sources.test_follower_tables import row
from tests.integration.sources.world import NINE, heard
from tests.mariadb_server import DATABASE, READER, READER_PASSWORD, MariaDb

DAY = timedelta(days=1)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(tmp_path / "edge.db") as store:
        yield store


class Night:
    """A PBX with one source, whose calls of the 22nd are verified at a time of one's choice."""

    def __init__(self, store: Store, writer: Writer, *sources: dict[str, Any]) -> None:  # Any: TOML
        self.store = store
        self.writer = writer
        self.now = NINE
        told = {"name": "main", "host": "pbx.example", "username": "x", "secret": "y", "time_zone": "UTC"}
        pbx = AsteriskSettings.model_validate(told | {"sources": sources})
        of = PbxSources(site="s", pbx=pbx, encoding="cp1254", rules=CallRules, assign=lambda _: Assignment("acme"))
        self.daily = DailyCoverage([of], store=store, writer=writer, now=lambda: self.now)

    async def hear(self, *numbers: int) -> None:
        state = SourceState("main", "cdr-csv", "cdr-csv", since=NINE - DAY)
        await self.writer.transact(lambda connection: sources.keep(connection, state, now=self.writer.now_text()))
        await self.writer.commit(Group(finished=[heard(number) for number in numbers]))

    async def verify_at(self, now: datetime) -> list[tuple[str, int, int, int]]:
        """Day, known, missing and extra of what is kept afterwards."""
        self.now = now
        await self.daily.verify_due()
        return [(each.day, each.known, each.missing, each.extra) for each in await self.kept()]

    async def kept(self) -> list[coverage.DayCounts]:
        return await self.store.reader.run(coverage.history)


def csv_file(path: Path) -> dict[str, Any]:  # Any: TOML
    return {"kind": "cdr-csv", "path": path}


def written(file: Path, *numbers: int) -> Path:
    file.write_text("".join(cdr(number, after=number * timedelta(minutes=1)) for number in numbers), encoding="utf-8")
    return file


async def test_a_day_is_verified_once_after_the_quiet_hour(store: Store, tmp_path: Path) -> None:
    night = Night(store, await Writer.over(store.connection), csv_file(written(tmp_path / "Master.csv", 1, 2, 3)))
    await night.hear(1, 2, 3)

    assert await night.verify_at(datetime(2026, 11, 23, 2, 59, tzinfo=UTC)) == []
    assert await night.verify_at(datetime(2026, 11, 23, 3, 0, tzinfo=UTC)) == [("2026-11-22", 3, 0, 0)]
    (first,) = await night.kept()
    await night.verify_at(datetime(2026, 11, 23, 4, 0, tzinfo=UTC))
    assert await night.kept() == [first]


async def test_what_the_pbx_knows_alone_and_what_it_does_not_know_is_counted_and_told(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    night = Night(store, await Writer.over(store.connection), csv_file(written(tmp_path / "Master.csv", 1, 2, 3)))
    await night.hear(2, 3, 4)

    assert await night.verify_at(datetime(2026, 11, 23, 12, 0, tzinfo=UTC)) == [("2026-11-22", 3, 1, 1)]
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "not those that the PBX knows" in warning.getMessage()
    assert "101" not in caplog.text  # nobody's number


async def test_a_day_that_cannot_be_verified_is_kept_with_the_reason_and_tried_again(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "Master.csv"
    night = Night(store, await Writer.over(store.connection), csv_file(file))
    await night.hear(1)

    noon = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    await night.verify_at(noon)
    (told,) = await night.kept()
    assert told.trouble is not None
    assert "does not exist" in told.trouble
    written(file, 1)
    await night.verify_at(noon + timedelta(hours=1))
    assert (await night.kept())[0].trouble is not None
    await night.verify_at(noon + timedelta(hours=21))
    assert {(each.day, each.known, each.trouble) for each in await night.kept()} == {
        ("2026-11-22", 1, None), ("2026-11-23", 0, None),
    }  # fmt: skip


async def test_what_the_source_cannot_know_is_not_held_against_it(store: Store, tmp_path: Path) -> None:
    file = written(tmp_path / "Master.csv", 1)
    night = Night(store, await Writer.over(store.connection), csv_file(file))
    await night.hear(1)
    alone = {"disposition": "cancelled", "status": "abandoned", "answer_time": None, "answered_by": None}
    others = [
        heard(2, merged_into="s:main:1795340000.1"),
        heard(3, source="cdr"),  # imported from another file
        heard(4, **alone),  # `unanswered = no`
    ]
    await night.writer.commit(Group(finished=others))

    noon = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    assert await night.verify_at(noon) == [("2026-11-22", 1, 0, 0)]
    assert (await night.kept())[0].untold == 3

    lonely = cdr(5, after=timedelta(minutes=5))
    for told, instead in (
        ("ANSWERED", "NO ANSWER"),
        ("PJSIP/102-00000005", ""),
        ("2026-11-22 09:05:01", ""),
        ('"9"', '"0"'),
    ):
        lonely = lonely.replace(told, instead)
    file.write_text(file.read_text(encoding="utf-8") + lonely, encoding="utf-8")
    await night.writer.transact(lambda connection: connection.execute("DELETE FROM coverage").rowcount)
    # A PBX that writes calls of that kind should have written the other one as well.
    assert await night.verify_at(noon) == [("2026-11-22", 2, 1, 1)]


async def test_without_a_place_to_work_in_the_day_is_told_as_not_verified(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    night = Night(store, await Writer.over(store.connection), csv_file(written(tmp_path / "Master.csv", 1)))
    await night.hear(1)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))

    await night.verify_at(datetime(2026, 11, 23, 12, 0, tzinfo=UTC))

    (told,) = await night.kept()
    assert told.trouble is not None
    assert "cannot be laid down" in told.trouble


@pytest.mark.parametrize(("now", "named"), [(22, "today"), (23, "2026-11-22")])
def test_a_day_before_the_first_record_is_answered_with_a_day_that_can_be_verified(
    tmp_path: Path, now: int, named: str
) -> None:
    told = {"name": "main", "host": "pbx.example", "username": "x", "secret": "y", "time_zone": "UTC"}
    file = written(tmp_path / "Master.csv", 1)
    pbx = AsteriskSettings.model_validate(told | {"sources": [csv_file(file)]})
    of = PbxSources(site="s", pbx=pbx, encoding="cp1254", rules=CallRules, assign=lambda _: Assignment("acme"))
    at, day = datetime(2026, 11, now, 20, tzinfo=UTC), Day.of(date(2026, 11, 21), UTC)
    with (
        Verification.of(of, day, now=at, rest=lambda _: None) as verification,
        pytest.raises(NotVerifiable, match=f"verify --day {named}$"),
    ):
        verification.read()


async def test_without_a_second_source_it_is_said_once(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    night = Night(store, await Writer.over(store.connection))
    await night.hear(1)

    for hour in (4, 5):
        assert await night.verify_at(datetime(2026, 11, 23, hour, tzinfo=UTC)) == []

    assert caplog.text.count("calls that the agent misses cannot be noticed") == 1


async def test_a_table_of_mariadb_is_read_anew_as_a_file_is(store: Store, tmp_path: Path, mariadb: MariaDb) -> None:
    password_file = tmp_path / "password"
    password_file.write_text(READER_PASSWORD, encoding="utf-8")
    url = f"mariadb://{READER}@{mariadb.host}:{mariadb.port}/{DATABASE}"
    table = {"kind": "cdr-mariadb", "url": url, "password_file": password_file}
    night = Night(store, await Writer.over(store.connection), table)
    await night.hear(2, 3, 4)
    await asyncio.to_thread(mariadb.insert, "cdr", [row(number) for number in (1, 2, 3)])

    assert await night.verify_at(datetime(2026, 11, 23, 12, 0, tzinfo=UTC)) == [("2026-11-22", 3, 1, 1)]
    mariadb.stop()
    await night.verify_at(datetime(2026, 11, 24, 12, 0, tzinfo=UTC))
    latest, *_ = await night.kept()
    assert latest.day == "2026-11-23"
    assert latest.trouble is not None
    mariadb.start()


@pytest.mark.parametrize("away", [timedelta(days=-20_000), timedelta(days=4_000)], ids=["1972", "2037"])
async def test_what_stands_behind_a_record_of_a_clock_that_was_wrong_is_read(
    store: Store, tmp_path: Path, away: timedelta
) -> None:
    file = written(tmp_path / "Master.csv", 1, 2)
    wrong, behind = cdr(8, after=away), cdr(3, after=timedelta(minutes=3))
    file.write_text(file.read_text(encoding="utf-8") + wrong + behind, encoding="utf-8")
    night = Night(store, await Writer.over(store.connection), csv_file(file))
    await night.hear(1, 2)
    assert await night.verify_at(NINE + DAY) == [("2026-11-22", 3, 1, 0)]
