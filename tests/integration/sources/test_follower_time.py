"""A followed Master.csv whose times are those of a clock on a wall: in other zones, and on the nights it is changed."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment
from agent.sources.cdr_gatherer import CdrGatherer
from agent.sources.gathering import Gatherer
from agent.sources.opening import PbxSources, follow
from agent.store.engine import open_store
from agent.store.moments import moment_of
from agent.store.writer import Writer
from config.settings import AsteriskSettings, SourceKind, SourceSettings
from tests.integration.sources.world import SETTLE, World

BERLIN, NEW_YORK = ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")
# When the clocks of a zone go back and forward; an hour before and after is what is looked at.
BACK = {BERLIN: datetime(2026, 10, 25, 1, tzinfo=UTC), NEW_YORK: datetime(2026, 11, 1, 6, tzinfo=UTC)}
FORWARD = {BERLIN: datetime(2026, 3, 29, 1, tzinfo=UTC), NEW_YORK: datetime(2026, 3, 8, 7, tzinfo=UTC)}
TEN_MINUTES = timedelta(minutes=10)
ABOUT_NOON = datetime(2026, 7, 1, 12, 0, 0, tzinfo=UTC)

Moments = tuple[datetime, datetime | None, datetime]


@dataclass
class Night(World):
    """A world in which it is that night, and the PBX's clock shows that zone."""

    zone: tzinfo = UTC
    begins: datetime = ABOUT_NOON

    def now(self) -> datetime:
        return self.begins + timedelta(seconds=self.seconds)

    def _gatherer(self) -> Gatherer:
        return CdrGatherer(
            site="s", pbx="main", rules=CallRules, tenant_of=lambda _: "acme", zone=self.zone, encoding="utf-8",
            columns=None, settle_seconds=SETTLE, clock=lambda: self.seconds,
        )  # fmt: skip

    async def told(self) -> dict[str, tuple[Moments, bool]]:
        """By the id of the call: when it began, was answered and ended, and whether that was guessed."""
        query = "SELECT call_sid, start_time, answer_time, end_time, start_estimated FROM call ORDER BY id"
        return {
            sid.rpartition(":")[2]: ((moment_of(start), moment_of(answer), moment_of(end)), bool(guessed))
            for sid, start, answer, end, guessed in await self.rows(query)
        }


@pytest.fixture
async def night(tmp_path: Path) -> AsyncIterator[Night]:
    async with open_store(tmp_path / "edge.db") as store:
        yield Night(tmp_path / "Master.csv", store, await Writer.over(store.connection))


def native_id(start: datetime) -> str:
    return f"{int(start.timestamp())}.7"


def line(start: datetime, zone: tzinfo, *, seconds: int = 60, uniqueid: str | None = None) -> str:
    """As `cdr_csv` writes it at the end of the call."""
    answer, end = start + timedelta(seconds=5), start + timedelta(seconds=seconds)
    shown = [f"{moment.astimezone(zone):%F %T}" for moment in (start, answer, end)]
    fields = [
        "", "101", "102", "phones", '"Ayşe" <101>', "PJSIP/101-00000001", "PJSIP/102-00000002", "Dial", "PJSIP/102",
        *shown, str(seconds), str(seconds - 5), "ANSWERED", "DOCUMENTATION", uniqueid or native_id(start), "", "",
        uniqueid or native_id(start), "0",
    ]  # fmt: skip
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(fields)
    return text.getvalue()


def moments(start: datetime, seconds: int = 60) -> Moments:
    return start, start + timedelta(seconds=5), start + timedelta(seconds=seconds)


def around(edge: datetime) -> list[datetime]:
    """Every ten minutes from an hour before until an hour after."""
    return [edge + number * TEN_MINUTES for number in range(-6, 7)]


