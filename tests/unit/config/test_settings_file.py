"""Reading a settings file: what is taken, and what is said of each mistake."""

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.load import load_settings
from config.settings import LogFormat
from tests.unit.config.files import GOOD, PBX, SECRET, complaints, lines, read, write

NO_HOST = "this is no host; write a name as pbx.example.com, labels of at most 63 letters, or an address"


def test_what_is_not_in_the_file_has_its_default(tmp_path: Path) -> None:
    settings = read(tmp_path, GOOD)
    assert settings.site == "istanbul-1"
    assert settings.pbx[0].port == 5038
    assert settings.log.format is LogFormat.AUTO
    assert settings.central is None


def test_a_byte_order_mark_windows_line_ends_and_turkish_text_are_taken(tmp_path: Path) -> None:
    text = ("\ufeff# Şube: İstanbul\n" + GOOD + 'trunks = ["PJSIP/şube-*"]\n').replace("\n", "\r\n")
    settings = read(tmp_path, text)
    assert settings.pbx[0].trunks == ("PJSIP/şube-*",)
    assert settings.pbx[0].secret is not None
    assert settings.pbx[0].secret.get_secret_value() == SECRET


def test_a_country_is_the_site_s_unless_a_pbx_has_its_own(tmp_path: Path) -> None:
    settings = read(tmp_path, 'country = "tr"\n' + GOOD + 'country = "DE"\noutside_line_prefixes = ["0", "*9"]\n')
    assert (settings.country, settings.pbx[0].country) == ("TR", "DE")
    assert settings.pbx[0].outside_line_prefixes == ("0", "*9")


@pytest.mark.parametrize(
    ("addition", "complaint"),
    [
        ('country = "UK"\n', "FILE: country: this is no country; did you mean 'GB'?"),
        (
            'country = "Türkiye"\n',
            "FILE: country: this is no country; write its two letters (ISO 3166), as TR, DE, GB or US",
        ),
        ("country = 90\n", "FILE: country: 90: must be text in quotes"),
    ],
)
def test_what_is_no_country_is_told_with_what_to_write(tmp_path: Path, addition: str, complaint: str) -> None:
    assert complaints(tmp_path, addition + GOOD) == [complaint]


def test_an_outside_line_prefix_is_what_phones_dial(tmp_path: Path) -> None:
    [complaint] = complaints(tmp_path, GOOD + 'outside_line_prefixes = ["nine"]\n')
    assert complaint.startswith(
        "FILE: pbx[0].outside_line_prefixes[0]: write what a phone dials before a public number"
    )


@pytest.mark.parametrize(
    ("addition", "encoding"),
    [
        ("", "cp1252"),
        ('country = "TR"\n', "cp1254"),
        ('country = "DE"\n', "cp1252"),
        ('legacy_encoding = "Windows-1254"\n', "cp1254"),
        ('country = "TR"\nlegacy_encoding = "latin5"\n', "iso8859-9"),
    ],
)
def test_names_that_are_no_utf8_are_read_as_told_or_by_the_country(
    tmp_path: Path, addition: str, encoding: str
) -> None:
    settings = read(tmp_path, GOOD + addition)
    assert settings.encoding_of(settings.pbx[0]) == encoding


@pytest.mark.parametrize("name", ["utf-16", "latin-99", "rot13", "cp932", "idna", "\\u0000"])
def test_a_byte_set_of_other_than_one_byte_a_letter_is_refused(tmp_path: Path, name: str) -> None:
    [complaint] = complaints(tmp_path, f'{GOOD}legacy_encoding = "{name}"\n')
    assert complaint.startswith("FILE: pbx[0].legacy_encoding: write a Windows or ISO byte set")


def test_a_relative_path_starts_where_the_file_is(tmp_path: Path) -> None:
    settings = read(tmp_path, 'state_directory = "state"\n' + GOOD)
    assert settings.database_file == tmp_path / "state" / "edge.db"
    assert settings.runtime_directory == Path("/run/sentiric-edge")


