"""Where secrets come from, and that no error shows one."""

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.load import load_settings
from config.settings import Settings
from tests.unit.config.files import GOOD, PBX, SECRET, complaints, lines, read, write

CENTRAL = '[central]\nurl = "postgresql://edge@central.example/sentiric"\n'


def secret_of(settings: Settings) -> str | None:
    secret = settings.pbx[0].secret
    return secret.get_secret_value() if secret else None


def test_a_secret_in_a_file_of_its_own_loses_only_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "main.secret").write_text(f" {SECRET} \r\n", encoding="utf-8")
    assert secret_of(read(tmp_path, PBX + 'secret_file = "main.secret"\n')) == f" {SECRET} "


@pytest.mark.parametrize("name", ["pbx-main-secret", "edge_pbx-main-secret"])
def test_a_systemd_credential_is_taken_whether_given_alone_or_by_a_directory(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(SECRET, encoding="utf-8")
    assert secret_of(read(tmp_path, PBX, {"CREDENTIALS_DIRECTORY": str(tmp_path)})) == SECRET


def test_the_passwords_of_the_centre_and_the_live_store_are_credentials_too(tmp_path: Path) -> None:
    (tmp_path / "edge_central-password").write_text("merkez", encoding="utf-8")
    (tmp_path / "live-password").write_text("canlı", encoding="utf-8")
    text = GOOD + CENTRAL + '[live]\nurl = "redis://h"\nusername = "edge"\n'
    settings = read(tmp_path, text, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert settings.central is not None
    assert settings.central.password is not None
    assert settings.central.password.get_secret_value() == "merkez"
    assert settings.live.password is not None
    assert settings.live.password.get_secret_value() == "canlı"


def test_what_the_settings_say_goes_before_a_credential(tmp_path: Path) -> None:
    (tmp_path / "pbx-main-secret").write_text("another", encoding="utf-8")
    assert secret_of(read(tmp_path, GOOD, {"CREDENTIALS_DIRECTORY": str(tmp_path)})) == SECRET


def test_a_secret_from_the_environment_stays_text_and_replaces_the_files_own_way(tmp_path: Path) -> None:
    environ = {"SENTIRIC_EDGE_PBX__MAIN__SECRET": "123456"}
    assert secret_of(read(tmp_path, PBX + 'secret_file = "gone"\n', environ)) == "123456"


def test_a_secret_file_from_the_environment_replaces_the_secret_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("other", encoding="utf-8")
    assert secret_of(read(tmp_path, GOOD, {"SENTIRIC_EDGE_PBX__MAIN__SECRET_FILE": "other"})) == "other"


def test_a_centre_may_need_no_password(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD + CENTRAL)
    assert settings.central is not None
    assert settings.central.password is None


def test_a_missing_secret_is_told_with_the_three_ways_to_give_it(tmp_path: Path) -> None:
    assert complaints(tmp_path, PBX) == [
        'FILE: pbx[0].secret: missing, and the PBX asks for one; give it as secret_file = "/path/to/file", '
        'as the systemd credential pbx-main-secret, or as secret = "…" in a file that only the agent can read'
    ]


def test_a_user_of_the_live_store_needs_a_password(tmp_path: Path) -> None:
    assert complaints(tmp_path, GOOD + '[live]\nusername = "edge"\n') == [
        'FILE: live.password: missing, and a user name is given; give it as password_file = "/path/to/file", '
        'as the systemd credential live-password, or as password = "…" in a file that only the agent can read'
    ]


def test_a_secret_in_a_file_that_others_can_read_is_refused_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(write(tmp_path, GOOD, mode=0o644), {})
    assert lines(caught.value, tmp_path) == [
        "FILE: pbx[0].secret: other users of this machine can read this file; "
        "run `chmod o-rwx FILE`, or use secret_file"
    ]


def test_a_file_without_secrets_may_be_read_by_all(tmp_path: Path) -> None:
    file = write(tmp_path, PBX, mode=0o644)
    assert secret_of(load_settings(file, {"SENTIRIC_EDGE_PBX__MAIN__SECRET": SECRET})) == SECRET


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    assert complaints(tmp_path, GOOD + 'secret_file = "x"\n') == [
        "FILE: pbx[0].secret: give secret or secret_file, not both"
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "DIR/s is not there"),
        (b"\n", "DIR/s is empty; write the secret into it"),
        (b"a\nb\n", "DIR/s holds more than one line; write only the secret into it"),
        (b"\xdd", "DIR/s is not UTF-8 in line 1 (perhaps ISO-8859-9 or Windows-1254); save it as UTF-8"),
    ],
)
def test_a_useless_secret_file_is_told(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "s").write_bytes(content)
    assert complaints(tmp_path, PBX + 'secret_file = "s"\n') == [f"FILE: pbx[0].secret_file: {complaint}"]


@pytest.mark.parametrize(
    "text",
    [
        PBX + "secret = 4711471147\n",
        PBX + 'secret = "4711471147\\n"\n',
        PBX + 'secret = ["4711471147"]\n',
        PBX + 'secret = "4711471147\n',
        PBX + "secret = 4711471147x\n",
        PBX + 'secert = "4711471147"\n',
        GOOD + '[central]\nurl = "postgresql://u:4711471147@h/d"\n',
        GOOD + '[central]\nurl = "postgresql://u@h/d?password=4711471147"\n',
        GOOD + '[live]\nurl = "redis://u:4711/471147@h"\n',
        GOOD + '[live]\nurl = "redis://u:4711471147]@h"\n',
    ],
)
def test_no_error_shows_a_secret(tmp_path: Path, text: str) -> None:
    assert "4711" not in "".join(complaints(tmp_path, text))
