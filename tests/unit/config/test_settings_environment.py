"""Environment variables over the settings file."""

from pathlib import Path

import pytest

from tests.unit.config.files import GOOD, complaints, read


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD, {"SENTIRIC_EDGE_SITE": "ankara-2", "SENTIRIC_EDGE_LOG__LEVEL": "debug"})
    assert settings.site == "ankara-2"
    assert settings.log.level == "debug"


def test_a_pbx_is_found_by_its_name(tmp_path: Path) -> None:
    second = '[[pbx]]\nname = "branch-2.old"\nusername = "a"\nsecret = "b"\n'
    environ = {
        "SENTIRIC_EDGE_PBX__BRANCH_2_OLD__HOST": "10.0.0.2",
        "SENTIRIC_EDGE_PBX__MAIN__PORT": "5039",
        "SENTIRIC_EDGE_PBX__MAIN__TLS": "true",
        "SENTIRIC_EDGE_PBX__MAIN__TRUNKS": '["PJSIP/a*", "PJSIP/b*"]',
    }
    main, branch = read(tmp_path, GOOD + second, environ).pbx
    assert (main.port, main.tls, main.trunks) == (5039, True, ("PJSIP/a*", "PJSIP/b*"))
    assert (main.host, branch.host) == ("127.0.0.1", "10.0.0.2")


def test_text_stays_text_even_where_it_looks_like_a_number(tmp_path: Path) -> None:
    environ = {"SENTIRIC_EDGE_SITE": "007", "SENTIRIC_EDGE_PBX__MAIN__USERNAME": "true"}
    settings = read(tmp_path, GOOD, environ)
    assert settings.site == "007"
    assert settings.pbx[0].username == "true"


def test_a_section_that_the_file_does_not_have_comes_from_the_environment(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD, {"SENTIRIC_EDGE_CENTRAL__URL": "postgresql://edge@central.example/sentiric"})
    assert settings.central is not None
    assert settings.central.interval_seconds == 30


def test_tenant_rules_can_be_given_as_one_toml_list(tmp_path: Path) -> None:
    rules = '[{tenant = "acme", did_prefix = "90212"}, {tenant = "umay", extension_range = [100, 199]}]'
    settings = read(tmp_path, GOOD, {"SENTIRIC_EDGE_TENANCY__RULES": rules})
    assert [rule.tenant for rule in settings.tenancy.rules] == ["acme", "umay"]


def test_an_empty_variable_other_programs_variables_and_the_files_own_name_are_passed_over(tmp_path: Path) -> None:
    environ = {"SENTIRIC_EDGE_SITE": "", "SENTIRIC_EDGE_CONFIG": "/x", "SENTIRIC_OTHER": "1", "PATH": "/bin"}
    assert read(tmp_path, GOOD, environ).site == "istanbul-1"


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("STIE", "a", "no such setting; did you mean 'site'?"),
        ("SITE__NAME", "a", "no such setting; site is no section"),
        ("LOG__LEVL", "a", "no such setting; did you mean 'level'?"),
        ("LOG", "a", "must be a section: write [log] and its keys below"),
        ("PBX__MIAN__HOST", "a", "no PBX in the file is named so; did you mean 'main'?"),
        ("PBX__MAIN__HOTS", "a", "no such setting; did you mean 'host'?"),
        ("PBX__MAIN__PORT", "5o38", "must be a whole number"),
        ("PBX__MAIN__PORT", "99999", "99999: must be at most 65535"),
        ("PBX__MAIN__TRUNKS", "PJSIP/*", 'must be a list: write trunks = ["…", "…"]'),
        ("PBX__MAIN__TRUNKS", '["a", 5]', "5: must be text in quotes"),
        (
            "LIVE__URL",
            "redis://:geheim@h",
            "keep the password out of the URL; use password_file",
        ),
        (
            "CENTRAL__BATCH_RECORDS",
            "10",
            None,
        ),
    ],
)
def test_a_mistake_in_a_variable_is_told_with_its_name(
    tmp_path: Path, variable: str, value: str, complaint: str | None
) -> None:
    told = complaints(tmp_path, GOOD, {f"SENTIRIC_EDGE_{variable}": value})
    if complaint is None:
        assert told == ['FILE: central.url: missing: write for example url = "https://hub.example"']
    else:
        assert told == [f"environment SENTIRIC_EDGE_{variable}: {complaint}"]


def test_a_variable_that_could_mean_two_pbxes_is_refused(tmp_path: Path) -> None:
    text = GOOD + "".join(f'[[pbx]]\nname = "{name}"\nusername = "a"\nsecret = "b"\n' for name in ("a-b", "a.b"))
    assert complaints(tmp_path, text, {"SENTIRIC_EDGE_PBX__A_B__HOST": "h"}) == [
        "environment SENTIRIC_EDGE_PBX__A_B__HOST: the PBXes 'a-b' and 'a.b' look the same in a variable's name; "
        "set this key in the file"
    ]


def test_a_variable_for_a_section_that_is_none_in_the_file_is_told(tmp_path: Path) -> None:
    told = complaints(tmp_path, "log = 3\n" + GOOD, {"SENTIRIC_EDGE_LOG__LEVEL": "info"})
    assert told == [
        "environment SENTIRIC_EDGE_LOG__LEVEL: log in the file is no section; mend it there",
        "FILE: log: 3: must be a section: write [log] and its keys below",
    ]
