"""Settings as they are shown and fingerprinted."""

import json
from pathlib import Path

from config.describe import fingerprint, secrets_in, to_dict, to_toml
from tests.unit.config.files import GOOD, PBX, SECRET, read

FULL = (
    GOOD
    + """trunks = ["PJSIP/şube \\"1\\" \\u007f"]
[tenancy]
default = "umay"
[[tenancy.rules]]
tenant = "acme"
did_range = ["100", "199"]
[[tenancy.rules]]
tenant = "acme"
extension_range = [1, 2]
[live]
url = "unix:///run/valkey.sock"
username = "edge"
password = "geheim-1"
[central]
url = "postgresql://edge@central.example/sentiric"
password = "geheim-2"
"""
)


def test_what_is_shown_holds_every_setting_and_no_secret(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)
    told = to_dict(settings)
    assert told["pbx"][0]["secret"] == "********"
    assert told["central"]["password"] == "********"
    assert told["pbx"][0]["host"] == "127.0.0.1"
    assert told["live"]["tls_ca_file"] is None
    for text in (json.dumps(told), to_toml(settings), fingerprint(settings)):
        assert SECRET not in text
        assert "geheim" not in text


def test_what_is_shown_as_toml_can_be_read_again(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)
    environ = {
        "SENTIRIC_EDGE_PBX__MAIN__SECRET": SECRET,
        "SENTIRIC_EDGE_LIVE__PASSWORD": "geheim-1",
        "SENTIRIC_EDGE_CENTRAL__PASSWORD": "geheim-2",
    }
    assert read(tmp_path, to_toml(settings), environ) == settings


def test_what_is_not_set_and_what_is_secret_shows_as_a_comment(tmp_path: Path) -> None:
    text = to_toml(read(tmp_path, FULL))
    assert "# secret: set, not shown\n" in text
    assert "# tls_ca_file: not set\n" in text


def test_the_fingerprint_is_the_same_however_the_settings_are_written(tmp_path: Path) -> None:
    spelt_out = 'state_directory = "/var/lib/sentiric-edge"\n' + GOOD + "port = 5038\n[store]\n"
    assert fingerprint(read(tmp_path, GOOD)) == fingerprint(read(tmp_path, spelt_out))
    assert len(fingerprint(read(tmp_path, GOOD))) == 12


def test_the_fingerprint_tells_other_settings_apart_but_not_other_secrets(tmp_path: Path) -> None:
    first = fingerprint(read(tmp_path, GOOD))
    assert fingerprint(read(tmp_path, GOOD + "port = 5039\n")) != first
    assert fingerprint(read(tmp_path, PBX + 'secret = "another"\n')) == first


def test_all_secrets_are_found_wherever_they_stand(tmp_path: Path) -> None:
    found = {secret.get_secret_value() for secret in secrets_in(read(tmp_path, FULL))}
    assert found == {SECRET, "geheim-1", "geheim-2"}
