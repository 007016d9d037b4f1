"""Whose call it is, and why."""

import pytest

from agent.cli.faults import ExitCode
from tests.unit.cli.local_site import SETTINGS, LocalSite, call


def test_the_first_rule_that_fits_wins_and_the_others_say_why_not(site: LocalSite) -> None:
    result = site.run("tenants", "test", "--did", "+902125551001", "--extension", "201")
    assert result.stdout.splitlines() == [
        "acme, by rule 1",
        "",
        "RULE  TENANT  FITS  BECAUSE",
        "1     acme    yes   it is the first that fits",
        "2     globex  late  it fits too, but rule 1 comes first",
    ]


def test_a_condition_that_fails_is_told_with_what_the_call_has(site: LocalSite) -> None:
    told = site.json("tenants", "test", "--did", "903124442012")
    assert (told["tenant"], told["rule"], told["by_default"]) == (None, None, False)
    assert told["rules"][0]["because"] == ["did_prefix 90212555 does not fit 903124442012"]
    assert told["rules"][1]["because"] == ["extension_range 200 to 299 does not fit a call without one"]


def test_a_did_rule_does_not_fit_an_outbound_call(site: LocalSite) -> None:
    told = site.json("tenants", "test", "--did", "902125551001", "--direction", "outbound")
    assert told["rules"][0]["because"] == ["did_prefix 90212555 does not fit an outbound call"]


def test_without_a_rule_that_fits_the_default_wins(site: LocalSite) -> None:
    site.write(SETTINGS.replace("[[tenancy.rules]]", '[tenancy]\ndefault = "umay"\n[[tenancy.rules]]', 1))
    told = site.json("tenants", "test", "--context", "internal")
    assert (told["tenant"], told["by_default"]) == ("umay", True)


def test_without_any_tenant_the_call_stays_unassigned(site: LocalSite) -> None:
    result = site.run("tenants", "test")
    assert result.exit_code == ExitCode.OK
    assert result.stdout.startswith("unassigned: no rule fits and there is no tenancy.default")


@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ('context = "from-acme*"', ["--context", "from-acme-2"]),
        ('trunk = "PJSIP/trunk-a*"', ["--trunk", "PJSIP/trunk-acme"]),
        ('trunk = "PJSIP/trunk-a*"', ["--endpoint", "PJSIP/trunk-acme"]),
        ('endpoint = "PJSIP/1*"', ["--endpoint", "PJSIP/999", "--endpoint", "PJSIP/101"]),
        ('accountcode = "42"', ["--accountcode", "42"]),
        ('did_range = ["902125550000", "902125559999"]', ["--did", "902125551234", "--direction", "inbound"]),
        ('pbx = "main"', []),
        ('pbx = "main"', ["--pbx", "main"]),
    ],
)
def test_every_condition_can_be_tried(site: LocalSite, rule: str, options: list[str]) -> None:
    site.write(SETTINGS.replace('did_prefix = "90212555"', rule))
    assert site.json("tenants", "test", *options)["tenant"] == "acme"


def test_a_trunk_that_is_none_by_the_settings_is_pointed_out(site: LocalSite) -> None:
    result = site.run("tenants", "test", "--trunk", "PJSIP/provider")
    assert "note: PJSIP/provider is no trunk by the settings of PBX main" in result.stdout


@pytest.mark.parametrize("option", [["--pbx", "mian"], ["--direction", "sideways"]])
def test_a_word_that_means_nothing_is_refused(site: LocalSite, option: list[str]) -> None:
    result = site.run("tenants", "test", *option)
    assert result.exit_code == ExitCode.ERROR
    assert len(result.stderr.splitlines()) == 1


def test_with_several_pbxes_and_rules_for_one_of_them_the_pbx_must_be_named(site: LocalSite) -> None:
    second = '[[pbx]]\nname = "branch"\nusername = "a"\nsecret = "b"\n'
    site.write(SETTINGS.replace('did_prefix = "90212555"', 'pbx = "branch"') + second)
    assert "say which with --pbx: main, branch" in site.run("tenants", "test").stderr
    assert site.json("tenants", "test", "--pbx", "branch")["tenant"] == "acme"
    assert site.json("tenants", "test", "--pbx", "main")["tenant"] is None


def test_tenants_are_listed_with_their_rules_and_calls(site: LocalSite) -> None:
    site.keep(call(1), call(2), call(3, tenant="gone"), call(4, tenant=None))
    assert site.json("tenants", "list") == {
        "tenants": [
            {"tenant": "acme", "rules": [1], "default": False, "calls": 2},
            {"tenant": "globex", "rules": [2], "default": False, "calls": 0},
            {"tenant": "gone", "rules": [], "default": False, "calls": 1},
        ],
        "unassigned": 1,
    }
    text = site.run("tenants", "list").stdout
    assert "gone    no rule any more  1" in text
    assert "1 call unassigned: edge-agent calls list --unassigned" in text


def test_tenants_are_listed_before_there_is_a_database(site: LocalSite) -> None:
    result = site.run("tenants", "list")
    assert result.exit_code == ExitCode.OK
    assert "acme    rule 1  -" in result.stdout


def test_without_an_agent_calls_are_reassigned_in_the_database(site: LocalSite) -> None:
    site.keep(call(1, tenant=None), call(2, tenant=None, callee_id="903124442012"), call(3))
    assert site.json("tenants", "reassign") == {"looked_at": 2, "assigned": {"acme": 1}, "unassigned": 1}
    assert site.json("calls", "list", "--tenant", "acme")["calls"][1]["revision"] == 2
    assert site.json("outbox")["waiting"] == 2
    again = site.run("tenants", "reassign")
    assert again.stdout == "1 unassigned call looked at, 0 assigned, 1 left\n"
