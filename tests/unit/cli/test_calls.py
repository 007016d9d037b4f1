"""Listing and showing calls."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.calls.context import TaskState
from agent.cli.faults import ExitCode
from agent.cli.local import JSONS, MOMENTS, TRUTHS, Filter, LocalCalls
from agent.cli.settings import load_to_look
from agent.store.tables import table_of
from sync.models import Call, UtcDateTime
from tests.unit.cli.local_site import NOON, LocalSite, call, refused, sid


def test_calls_are_listed_the_newest_first_with_their_numbers(site: LocalSite) -> None:
    site.keep(call(1), call(2, tenant=None, disposition="busy", status="failed", talk_seconds=0.0))
    lines = site.run("calls", "list").stdout.splitlines()
    assert lines == [
        "STARTED UTC+00:00    TENANT  DIRECTION  CALLER        CALLEE        OUTCOME   TALK  CALL",
        f"2026-11-22 12:02:00  (none)  inbound    905320000002  902125551001  busy      0:00  {sid(2)}",
        f"2026-11-22 12:01:00  acme    inbound    905320000001  902125551001  answered  1:05  {sid(1)}",
    ]


def test_what_is_spoilt_on_the_disk_hides_no_call(site: LocalSite) -> None:
    site.keep(call(1))
    with closing(sqlite3.connect(site.database)) as connection:
        connection.execute("UPDATE call SET start_time = 'yesterday', end_time = x'00', legs = '[{'")
        connection.commit()

    assert site.run("calls", "list").stdout.splitlines()[1].endswith(sid(1))
    told = site.json("calls", "show", sid(1))
    assert (told["start_time"], told["end_time"], told["legs"]) == (None, None, [{"unreadable": "[{"}])
    for command in (["calls", "show", sid(1)], ["calls", "export"], ["status"]):
        result = site.run(*command)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.stderr


def test_a_list_that_was_cut_says_so(site: LocalSite) -> None:
    site.keep(*map(call, range(5)))
    result = site.run("calls", "list", "--limit", "3")
    assert len(result.stdout.splitlines()) == 4
    assert "--limit shows more" in result.stderr
    assert site.json("calls", "list", "--limit", "3")["more"] is True
    assert site.json("calls", "list", "--limit", "5")["more"] is False


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--tenant", "globex"], [2]),
        (["--unassigned"], [3]),
        (["--status", "failed"], [4]),
        (["--status", "busy"], [4]),
        (["--direction", "outbound"], [5]),
        (["--number", "+90 (532) 000-0001"], [1]),
        (["--number", "0004"], [4]),
        (["--number", "%"], []),
        (["--since", "2026-11-22 12:04", "--until", "2026-11-22T12:05:00+00:00"], [4]),
        (["--since", "2026-11-23"], []),
        (["--tenant", "acme", "--status", "completed"], [5, 1]),
    ],
)
def test_filters_choose_among_calls(site: LocalSite, options: list[str], found: list[int]) -> None:
    site.keep(
        call(1),
        call(2, tenant="globex"),
        call(3, tenant=None),
        call(4, status="failed", disposition="busy"),
        call(5, direction="outbound"),
    )
    assert [each["call_sid"] for each in site.json("calls", "list", *options)["calls"]] == [sid(n) for n in found]


def test_no_such_calls_is_an_answer(site: LocalSite) -> None:
    site.keep(call(1))
    result = site.run("calls", "list", "--tenant", "nobody")
    assert (result.exit_code, result.stdout) == (ExitCode.OK, "No such calls.\n")


def test_a_name_cannot_steer_the_terminal(site: LocalSite) -> None:
    site.keep(call(1, caller_name="\x1b[2Jgone\x9b\u202e", caller_id="\x1b]0;title\x07"))
    for command in (["list"], ["show", "1"], ["show", "1", "--json"]):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(site.run("calls", *command).stdout)


def test_a_call_is_shown_by_the_end_of_its_id(site: LocalSite) -> None:
    site.keep(call(1), call(2))
    assert site.json("calls", "show", "01.1")["call_sid"] == sid(1)
    assert site.json("calls", "show", sid(2))["call_sid"] == sid(2)


def test_an_end_that_fits_several_calls_names_them(site: LocalSite) -> None:
    site.keep(call(1), call(11))
    result = site.run("calls", "show", "1")
    assert result.exit_code == ExitCode.ERROR
    assert sid(1) in result.stderr
    assert sid(11) in result.stderr


def test_an_end_that_fits_no_call_says_where_live_ones_are(site: LocalSite) -> None:
    site.keep(call(1))
    result = site.run("calls", "show", "_._")
    assert result.exit_code == ExitCode.ERROR
    assert "edge-agent live" in result.stderr


def test_a_call_is_shown_with_its_legs_timeline_and_what_services_did(site: LocalSite) -> None:
    moment = (NOON + timedelta(minutes=1, seconds=5)).isoformat()
    leg = {"endpoint": "PJSIP/101", "number": "101", "answer_time": moment, "talk_seconds": 65.0, "hangup_cause": 16}
    site.keep(
        call(
            1,
            legs=[leg],
            timeline=[{"at": moment, "event": "dial_ended", "status": "ANSWER"}],
            tasks=[TaskState(task_name="book", state_data={"day": "Monday"}, start_time=NOON)],
            interactions=[{"role": "caller", "text": "merhaba"}],
        )
    )
    text = site.run("calls", "show", "1").stdout
    assert "  caller      905320000001 “Ayşe Yılmaz”" in text
    assert "  lasted      ring 0:05, talk 1:05, hold 0:00, total 1:10" in text
    assert "PJSIP/101  101     -      12:01:05  -      1:05  16" in text
    assert "+5.000 s  dial ended  status ANSWER" in text
    assert "task book, day Monday" in text
    assert "role caller, text merhaba" in text


def test_a_call_shows_public_numbers_transfers_and_what_it_waited_for(site: LocalSite) -> None:
    site.keep(
        call(
            1,
            caller_e164="+905320000001",
            caller_presentation="restricted",
            last_answered_by="102",
            queue="sales",
            queue_position=2,
            queue_wait_seconds=65.0,
            conference="board",
        )
    )
    text = site.run("calls", "show", "1").stdout
    assert "  caller      905320000001 (+905320000001) (withheld) “Ayşe Yılmaz”" in text
    assert "  then by     102" in text
    assert "  queue       sales, place 2, waited 1:05" in text
    assert "  conference  board" in text


@pytest.mark.parametrize(("presentation", "told"), [("restricted", "withheld"), ("unavailable", "unknown")])
def test_a_caller_without_a_number_has_withheld_it_or_is_unknown(site: LocalSite, presentation: str, told: str) -> None:
    site.keep(call(1, caller_id=None, caller_name=None, caller_presentation=presentation))
    assert f"  caller      {told}\n" in site.run("calls", "show", "1").stdout


def test_a_call_is_found_by_its_public_number(site: LocalSite) -> None:
    site.keep(call(1, caller_id="5320000001", caller_e164="+905320000001"), call(2))
    for number in ("+90 532 000 00 01", "0532 000 00 01", "00905320000001"):
        found = site.json("calls", "list", "--number", number)["calls"]
        assert [row["call_sid"] for row in found] == [sid(1)]


def test_a_call_says_how_its_sync_stands(site: LocalSite) -> None:
    site.keep(call(1), call(2), call(3, tenant=None))
    site.settle(refused(2))
    states = [site.json("calls", "show", sid(number))["sync"]["state"] for number in (1, 2, 3)]
    assert states == ["waiting", "refused", "unassigned"]
    assert "untranslatable character (22P05)" in site.run("calls", "show", sid(2)).stdout


def test_what_is_read_is_what_the_tables_define(site: LocalSite) -> None:
    columns = table_of(Call).columns
    assert {column.name for column in columns if isinstance(column.type, UtcDateTime)} <= MOMENTS
    assert {column.name for column in columns if str(column.type) in {"JSON", "JSONB"}} <= JSONS
    assert {column.name for column in columns if str(column.type) == "BOOLEAN"} == TRUTHS
    site.keep(call(1, legs=[{"endpoint": "PJSIP/101"}]))
    with LocalCalls.of(load_to_look(site.file, {})) as calls:
        (row,) = calls.all(Filter())
        (brief,) = calls.newest(Filter(), limit=5)
    told = call(1, legs=[{"endpoint": "PJSIP/101"}]).row
    assert set(row) == {column.name for column in columns} - {"id", "tenant_id"} | {"tenant"}
    assert brief == {name: value for name, value in row.items() if name not in JSONS}
    assert {name: row[name] for name in told} == told
    assert row["transferred"] is False
    assert abs(datetime.now(UTC) - row["created_at"]) < timedelta(hours=1)


def test_pieces_of_a_long_export_leave_no_call_out_and_tell_none_twice(
    site: LocalSite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agent.cli.local._CHUNK", 3)
    site.keep(*(call(number, start_time=NOON + timedelta(seconds=number // 4)) for number in range(10)))
    with LocalCalls.of(load_to_look(site.file, {})) as calls:
        assert [row["call_sid"] for row in calls.all(Filter())] == [sid(number) for number in range(10)]
        assert [row["call_sid"] for row in calls.all(Filter(), limit=4)] == [sid(number) for number in range(4)]
