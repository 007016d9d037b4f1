"""Calls that the centre refused: seen, sent again, given up and written to a file."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.cli.faults import ExitCode
from tests.unit.cli.local_site import LocalSite, call, refused, sid


def a_site_with_refusals(site: LocalSite, *numbers: int) -> LocalSite:
    site.keep(*(call(number) for number in numbers))
    site.settle(*(refused(number) for number in numbers))
    return site


def test_refused_calls_are_listed_with_code_and_reason(site: LocalSite) -> None:
    site.keep(call(1))
    assert site.run("quarantine", "list").stdout == "No call was refused by the centre.\n"

    a_site_with_refusals(site, 2)

    lines = site.run("quarantine", "list").stdout.splitlines()
    assert lines[1].endswith(f"acme    {sid(2)}  22P05  untranslatable character")
    assert [row["code"] for row in site.json("quarantine", "list")] == ["22P05"]
    assert site.json("quarantine", "list", "--code", "other") == []


def test_a_refused_call_is_shown_without_personal_data_unless_it_is_wished(site: LocalSite) -> None:
    a_site_with_refusals(site, 1)
    shown = site.run("quarantine", "show", "01.1").stdout
    assert "untranslatable character (22P05)" in shown
    told, full = site.json("quarantine", "show", sid(1)), site.json("quarantine", "show", sid(1), "--full")
    number = full["record"]["caller_id"]
    assert number not in shown
    assert number not in json.dumps(told)
    assert told["record"]["caller_id"].endswith("*" + number[-2:])
    assert isinstance(full["record"]["legs"], list)
    assert "--full shows it" in told["record"]["caller_name"]


@pytest.mark.parametrize("name", ["x'ff41'", "CAST(x'ff41' AS TEXT)"])
def test_a_name_that_is_no_text_is_shown_as_it_is(site: LocalSite, name: str) -> None:
    a_site_with_refusals(site, 1)
    with closing(sqlite3.connect(site.database)) as connection:
        connection.execute(f"UPDATE call SET caller_name = {name}, legs = '[{{'")
        connection.commit()

    told = site.json("quarantine", "show", sid(1), "--full")["record"]

    assert (told["caller_name"], told["legs"]) == ("\\xffA", "[{")
    assert json.loads(site.run("quarantine", "export").stdout)["record"] == told


def test_without_an_agent_refused_calls_wait_again(site: LocalSite) -> None:
    a_site_with_refusals(site, 1, 2, 3, 4)
    assert site.run("quarantine", "retry", "01.1").stdout == "1 call will be sent again.\n"
    assert site.json("quarantine", "retry", "--code", "other") == {"requeued": 0}
    assert site.json("quarantine", "retry", "--code", "22P05") == {"requeued": 3}
    assert site.json("outbox")["waiting"] == 4


def test_which_calls_are_meant_has_to_be_said(site: LocalSite) -> None:
    a_site_with_refusals(site, 1)
    for command in ("retry", "drop"):
        result = site.run("quarantine", command)
        assert result.exit_code == ExitCode.ERROR
        assert "say which" in result.stderr
    site.keep(call(2))
    result = site.run("quarantine", "retry", sid(2))
    assert result.exit_code == ExitCode.ERROR
    assert "no refused call has an id that ends in" in result.stderr


def test_nothing_is_given_up_unasked(site: LocalSite) -> None:
    a_site_with_refusals(site, 1)
    result = site.run("quarantine", "drop", "--all")
    assert result.exit_code == ExitCode.ERROR
    assert "--yes" in result.stderr
    assert site.json("outbox")["quarantined"] == 1


def test_a_call_that_was_given_up_stays_here_and_tells_so(site: LocalSite) -> None:
    a_site_with_refusals(site, 1, 2)
    assert site.json("quarantine", "drop", sid(1), "--yes") == {"dropped": 1}
    assert (site.json("outbox")["waiting"], site.json("outbox")["quarantined"]) == (0, 1)
    assert site.json("calls", "show", sid(1))["sync"]["state"] == "dropped"
    assert "given up by" in site.run("calls", "show", sid(1)).stdout
    assert site.json("quarantine", "retry", "--all") == {"requeued": 1}


def test_refused_calls_are_exported_whole_a_line_each(site: LocalSite, tmp_path: Path) -> None:
    a_site_with_refusals(site, 1, 2)
    file = tmp_path / "refused.jsonl"
    assert site.run("quarantine", "export", str(file)).exit_code == ExitCode.OK
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["call_sid"] for line in lines} == {sid(1), sid(2)}
    assert lines[0]["record"]["caller_id"]
    assert file.stat().st_mode & 0o777 == 0o600
    assert site.run("quarantine", "export").stdout == file.read_text()
