"""How the agent is, at a glance."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from agent.cli.faults import ExitCode
from agent.cli.status_text import MAX_LINES, status_lines
from agent.health import (
    AgentStatus,
    BacklogHealth,
    BackupHealth,
    CallsHealth,
    CentralHealth,
    CoverageHealth,
    DatabaseHealth,
    LiveStoreHealth,
    PbxHealth,
    SourceHealth,
    Verdict,
    problems_of,
)
from agent.pbx.feed import LineState
from agent.store.writer import Group
from config.describe import fingerprint
from config.load import load_settings
from tests.unit.cli.local_site import NOON, LocalSite, anchor, call, gap, refused


def running(**changes: object) -> AgentStatus:
    """An agent that has run for two hours, all well unless told otherwise."""
    pbx = PbxHealth(
        name="main",
        address="127.0.0.1:5038",
        state=LineState.CONNECTED,
        since=NOON - timedelta(hours=2),
        version="11.0.0",
        last_heard_at=NOON - timedelta(seconds=2),
        last_call_at=NOON - timedelta(minutes=3),
        clock_offset_seconds=0.02,
    )
    status = AgentStatus(
        verdict=Verdict.OK,
        site="istanbul-1",
        version="0.1.0",
        settings_hash="0123456789ab",
        pid=77,
        started_at=NOON - timedelta(hours=2),
        resident_bytes=64 * 2**20,
        pbx=(pbx,),
        calls=CallsHealth(live=2, today={"completed": 9, "failed": 1}),
        central=CentralHealth(
            address="central.example:5432/sentiric", state="idle", last_success_at=NOON - timedelta(seconds=1)
        ),
        live_store=LiveStoreHealth(home="memory", reachable=True),
        database=DatabaseHealth(
            file="/var/lib/sentiric-edge/edge.db", size=2**20, disk_free=9 * 2**30, disk_total=10 * 2**30
        ),
    ).model_copy(update=changes)
    problems = problems_of(status)
    return status.model_copy(update={"problems": problems, "verdict": Verdict.DEGRADED if problems else Verdict.OK})


def test_a_status_tells_the_verdict_first_and_the_rest_in_order() -> None:
    lines = status_lines(running(), now=NOON)
    assert lines[0] == "OK: istanbul-1 captures; 2 live calls, nothing waiting to be sent"
    assert [line[:12].strip() for line in lines[1:]] == [
        "PBX main", "live calls", "today", "backlog", "quarantine", "gaps", "coverage", "centre", "disk",
        "database", "backup", "clock", "agent",
    ]  # fmt: skip
    assert lines[1] == (
        "PBX main    connected for 2 h, 127.0.0.1:5038, 11.0.0, last event 2 s ago, last call 3 min ago"
    )
    assert lines[3] == "today       10 calls: 9 completed, 1 failed"
    assert lines[-1] == "agent       0.1.0, pid 77, up 2 h, 64 MiB, settings 0123456789ab"


@pytest.mark.parametrize(
    ("is_readable", "today", "backlog"),
    [
        (True, "0 calls", "nothing waits, none acknowledged since the start"),
        (False, "unknown: the local database cannot be read", "unknown: the local database cannot be read"),
    ],
)
def test_only_of_a_database_that_cannot_be_read_the_counts_are_unknown(
    is_readable: bool, today: str, backlog: str
) -> None:
    database = DatabaseHealth(file="edge.db", error="the disk is full", is_readable=is_readable)
    lines = status_lines(running(database=database, calls=CallsHealth(), central=CentralHealth()), now=NOON)
    assert f"today       {today}" in lines
    assert f"backlog     {backlog}" in lines


def test_calls_that_could_not_be_written_are_a_problem() -> None:
    assert running(calls=CallsHealth(left_out=2)).problems == (
        "2 calls could not be written and are left out; only the journal holds them: see the log",
    )


def test_the_gravest_problem_is_in_the_first_line_and_the_others_below() -> None:
    lost = PbxHealth(name="main", address="a:1", state=LineState.LOST, reason="no route", open_gap_since=NOON)
    status = running(
        pbx=(lost,),
        backlog=BacklogHealth(waiting=5, oldest_at=NOON - timedelta(minutes=5), quarantined=1),
        central=CentralHealth(
            address="c:1/d", state="waiting", last_error="no answer", next_try_at=NOON + timedelta(seconds=9)
        ),
    )
    lines = status_lines(status, now=NOON)
    assert lines[0] == "DEGRADED: PBX main is lost: no route"
    assert lines[1] == "  also: calls wait here, the centre does not take them: no answer"
    assert "backlog     5 calls waiting, the oldest since 5 min, none acknowledged since the start" in lines
    assert "centre      waiting, c:1/d, next try in 9 s, no answer" in lines


def test_a_status_never_has_more_lines_than_a_screen() -> None:
    lost = [PbxHealth(name=f"p{n}", address="a:1", state=LineState.LOST, warnings=("w",)) for n in range(9)]
    well = [PbxHealth(name=f"w{n}", address="a:1", state=LineState.CONNECTED) for n in range(9)]
    for pbx in ([], lost[:1], lost[:4], lost, well, [*well, *lost], well[:5]):
        lines = status_lines(running(pbx=tuple(pbx)), now=NOON)
        assert len(lines) <= MAX_LINES, len(pbx)
    assert any(line.startswith("PBX p0") for line in status_lines(running(pbx=(*well, *lost)), now=NOON))


def test_a_clock_that_is_off_is_told() -> None:
    pbx = PbxHealth(name="main", address="a:1", state=LineState.CONNECTED, clock_offset_seconds=-3.25)
    assert "clock       PBX main behind by 3.2 s" in status_lines(running(pbx=(pbx,)), now=NOON)


def test_when_the_database_was_looked_through_and_backed_up_is_told() -> None:
    database = DatabaseHealth(file="/s/edge.db", size=2**20, checked_at=NOON - timedelta(days=2))
    backup = BackupHealth(
        directory="/b", every_hours=6, keep=3, last_at=NOON - timedelta(hours=2), last_file="/b/one.db",
        last_size=3 * 2**20, next_at=NOON + timedelta(hours=4),
    )  # fmt: skip
    lines = status_lines(running(database=database, backup=backup), now=NOON)
    assert any(line.startswith("database") and line.endswith("looked through 2 d ago: sound") for line in lines)
    assert "backup      last 2 h ago, 3.0 MiB, /b/one.db, next in 4 h" in lines


def test_a_backup_that_cannot_be_made_is_a_problem_and_one_that_is_not_wanted_is_none() -> None:
    failing = BackupHealth(directory="/b", every_hours=6, keep=3, trouble="there is no directory /b")
    status = running(backup=failing)
    assert status.problems == ("backups of the local database are in trouble: there is no directory /b",)
    assert "backup      last never, TROUBLE: there is no directory /b" in status_lines(status, now=NOON)
    unwanted = running(backup=failing.model_copy(update={"every_hours": 0}))
    assert unwanted.problems == ()
    assert "backup      none is made by the clock: store.backup_every_hours" in status_lines(unwanted, now=NOON)


def test_without_an_agent_the_database_answers_and_the_exit_code_is_3(site: LocalSite) -> None:
    now = datetime.now(UTC)
    site.keep(call(1, start_time=now), call(2, start_time=now, tenant=None), call(3, start_time=now))
    site.keep(group=Group(gaps=gap().gaps, opened=[anchor(9)]))
    site.settle(refused(3))
    result = site.run("status")
    assert result.exit_code == ExitCode.NOT_RUNNING
    assert result.stderr == "edge-agent: no agent is running; this is what the local database knows\n"
    lines = result.stdout.splitlines()
    assert lines[0] == "STOPPED: no agent is running: calls are not captured"
    assert len(lines) <= MAX_LINES
    told = json.loads(site.run("status", "--json").stdout)
    assert told["verdict"] == "stopped"
    assert told["backlog"]["waiting"] == 1
    assert told["backlog"]["quarantined"] == 1
    assert told["calls"]["today"] == {"completed": 3}
    assert told["calls"]["unassigned"] == 1
    assert told["pbx"][0]["open_gap_since"] == "2026-11-22T12:00:00Z"
    assert told["pbx"][0]["state"] is None


def test_a_stopped_agents_status_is_told_as_a_running_ones_would_be(site: LocalSite) -> None:
    settings = load_settings(site.file, {})
    told = json.loads(site.run("status", "--json").stdout)
    assert told["settings_hash"] == fingerprint(settings)
    assert settings.central is not None
    assert told["central"]["address"] == settings.central.address == "central.example:5432/sentiric"
    assert AgentStatus.model_validate(told).verdict is Verdict.STOPPED


def test_a_database_that_cannot_be_read_is_part_of_the_answer(site: LocalSite) -> None:
    site.database.parent.mkdir()
    site.database.write_bytes(b"no database" * 1000)
    result = site.run("status")
    assert result.exit_code == ExitCode.NOT_RUNNING
    assert "it is not a SQLite database" in result.stdout


def test_before_the_first_start_there_is_no_database_and_that_is_no_fault(site: LocalSite) -> None:
    result = site.run("status")
    assert result.exit_code == ExitCode.NOT_RUNNING
    assert f"database    {site.database}: none yet" in result.stdout
    assert not site.database.parent.exists()


def test_the_day_that_was_verified_last_is_told_and_what_is_missing_is_a_problem() -> None:
    (pbx,) = running().pbx
    source = SourceHealth(name="cdr-csv", kind="cdr-csv", place="/Master.csv")
    day = CoverageHealth(
        day="2026-11-21", source="cdr-csv", known=1204, held=1204, missing=0, extra=0, untold=0, differing=0, at=NOON
    )

    def told(coverage: CoverageHealth | None, *sources: SourceHealth) -> str:
        status = running(pbx=(pbx.model_copy(update={"coverage": coverage, "sources": sources}),))
        return next(line for line in status_lines(status, now=NOON) if line.startswith("coverage"))

    assert told(None) == "coverage    NOT VERIFIED, since no second source is configured: docs/sources.md"
    assert told(None, source) == "coverage    no day verified yet"
    queue_log = SourceHealth(name="queue-log", kind="queue-log", place="/queue_log")
    assert told(None, queue_log) == told(None)
    assert told(day, source) == "coverage    2026-11-21: 1,204 calls of the PBX's 1,204, nothing missing"
    lost = day.model_copy(update={"missing": 4, "held": 1200})
    assert told(lost, source) == "coverage    2026-11-21: 1,200 calls of the PBX's 1,204, 4 missing: edge-agent verify"
    (problem,) = problems_of(running(pbx=(pbx.model_copy(update={"coverage": lost}),)))
    assert problem == (
        "PBX main knows 4 calls of 2026-11-21 that are missing here: edge-agent verify --day 2026-11-21 --heal"
    )
