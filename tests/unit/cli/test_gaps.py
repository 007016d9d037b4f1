"""When a PBX was not heard, as the command line tells it."""

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta

from agent.cli.faults import ExitCode
from agent.store import sources
from agent.store.engine import open_store
from agent.store.moments import moment_text
from agent.store.sources import Reject, SourceState
from agent.store.writer import GapClosed, GapOpened, Group, Writer
from tests.unit.cli.local_site import NOON, SETTINGS, LocalSite

MINUTE = timedelta(minutes=1)
WITH_SOURCE = SETTINGS.replace(
    '\n[[tenancy.rules]]\ntenant = "acme"',
    '\n[[pbx.sources]]\nkind = "cdr-csv"\npath = "Master.csv"\n\n[[tenancy.rules]]\ntenant = "acme"',
)


def keep_gaps(site: LocalSite, begin: datetime = NOON) -> None:
    """Three of a minute each, and one that goes on."""
    reasons = (("agent_stopped", None), ("pbx_restarted", None), ("line_lost", "the PBX closed the connection"))
    site.keep(
        group=Group(
            gaps=[
                gap
                for number, (reason, detail) in enumerate(reasons)
                for gap in (
                    GapOpened("main", begin + 2 * number * MINUTE, reason, detail),
                    GapClosed("main", begin + (2 * number + 1) * MINUTE),
                )
            ]
        )
    )


def fill(site: LocalSite, until: datetime) -> None:
    """As a follower does after it has read so far."""

    def work(connection: sqlite3.Connection) -> None:
        first = sources.unfilled(connection, "main")[0]
        sources.count_found(connection, [first.id, first.id])
        since = first.from_at
        sources.fill(connection, "main", known_from=since, known_until=until, by="cdr-csv", now=moment_text(NOON))
        state = SourceState("main", "cdr-csv", "cdr-csv", since=NOON, read_until=until, records=7, rejects=1)
        sources.keep(connection, state, now=moment_text(NOON))
        reject = Reject("byte 7 of Master.csv", b"\x1b[2Jno CDR", "its 1 columns are not those of a CDR")
        sources.note_rejects(connection, "main", "cdr-csv", [reject], now=moment_text(NOON))

    async def run() -> None:
        async with open_store(site.database) as store:
            await (await Writer.over(store.connection)).transact(work)

    asyncio.run(run())


def test_gaps_are_listed_with_reason_length_and_how_to_fill_them(site: LocalSite) -> None:
    keep_gaps(site)
    lines = site.run("gaps", "list").stdout.splitlines()
    assert lines[1] == (
        "3   2026-11-22 12:04:00  2026-11-22 12:05:00  1 min   main  the line broke: the PBX closed the connection  no"
    )
    assert "the agent was stopped" in lines[3]
    assert "The gaps of main cannot be filled" in lines[5]
    assert lines[-3:] == [
        "    [[pbx.sources]]", '    kind = "cdr-csv"', '    path = "/var/log/asterisk/cdr-csv/Master.csv"',
    ]  # fmt: skip


def test_a_filled_gap_tells_by_what_and_what_was_found(site: LocalSite) -> None:
    site.write(WITH_SOURCE)
    keep_gaps(site)
    fill(site, NOON + 2 * MINUTE)
    told = site.json("gaps", "list")
    assert [(gap["reason"], gap["filled_by"], gap["calls_found"], gap["seconds"]) for gap in told] == [
        ("line_lost", None, None, 60.0), ("pbx_restarted", None, None, 60.0), ("agent_stopped", "cdr-csv", 2, 60.0),
    ]  # fmt: skip
    lines = site.run("gaps", "list").stdout.splitlines()
    assert lines[-1].endswith("by cdr-csv, 2 calls found")  # and no word of how to add a source
    assert [gap["reason"] for gap in site.json("gaps", "list", "--open")] == ["line_lost", "pbx_restarted"]


def test_a_gap_that_goes_on_is_told_so(site: LocalSite) -> None:
    site.keep(group=Group(gaps=[GapOpened("main", datetime.now(UTC) - MINUTE, "agent_down")]))
    assert "goes on" in site.run("gaps", "list").stdout
    assert site.json("gaps", "list", "--since", "30s")[0]["to_at"] is None


def test_gaps_can_be_asked_for_by_pbx_and_time(site: LocalSite) -> None:
    keep_gaps(site)
    assert len(site.json("gaps", "list", "--pbx", "main", "--since", "2026-11-22T12:02:30Z")) == 2
    assert site.run("gaps", "list", "--since", "2026-11-23").stdout == "There is no such gap.\n"


def test_a_pbx_that_nobody_knows_is_no_question(site: LocalSite) -> None:
    result = site.run("gaps", "list", "--pbx", "other")
    assert result.exit_code == ExitCode.ERROR
    assert "no PBX of the settings is named 'other'" in result.stderr


def test_a_status_counts_what_is_not_filled_and_says_why_it_stays_so(site: LocalSite) -> None:
    keep_gaps(site, datetime.now(UTC) - timedelta(hours=1))
    line = next(line for line in site.run("status").stdout.splitlines() if line.startswith("gaps"))
    assert line == (
        "gaps        3 gaps of the last 7 days not filled, 3 min in all; "
        "no second source for PBX main: edge-agent gaps list"
    )


def test_a_status_tells_how_far_a_source_was_read(site: LocalSite) -> None:
    site.write(WITH_SOURCE)
    begin = datetime.now(UTC) - timedelta(hours=1)
    keep_gaps(site, begin)
    fill(site, begin + 2 * MINUTE)
    lines = site.run("status").stdout.splitlines()
    assert "gaps        2 gaps of the last 7 days not filled, 2 min in all; why: edge-agent gaps backfill" in lines
    assert (
        "sources     cdr-csv of main read until 58 min ago (7 records); 1 record set aside: edge-agent gaps rejects"
        in lines
    )


def test_what_was_set_aside_is_listed_without_obeying_it(site: LocalSite) -> None:
    keep_gaps(site)
    assert site.run("gaps", "rejects").stdout == "Nothing was set aside.\n"
    fill(site, NOON + 2 * MINUTE)
    assert site.run("gaps", "rejects").stdout.splitlines() == [
        "2026-11-22 12:00:00  cdr-csv of main, byte 7 of Master.csv",
        "    its 1 columns are not those of a CDR",
        "    �[2Jno CDR",
    ]
    assert site.json("gaps", "rejects", "--pbx", "main")[0]["raw"] == "\x1b[2Jno CDR"
    assert site.json("gaps", "rejects", "--pbx", "branch") == []


def test_old_gaps_are_none_of_the_status(site: LocalSite) -> None:
    keep_gaps(site, datetime.now(UTC) - timedelta(days=8))
    assert "gaps        none in the last 7 days that is not filled" in site.run("status").stdout