@pytest.mark.parametrize("edges", [BACK, FORWARD], ids=["back", "forward"])
@pytest.mark.parametrize("zone", [BERLIN, NEW_YORK], ids=str)
async def test_calls_of_the_night_are_told_as_they_happened_though_the_agent_is_killed_in_it(
    night: Night, zone: ZoneInfo, edges: dict[ZoneInfo, datetime]
) -> None:
    starts = around(edges[zone])
    night.zone, night.begins = zone, starts[0]
    half = len(starts) // 2 + 2  # in the second of the two hours
    night.steps = [lambda start=start: night.append(line(start, zone)) for start in starts[:half]]  # type: ignore[misc]
    await night.run(pauses=half + 3)
    night.steps = [lambda start=start: night.append(line(start, zone)) for start in starts[half:]]  # type: ignore[misc]
    await night.run()
    assert await night.told() == {native_id(start): (moments(start), False) for start in starts}


async def test_a_call_from_one_of_the_two_equal_hours_into_the_other_is_as_long_as_it_was(night: Night) -> None:
    start = BACK[BERLIN] - TEN_MINUTES
    night.zone, night.begins = BERLIN, start
    night.steps = [lambda: night.append(line(start, BERLIN, seconds=1500))]
    await night.run()
    assert await night.told() == {native_id(start): (moments(start, 1500), False)}


async def test_where_ids_tell_no_time_the_order_of_the_lines_tells_the_hour(night: Night) -> None:
    starts = [BACK[BERLIN] - 2 * TEN_MINUTES, BACK[BERLIN] - TEN_MINUTES, BACK[BERLIN] + timedelta(minutes=5)]
    night.zone, night.begins = BERLIN, starts[0]
    night.append(line(starts[0] - timedelta(hours=1), BERLIN, uniqueid="first"))
    night.steps = [
        lambda start=start, name=name: night.append(line(start, BERLIN, uniqueid=name))  # type: ignore[misc]
        for name, start in zip("abc", starts, strict=True)
    ]
    await night.run()
    # Before the clock has gone back, nobody can tell that it will.
    assert await night.told() == {
        "a": (moments(starts[0]), True),
        "b": (moments(starts[1]), True),
        "c": (moments(starts[2]), False),
    }


async def test_a_time_that_no_clock_showed_in_spring_is_moved_forward_and_marked(night: Night) -> None:
    """Of a PBX whose clock was set by hand, an hour late."""
    start = FORWARD[BERLIN] + TEN_MINUTES
    night.zone, night.begins = BERLIN, start
    late = timedelta(hours=1)
    night.steps = [lambda: night.append(line(start + late, ZoneInfo("Etc/GMT"), uniqueid="x"))]  # 2:10
    await night.run()
    assert await night.told() == {"x": (moments(start), True)}


@pytest.mark.parametrize(
    ("of_source", "of_pbx", "of_agent", "shown"),
    [
        ("America/New_York", None, "Asia/Tokyo", NEW_YORK),
        (None, "America/New_York", "Asia/Tokyo", NEW_YORK),
        ("UTC", "America/New_York", "Asia/Tokyo", UTC),  # usegmtime=yes
        (None, None, "America/New_York", NEW_YORK),
    ],
)
async def test_times_are_read_in_the_zone_of_the_source_else_of_the_pbx_else_of_the_machine(
    night: Night, monkeypatch: pytest.MonkeyPatch, *, of_source: str | None, of_pbx: str | None, of_agent: str,
    shown: tzinfo,
) -> None:  # fmt: skip
    monkeypatch.setenv("TZ", of_agent)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    night.append(line(start, shown))
    source = SourceSettings(
        kind=SourceKind.CDR_CSV, path=night.file, settle_seconds=1, history_days=7, time_zone=of_source
    )
    pbx = AsteriskSettings(name="main", username="u", sources=(source,), time_zone=of_pbx)
    of = PbxSources(site="s", pbx=pbx, encoding="utf-8", rules=CallRules, assign=lambda _: Assignment("acme"))
    found = asyncio.Event()
    follower = follow(source, of, store=night.store, writer=night.writer, on_found=found.set)
    following = asyncio.create_task(follower.run())
    async with asyncio.timeout(20):
        await found.wait()
    following.cancel()
    with suppress(asyncio.CancelledError):
        await following
    assert await night.told() == {native_id(start): (moments(start), False)}
