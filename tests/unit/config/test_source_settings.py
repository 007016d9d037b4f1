"""What a PBX writes down itself, in the settings."""

from pathlib import Path

import pytest

from config.describe import to_dict, to_toml
from config.settings import SourceKind
from tests.unit.config.files import GOOD, SECRET, complaints, read

SOURCE = GOOD + "[[pbx.sources]]\n"
FILE = SOURCE + 'kind = "cdr-csv"\npath = "Master.csv"\n'
TABLE = SOURCE + 'kind = "cdr-mariadb"\nurl = "mariadb://edge@db:3307/asteriskcdrdb"\n'


def test_a_file_needs_no_more_than_its_path(tmp_path: Path) -> None:
    (source,) = read(tmp_path, FILE).pbx[0].sources
    assert source.kind is SourceKind.CDR_CSV
    assert source.path == tmp_path / "Master.csv"
    assert (source.called, source.polled_every, source.place) == ("cdr-csv", 0.5, str(tmp_path / "Master.csv"))


def test_a_table_is_looked_at_less_often_and_told_without_its_user(tmp_path: Path) -> None:
    (source,) = read(tmp_path, TABLE).pbx[0].sources
    assert (source.polled_every, source.place) == (5.0, "asteriskcdrdb.cdr at db:3307")


@pytest.mark.parametrize(
    ("way", "uses_tls"),
    [
        ('url = "mariadb://u@db/d"', True),
        ('url = "mariadb://u@10.0.0.5/d"', True),
        ('url = "mariadb://u@10.0.0.5/d"\ntls = false', False),
        ('url = "mariadb://u@127.0.0.1/d"', False),
        ('url = "mariadb://u@[::1]/d"', False),
        ('url = "mariadb://u@localhost/d"\ntls = true', True),
        ('url = "mariadb://u@/d"\nsocket = "/run/mysqld/mysqld.sock"', False),
    ],
)
def test_what_leaves_this_machine_is_encrypted_unless_told_otherwise(tmp_path: Path, way: str, uses_tls: bool) -> None:
    (source,) = read(tmp_path, f'{SOURCE}kind = "cel-mariadb"\n{way}\n').pbx[0].sources
    assert source.uses_tls is uses_tls


def test_a_socket_is_told_as_the_place_and_a_user_s_name_is_read_as_urls_have_it(tmp_path: Path) -> None:
    text = 'kind = "cel-mariadb"\nurl = "mariadb://a%40b@/asteriskcdrdb"\nsocket = "/run/mysqld/mysqld.sock"\n'
    (source,) = read(tmp_path, SOURCE + text).pbx[0].sources
    assert source.place == "asteriskcdrdb.cel at /run/mysqld/mysqld.sock"
    assert source.server is not None
    assert source.server.user == "a@b"


@pytest.mark.parametrize("name", ["", 'name = "old"\n'])
def test_a_table_s_password_is_a_credential_and_never_shown(tmp_path: Path, name: str) -> None:
    (tmp_path / f"pbx-main-{'old' if name else 'cdr-mariadb'}-password").write_text(SECRET, encoding="utf-8")
    settings = read(tmp_path, TABLE + name, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    (source,) = settings.pbx[0].sources
    assert source.password is not None
    assert source.password.get_secret_value() == SECRET
    assert SECRET not in to_toml(settings)
    assert to_dict(settings)["pbx"][0]["sources"][0]["kind"] == "cdr-mariadb"


def test_several_sources_of_a_pbx_are_told_as_a_file_has_them(tmp_path: Path) -> None:
    second = (
        '[[pbx.sources]]\nkind = "queue-log"\npath = "/var/log/asterisk/queue_log"\ntime_zone = "Europe/Istanbul"\n'
    )
    told = to_toml(read(tmp_path, FILE + second))
    assert told.count("[[pbx.sources]]") == 2
    assert 'time_zone = "Europe/Istanbul"' in told


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            SOURCE + 'kind = "cdr-csv"\n',
            'FILE: pbx[0].sources[0]: kind = "cdr-csv" needs a path, as path = "/var/log/asterisk/cdr-csv/Master.csv"',
        ),
        (
            SOURCE + 'kind = "cel-mariadb"\n',
            'FILE: pbx[0].sources[0]: kind = "cel-mariadb" needs a url, '
            'as url = "mariadb://user@127.0.0.1:3306/asteriskcdrdb"',
        ),
        (TABLE + 'path = "x"\n', 'FILE: pbx[0].sources[0]: kind = "cdr-mariadb" has a url and no path'),
        (FILE + 'url = "mariadb://u@h/d"\n', 'FILE: pbx[0].sources[0]: kind = "cdr-csv" has a path and no url'),
        (FILE + "tls = true\n", 'FILE: pbx[0].sources[0]: kind = "cdr-csv" has a path and no tls'),
        (
            SOURCE + 'kind = "cdr-mariadb"\nurl = "mariadb://u@/d"\n',
            "FILE: pbx[0].sources[0]: use mariadb://user@host:3306/database, "
            'or on this machine mariadb://user@/database and socket = "/run/mysqld/mysqld.sock"',
        ),
        (
            SOURCE + 'kind = "cdr-mariadb"\nurl = "mariadb://u@/d"\nsocket = "s"\ntls = true\n',
            "FILE: pbx[0].sources[0]: what goes through a socket never leaves this machine; leave tls away",
        ),
        (
            SOURCE + 'kind = "cdr-mariadb"\nurl = "mariadb://u@127.0.0.1/d"\ntls_ca_file = "agent.toml"\n',
            "FILE: pbx[0].sources[0]: tls_ca_file is given and TLS is not used; write tls = true, or leave it away",
        ),
        (FILE + 'table = "cdr"\n', 'FILE: pbx[0].sources[0]: kind = "cdr-csv" is a file; leave table away'),
        (
            TABLE + 'columns = ["start"]\n',
            'FILE: pbx[0].sources[0]: kind = "cdr-mariadb" has columns with names of their own; leave columns away',
        ),
        (
            TABLE + 'table = "cdr; drop"\n',
            "FILE: pbx[0].sources[0].table: write the name of a table, letters, digits and underscores",
        ),
        (
            SOURCE + 'kind = "cdr-mariadb"\nurl = "mysql://u:p@h/d"\n',
            "FILE: pbx[0].sources[0].url: keep the password out of the URL; use password_file",
        ),
        (
            SOURCE + 'kind = "cdr-mariadb"\nurl = "postgresql://h/d"\n',
            "FILE: pbx[0].sources[0].url: use mariadb://user@host:3306/database",
        ),
        (
            FILE + 'time_zone = "Turkey time"\n',
            "FILE: pbx[0].sources[0].time_zone: this is no time zone; "
            "write one of the IANA database, as Europe/Istanbul or UTC",
        ),
        (
            FILE + '[[pbx.sources]]\nkind = "cdr-csv"\npath = "b"\n',
            "FILE: pbx[0].sources: two sources are called 'cdr-csv'; give each a name of its own",
        ),
        (
            SOURCE + 'kind = "cdr"\npath = "x"\n',
            "FILE: pbx[0].sources[0].kind: 'cdr': use 'cdr-csv', 'cel-csv', 'cdr-mariadb', 'cel-mariadb', "
            "'cdr-sqlite' or 'queue-log'",
        ),
        (FILE + 'pathh = "x"\n', "FILE: pbx[0].sources[0].pathh: unknown key; did you mean 'path'?"),
    ],
)
def test_what_is_wrong_with_a_source_is_told_with_the_remedy(tmp_path: Path, text: str, complaint: str) -> None:
    assert complaints(tmp_path, text) == [complaint]