def test_every_mistake_is_told_at_once_on_a_line_of_its_own(tmp_path: Path) -> None:
    text = GOOD + 'port = 99999\nping_seconds = 0\n[log]\nlevel = "inf"\n[store]\njournal_keep_hours = "week"\n'
    assert complaints(tmp_path, text, {"SENTIRIC_EDGE_STIE": "x"}) == [
        "environment SENTIRIC_EDGE_STIE: no such setting; did you mean 'site'?",
        "FILE: log.level: 'inf': use 'debug', 'info', 'warning' or 'error'",
        "FILE: pbx[0].port: 99999: must be at most 65535",
        "FILE: pbx[0].ping_seconds: 0: must be at least 1",
        "FILE: store.journal_keep_hours: must be a whole number",
    ]


@pytest.mark.parametrize(
    ("addition", "complaint"),
    [
        ('hots = "pbx"\n', "FILE: pbx[0].hots: unknown key; did you mean 'host'?"),
        (
            "batch_records = 5\n",
            "FILE: pbx[0].batch_records: unknown key here; it belongs under [central], "
            "and a section ends where the next one begins",
        ),
        (
            'site = "b"\n',
            "FILE: pbx[0].site: unknown key here; it belongs under no section (write it before the first one), "
            "and a section ends where the next one begins",
        ),
        ("[log]\nzzz = 1\n", "FILE: log.zzz: unknown key; known here: format, level"),
        ("[cenral]\n", "FILE: cenral: unknown key; did you mean 'central'?"),
        ("port = true\n", None),
        ("tls = 3\n", "FILE: pbx[0].tls: 3: must be true or false, without quotes"),
        ("host = 5\n", "FILE: pbx[0].host: 5: must be text in quotes"),
        ('host = ""\n', "FILE: pbx[0].host: must not be empty"),
        ('host = "a\\r\\nb"\n', "FILE: pbx[0].host: must not hold line ends or other control characters"),
        ('trunks = "PJSIP/*"\n', 'FILE: pbx[0].trunks: must be a list: write trunks = ["…", "…"]'),
        ('host = "pbx..lan"\n', f"FILE: pbx[0].host: {NO_HOST}"),
        ('host = "pbx lan"\n', f"FILE: pbx[0].host: {NO_HOST}"),
        (f'host = "{"p" * 64}.lan"\n', f"FILE: pbx[0].host: {NO_HOST}"),
        ('tls_server_name = ".pbx"\n', f"FILE: pbx[0].tls_server_name: {NO_HOST}"),
        ("[[log]]\n", "FILE: log: must be a section: write [log] and its keys below"),
        (
            '[tenancy.rules]\ntenant = "a"\n',
            "FILE: tenancy.rules: must be a list: write [[tenancy.rules]] with two brackets",
        ),
        (
            '[[tenancy.rules]]\ntenant = "a"\n',
            "FILE: tenancy.rules[0]: the rule has no condition; for calls that no rule matches set tenancy.default",
        ),
        (
            '[[tenancy.rules]]\ncontext = "a"\n',
            'FILE: tenancy.rules[0].tenant: missing: write for example tenant = "acme"',
        ),
        (
            '[[tenancy.rules]]\ntenant = "a"\npbx = "mian"\n',
            "FILE: tenancy.rules[0].pbx: no PBX is named 'mian'; did you mean 'main'?",
        ),
        (
            '[[tenancy.rules]]\ntenant = "a"\ndid_range = ["12", "1"]\n',
            "FILE: tenancy.rules[0].did_range: give two numbers of equal length, the lower one first",
        ),
        (
            "[central]\n",
            'FILE: central.url: missing: write for example url = "https://hub.example"',
        ),
        (
            '[central]\nurl = "http://x"\n',
            "FILE: central.url: http:// is for this machine only, since it protects nothing; use https://",
        ),
        (
            '[central]\nurl = "ftp://x"\n',
            "FILE: central.url: use https://hub.example, or postgresql://user@host:5432/database",
        ),
        (
            '[central]\nurl = "https://x"\nproxy = "http://user@proxy:3128"\n',
            'FILE: central.proxy: use http://proxy.example:3128, or "none"; user and password belong into the '
            "environment's HTTPS_PROXY",
        ),
        (
            '[central]\nurl = "https://x"\nbulk_hours = ["22:00-6:00"]\n',
            'FILE: central.bulk_hours[0]: write from when to when by the clock of this machine, as "22:00-06:00"',
        ),
        (
            '[central]\nurl = "postgresql://a@x/b"\nmax_kilobits_per_second = 100\n',
            "FILE: central: this is for a hub, https://; leave max_kilobits_per_second away",
        ),
        (
            '[central]\nurl = "https://x"\npassword = "p"\n',
            "FILE: central: a hub asks for a credential; leave password away",
        ),
        (
            '[live]\nurl = "unix://"\n',
            "FILE: live.url: use memory://, redis://host:port/0, rediss://host:port/0 or unix:///path/to/socket",
        ),
        (
            '[live]\nurl = "redis://h/0?socket_timeout=1"\n',
            "FILE: live.url: only ?db= may follow; user, password and timeouts have settings of their own",
        ),
        ('tls_ca_file = "ca.pem"\n', "FILE: pbx[0].tls_ca_file: DIR/ca.pem is not there"),
        (
            '[[pbx]]\nname = "main"\nusername = "a"\nsecret = "b"\n',
            "FILE: pbx: two PBXes are called 'main'; give each its own name",
        ),
    ],
)
def test_a_mistake_is_told_with_its_key_and_a_remedy(tmp_path: Path, addition: str, complaint: str | None) -> None:
    if complaint is None:
        read(tmp_path, GOOD + addition)
    else:
        assert complaints(tmp_path, GOOD + addition) == [complaint]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", 'FILE: site: missing: write for example site = "istanbul-1"'),
        (
            "site = istanbul",
            "FILE: Invalid value (at line 1, column 8): "
            "text needs quotes, lists need [ and ], true and false are written small",
        ),
        (
            'site = "a"\nsite = "b" \n',
            "FILE: Cannot overwrite a value (at line 2, column 11): "
            "a key or section is given twice; if it is a list of sections, write [[name]]",
        ),
        (
            'site = "a"\n[pbx]\n[pbx]\n',
            "FILE: Cannot declare ('pbx',) twice (at line 3, column 5): "
            "the section is given twice; if it is a list of sections, write [[name]]",
        ),
        ('site "a"', "FILE: Expected '=' after a key in a key/value pair (at line 1, column 6): write key = value"),
        ("a = " + "[" * 5000, "FILE: lists or tables are nested too deeply"),
        (
            'site = "a"\n# İstanbul\n'.encode("iso-8859-9"),
            "settings: FILE is not UTF-8 in line 2 (perhaps ISO-8859-9 or Windows-1254); save it as UTF-8",
        ),
        ('site = "a"'.encode("utf-16"), "settings: FILE is UTF-16; save it as UTF-8"),
        (b"#" * 2_000_000, "settings: FILE is larger than 1024 KiB; it cannot be what is meant"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_told_with_the_place(tmp_path: Path, text: str | bytes, complaint: str) -> None:
    assert complaints(tmp_path, text) == [complaint]


def test_a_missing_file_or_a_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "agent.toml", {})
    assert lines(caught.value, tmp_path) == ["settings: FILE is not there"]
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path, {})
    assert lines(caught.value, tmp_path) == ["settings: DIR is a directory; name the file in it"]


def test_a_file_the_system_refuses_is_told_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = write(tmp_path, PBX)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError) as caught:
        load_settings(file, {})
    assert lines(caught.value, tmp_path) == ["settings: FILE cannot be read by this user; change its owner or mode"]
