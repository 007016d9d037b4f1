"""Checking and showing settings."""

import json
import tomllib

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
