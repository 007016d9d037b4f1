"""Checking and showing settings."""

import json
import tomllib

import pytest

from agent.cli.faults import ExitCode
from tests.unit.cli.local_site import SECRET, SETTINGS, LocalSite


def test_right_settings_are_said_to_be_right_and_what_was_checked(site: LocalSite) -> None:
    result = site.run("config", "check")
    assert result.exit_code == ExitCode.OK
    assert result.stdout.startswith(f"{site.file} is right: site istanbul-1, 1 PBX, 2 tenant rules, a centre\n")
    assert "Checked: " in result.stdout
    assert "Not checked: " in result.stdout


def test_settings_that_are_allowed_but_rarely_meant_get_a_note(site: LocalSite) -> None:
    site.write('site = "istanbul-1"')
    told = site.json("config", "check")
    assert told["ok"] is True
    assert len(told["advice"]) == 3


def test_wrong_settings_are_told_as_json_too(site: LocalSite) -> None:
    site.write(SETTINGS.replace("username", "user_name"))
    result = site.run("config", "check", "--json")
    assert result.exit_code == ExitCode.ERROR
    told = json.loads(result.stdout)
    assert (told["ok"], len(told["problems"])) == (False, 2)


def test_shown_settings_hold_no_secret_and_are_toml_again(site: LocalSite) -> None:
    result = site.run("config", "show", env={"SENTIRIC_EDGE_PBX__MAIN__HOST": "10.0.0.7"})
    assert SECRET not in result.output
    assert tomllib.loads(result.stdout)["pbx"][0]["host"] == "10.0.0.7"
    told = site.run("config", "show", "--json").stdout
    assert SECRET not in told
    assert json.loads(told)["pbx"][0]["secret"] == "********"


def with_columns(kind: str, columns: str) -> str:
    """Settings with a source of these columns."""
    named = json.dumps(columns.split())
    source = f'[[pbx.sources]]\nkind = "{kind}"\npath = "a.csv"\ncolumns = {named}\n\n'
    return SETTINGS.replace("[[tenancy.rules]]", source + "[[tenancy.rules]]", 1)


@pytest.mark.parametrize(
    ("kind", "columns", "said"),
    [
        ("cdr-csv", "start dispostion", "'dispostion' is no column; there are "),
        ("cdr-csv", "start src", "the columns start and disposition have to be among them"),
        ("cel-csv", "eventtype eventtime unique_id", "'unique_id' is no column; there are "),
        ("cel-csv", "eventtype eventtime", "the column uniqueid has to be among them"),
    ],
)
def test_columns_that_no_reader_knows_are_refused(site: LocalSite, kind: str, columns: str, said: str) -> None:
    site.write(with_columns(kind, columns))
    result = site.run("config", "check", "--json")
    assert result.exit_code == ExitCode.ERROR
    (problem,) = json.loads(result.stdout)["problems"]
    assert problem.startswith(f"{site.file}: pbx[0].sources[0].columns: {said}")


def test_columns_may_be_passed_over_and_have_the_names_of_asterisks_examples(site: LocalSite) -> None:
    site.write(with_columns("cel-csv", "eventtype eventtime - channame uniqueid linkedid"))
    assert site.run("config", "check").exit_code == ExitCode.OK
