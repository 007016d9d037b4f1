"""`edge-agent import`: CDR files of every kind into the local database, and again without effect."""

import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from agent.cli import import_making, import_target
from tests.unit.agent.cdrs import NOON, WIRE, master_line
from tests.unit.cli.local_site import SETTINGS, LocalSite, call

SOME = [
    master_line(),
    master_line(uniqueid="1795348900.7", linkedid="1795348900.7", start="2026-11-22 12:01:40", dst="902125551002",
                answer="2026-11-22 12:01:45", end="2026-11-22 12:02:00", src="905329998877"),
]  # fmt: skip
UTC = ("--time-zone", "UTC")
NOTHING = {"new": 0, "amended": 0, "unchanged": 0, "live": 0, "gone": 0}


@pytest.fixture
def known(site: LocalSite) -> LocalSite:
    """A site whose database has been made."""
    site.keep()
    return site


def write(site: LocalSite, *lines: str, name: str = "Master.csv", end: str = "\n") -> Path:
    path = site.directory / name
    path.write_bytes(("\n".join(lines) + end).encode())
    return path


def stored(site: LocalSite, columns: str = "call_sid, revision") -> list[tuple[Any, ...]]:
    with sqlite3.connect(site.database) as database:
        return database.execute(f"SELECT {columns} FROM call ORDER BY call_sid").fetchall()


def test_calls_are_kept_given_to_their_tenants_and_wait_to_be_sent(known: LocalSite) -> None:
    result = known.run("import", str(write(known, *SOME)), *UTC)
    assert result.exit_code == 0, result.output
    assert "2 calls new, 0 amended, 0 unchanged" in result.output
    assert stored(known, "call_sid, answered_by, source") == [
        ("istanbul-1:main:1795348800.1", "101", "cdr"), ("istanbul-1:main:1795348900.7", "101", "cdr"),
    ]  # fmt: skip
    with sqlite3.connect(known.database) as database:
        assert database.execute("SELECT count(*) FROM outbox").fetchone() == (2,)
    assert {one["tenant"] for one in known.json("calls", "list")["calls"]} == {"acme"}


def test_a_second_time_nothing_changes(known: LocalSite) -> None:
    path = write(known, *SOME)
    known.run("import", str(path), *UTC)
    before = stored(known, "*")
    told = known.json("import", str(path), *UTC)
    assert told["calls"] == {**NOTHING, "unchanged": 2}
    assert stored(known, "*") == before


def test_real_files_of_asterisk_come_in_and_again_without_effect(known: LocalSite) -> None:
    paths = [str(WIRE / "town.master.csv"), str(WIRE / "stage.master.csv")]
    first = known.json("import", *paths, *UTC)
    assert [each["rejected"] for each in first["files"]] == [0, 0]
    assert first["calls"]["new"] > 80
    again = known.json("import", *paths, *UTC)
    assert again["calls"] == {**NOTHING, "unchanged": first["calls"]["new"]}


def test_files_of_every_kind_tell_the_same_call(known: LocalSite) -> None:
    plain = write(known, SOME[0])
    packed = known.directory / "Master.csv.1.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    export = write(known, "calldate,src,dst,disposition,duration,billsec,channel,dstchannel,lastapp,uniqueid,linkedid",
                   "2026-11-22 12:00:00,905321112233,902125551001,ANSWERED,65,60,PJSIP/trunk-acme-00000001,"
                   "PJSIP/101-00000002,Dial,1795348800.1,1795348800.1", name="export.csv", end="")  # fmt: skip
    table = known.directory / "master.db"
    with sqlite3.connect(table) as database:
        database.execute(
            "CREATE TABLE cdr (AcctId INTEGER PRIMARY KEY, calldate, src, dst, disposition, duration, billsec, "
            "channel, dstchannel, lastapp, uniqueid)"
        )
        database.execute(
            "INSERT INTO cdr VALUES (1, '2026-11-22 12:00:00', '905321112233', '902125551001', 'ANSWERED', 65, 60, "
            "'PJSIP/trunk-acme-00000001', 'PJSIP/101-00000002', 'Dial', '1795348800.1')"
        )
    database.close()
    for path in (plain, packed, export, table):
        told = known.json("import", str(path), *UTC)
        assert (told["files"][0]["lines"], told["files"][0]["rejected"]) == (1, 0), path
    ((call_sid, start, answer, end),) = stored(known, "call_sid, start_time, answer_time, end_time")
    assert call_sid == "istanbul-1:main:1795348800.1"
    assert [moment[11:19] for moment in (start, answer, end)] == ["12:00:00", "12:00:05", "12:01:05"]


def test_columns_of_cdr_custom_are_told_by_an_option(known: LocalSite) -> None:
    path = write(known, "1795348800.5,ANSWERED,101,102,1795348800.1")
    told = known.json("import", str(path), "--columns", "start,disposition,src,dst,uniqueid")
    assert told["calls"]["new"] == 1
    result = known.run("import", str(path))
    assert result.exit_code == 2
    assert "--columns" in result.output


def test_what_is_no_cdr_is_set_aside_and_the_rest_comes_in(known: LocalSite) -> None:
    path = write(known, SOME[0], "nonsense", '"never closed', "\0\0\0" + SOME[1], master_line(disposition="MAYBE"))
    told = known.json("import", str(path), *UTC)
    assert told["calls"]["new"] == 2
    assert told["files"][0]["rejected"] == 3
    rejects = Path(told["files"][0]["rejects_file"])
    assert rejects.name == "rejected-Master.csv"
    text = rejects.read_text()
    assert "Master.csv line 2: its 1 columns are not those of a CDR\nnonsense\n" in text
    assert "line 3: a quote in it is never closed" in text
    assert rejects.stat().st_mode & 0o077 == 0
    rejects.write_text(text.replace("MAYBE", "BUSY"))
    assert known.json("import", str(rejects), *UTC)["files"][0]["lines"] == 1


def test_rejects_of_several_files_may_go_into_one(known: LocalSite) -> None:
    one, other = write(known, SOME[0], "x"), write(known, SOME[1], "y", name="Master.csv.1")
    into = known.directory / "bad.txt"
    known.json("import", str(one), str(other), *UTC, "--rejects", str(into))
    assert [line for line in into.read_text().splitlines() if not line.startswith("#")] == ["x", "y"]


def test_a_half_written_last_line_is_left_for_the_next_time(known: LocalSite) -> None:
    path = write(known, SOME[0], SOME[1][:-30], end="")
    told = known.json("import", str(path), *UTC)
    assert (told["files"][0]["unfinished_line"], told["files"][0]["rejected"]) == (True, 0)
    assert told["calls"]["new"] == 1
    write(known, *SOME)
    assert known.json("import", str(path), *UTC)["calls"] == {**NOTHING, "new": 1, "unchanged": 1}


def test_calls_without_ids_are_counted_as_often_as_they_stand_there(known: LocalSite) -> None:
    nameless = master_line(uniqueid="", linkedid="")
    path = write(known, nameless, nameless, master_line(uniqueid="", linkedid="", dst="902125551009"))
    copy = write(known, nameless, name="copy.csv")
    assert known.json("import", str(path), str(copy), *UTC)["calls"]["new"] == 3
    assert known.json("import", str(copy), *UTC)["calls"] == {**NOTHING, "unchanged": 1}


def test_a_dry_run_tells_and_changes_nothing(known: LocalSite) -> None:
    result = known.run("import", str(write(known, *SOME, "x")), *UTC, "--dry-run")
    assert "2 calls would be new" in result.output
    assert stored(known) == []
    assert not (known.directory / "rejected-Master.csv").exists()


def test_a_zone_that_the_ids_contradict_is_noticed_before_anything_is_kept(site: LocalSite) -> None:
    site.write(SETTINGS)
    site.keep()
    path = str(WIRE / "town.master.csv")
    result = site.run("import", path, env={"TZ": "America/New_York"})
    assert result.exit_code == 2
    assert "5 h later" in result.output
    assert stored(site) == []
    forced = site.run("import", path, "--time-zone", "Europe/Istanbul")
    assert forced.exit_code == 0
    assert "3 h earlier" in forced.output
    told = site.json("import", path, *UTC)
    assert told["calls"]["amended"] == told["files"][0]["lines"] - 19 or told["calls"]["amended"] > 0
    assert site.json("import", path, *UTC)["calls"]["amended"] == 0


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd"])
def test_an_unknown_zone_is_one_sentence(known: LocalSite, zone: str) -> None:
    if not zone:
        return
    result = known.run("import", str(write(known, *SOME)), "--time-zone", zone)
    assert result.exit_code == 2
    assert "is no time zone" in result.output


def test_the_pbx_has_to_be_known(known: LocalSite) -> None:
    assert "no PBX is named" in known.run("import", str(write(known, *SOME)), "--pbx", "other").output
    assert known.run("import", str(known.directory / "none.csv")).exit_code == 2


def test_a_call_that_the_live_feed_told_gains_what_it_lacked(known: LocalSite) -> None:
    heard = call(1, call_sid="istanbul-1:main:1795348800.1", start_time=NOON, caller_name=None, end_estimated=True)
    known.keep(heard)
    told = known.json("import", str(write(known, SOME[0])), *UTC)
    assert told["calls"]["amended"] == 1
    ((name, source, revision),) = stored(known, "caller_name, source, revision")
    assert (name, source, revision) == ("Ayşe", "ami+cdr", 2)
    assert known.json("import", str(write(known, SOME[0])), *UTC)["calls"]["unchanged"] == 1


def test_a_call_that_is_still_going_on_is_left_alone(known: LocalSite) -> None:
    from agent.store.writer import Group, LiveAnchor

    known.keep(group=Group(opened=[LiveAnchor("istanbul-1:main:1795348800.1", "main", 1, NOON)]))
    told = known.json("import", str(write(known, SOME[0])), *UTC)
    assert told["calls"] == {**NOTHING, "live": 1}


def test_the_order_of_files_and_what_was_imported_before_make_no_difference(known: LocalSite) -> None:
    attempt = master_line(answer="", billsec="0", disposition="NO ANSWER", end="2026-11-22 12:00:20",
                          dstchannel="PJSIP/102-00000003")  # fmt: skip
    success = master_line(start="2026-11-22 12:00:20", answer="2026-11-22 12:00:25", sequence="2")
    old, new = write(known, attempt, name="a.csv"), write(known, success, name="b.csv")
    known.json("import", str(old), *UTC)
    known.json("import", str(new), *UTC)
    for path in (old, new):
        assert known.json("import", str(path), *UTC)["calls"]["unchanged"] == 1
    ((legs, disposition, total),) = stored(known, "legs, disposition, total_seconds")
    assert (len(json.loads(legs)), disposition, total) == (3, "answered", 65.0)


def test_large_files_are_worked_on_by_two_processes_with_the_same_outcome(
    known: LocalSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(WIRE / "town.master.csv"), str(WIRE / "stage.master.csv")]
    alone = known.json("import", *paths, *UTC)
    monkeypatch.setattr(import_making, "_WORTHWHILE_LINES", 0)
    monkeypatch.setattr(import_target._Database, "at_once", 7)
    together = known.json("import", *paths, *UTC)
    assert together["calls"] == {**NOTHING, "unchanged": alone["calls"]["new"]}
