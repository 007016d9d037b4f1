"""Rows of the channel event log, as files and tables write them."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agent.pbx.asterisk.cel import CEL_COLUMNS, CelReader, CelRow, NoCelRow
from tests.pbx import configuration

ISTANBUL = ZoneInfo("Europe/Istanbul")
AT = datetime(2026, 11, 22, 16, 56, 21, 74804, UTC)
LINE = (
    '"CHAN_START","1795366581.074804","Ayşe Yılmaz","905300000001","","","","902125551001","from-trunk-acme",'
    '"PJSIP/trunk-acme-00000000","","","","1795366581.0","1795366581.0","","",""\n'
).encode()


def row(told: CelRow | NoCelRow) -> CelRow:
    assert isinstance(told, CelRow), told
    return told


def reason(told: CelRow | NoCelRow) -> str:
    assert isinstance(told, NoCelRow), told
    return told.reason


def line(**columns: str) -> bytes:
    told = dict.fromkeys(CEL_COLUMNS, "") | {
        "eventtype": "ANSWER", "eventtime": "1795366581.074804", "uniqueid": "1795366581.0"
    } | columns  # fmt: skip
    return ",".join('"' + told[name].replace('"', '""') + '"' for name in CEL_COLUMNS).encode()


def test_the_recommended_line_has_the_columns_we_expect() -> None:
    assert tuple(configuration.CEL_COLUMNS) == CEL_COLUMNS


def test_a_line_of_cel_custom_is_a_row() -> None:
    assert row(CelReader().read(LINE)) == CelRow(
        event="CHAN_START",
        at=AT,
        channel="1795366581.0",
        linked="1795366581.0",
        name="PJSIP/trunk-acme-00000000",
        number="905300000001",
        caller_name="Ayşe Yılmaz",
        context="from-trunk-acme",
        exten="902125551001",
        application="",
        data="",
        accountcode="",
        extra={},
    )


def test_extra_is_read_as_json() -> None:
    told = row(CelReader().read(line(eventtype="HANGUP", extra='{"hangupcause":16,"hangupsource":"PJSIP/101-1"}')))

    assert told.extra == {"hangupcause": 16, "hangupsource": "PJSIP/101-1"}


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("1", "CHAN_START"),
        ("3", "HANGUP"),
        ("13", "USER_DEFINED"),
        ("14", "LINKEDID_END"),
        ("21", "DTMF"),
        ("99", "99"),
    ],
)
def test_a_number_stands_for_an_event_as_well_as_its_name(number: str, name: str) -> None:
    assert row(CelReader().read(line(eventtype=number))).event == name


@pytest.mark.parametrize(
    ("told", "at"),
    [
        ("1795366581.074804", AT),
        ("1795366581", AT.replace(microsecond=0)),
        ("1795366581.5", AT.replace(microsecond=500_000)),
        ("2026-11-22 19:56:21", AT.replace(microsecond=0)),
        ("2026-11-22 19:56:21.074804", AT),
        ("2026-11-22T19:56:21.074804", AT),
        ("2026-11-22T16:56:21.074804Z", AT),
        ("2026-11-22T16:56:21.074804+00:00", AT),
        ("2026-11-22 17:56:21.074804+0100", AT),
    ],
)
def test_a_moment_is_told_by_the_clock_of_the_pbx_unless_it_tells_its_own_zone(told: str, at: datetime) -> None:
    read = row(CelReader(zone=ISTANBUL).read(line(eventtime=told)))

    assert (read.at, read.at.tzinfo) == (at, UTC)


@pytest.mark.parametrize(
    "told", ["", "yesterday", "0", "1e9", "-5", "99999999999", "1" * 40, "1.2.3", "2026-13-01 00:00:00", "0001-01-01"]
)
def test_what_is_no_time_of_an_event_is_no_row(told: str) -> None:
    assert reason(CelReader().read(line(eventtime=told))) == "no time of an event"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (b"", "an empty line"),
        (b"\r\n", "an empty line"),
        (LINE[:100], "no line of CSV: unexpected end of data"),
        (LINE[: LINE.index(b'"","","1795')].rstrip(b","), "11 columns instead of 18"),
        (LINE[:-1] + b',"more"', "19 columns instead of 18"),
        (b'"a"b"', "no line of CSV: ',' expected after '\"'"),
        (line(uniqueid=""), "no uniqueid"),
        (line(uniqueid="1" * 500), "no uniqueid"),
        (line(linkedid="1" * 500), "no linkedid"),
        (line(eventtype=""), "no eventtype"),
        (line(extra="{"), "broken JSON in extra"),
        (line(extra="[1]"), "broken JSON in extra"),
        (b"\0" * 40, "1 columns instead of 18"),
    ],
)
def test_a_line_that_is_no_row_says_why(told: bytes, why: str) -> None:
    assert reason(CelReader().read(told)) == why


def test_a_field_longer_than_any_is_no_row() -> None:
    assert reason(CelReader().read(line(appdata="x" * 200_000))).startswith("no line of CSV")


def test_a_header_tells_the_columns_from_then_on() -> None:
    reader = CelReader()

    assert reason(reader.read(b"EventType,EventTime,ChanName,UniqueID,LinkedID,CIDnum\n")) == "a header"
    told = row(reader.read(b"ANSWER,1795366581.074804,PJSIP/101-1,1795366581.1,1795366581.0,101\n"))

    assert (told.name, told.channel, told.linked, told.number) == ("PJSIP/101-1", "1795366581.1", "1795366581.0", "101")


def test_a_column_that_is_not_told_is_empty() -> None:
    reader = CelReader(("eventtype", "eventtime", "uniqueid"))

    told = row(reader.read(b"ANSWER,1795366581.074804,1795366581.1"))

    assert (told.linked, told.number, told.context, told.extra) == ("1795366581.1", None, "", {})


def test_names_are_read_in_the_byte_set_of_the_site_where_they_are_no_utf_8() -> None:
    latin5 = line(cid_name="NAME").replace(b"NAME", "Ayşe Yılmaz".encode("iso-8859-9"))

    assert row(CelReader(encoding="cp1254").read(latin5)).caller_name == "Ayşe Yılmaz"


@pytest.mark.parametrize("told", ["", "<unknown>", "<Unknown>"])
def test_what_asterisk_does_not_know_is_none(told: str) -> None:
    read = row(CelReader().read(line(cid_num=told, cid_name=told)))

    assert (read.number, read.caller_name) == (None, None)


def test_a_row_of_freepbx_s_table_is_a_row() -> None:
    told = {
        "id": 17, "eventtype": "HANGUP", "eventtime": datetime.fromisoformat("2026-11-22 19:56:21"),
        "cid_name": "Ayşe".encode(),
        "cid_num": "101", "cid_ani": "101", "cid_rdnis": "", "cid_dnid": None, "exten": "s", "context": "from-internal",
        "channame": "PJSIP/101-00000001", "appname": "", "appdata": "", "amaflags": 3, "accountcode": "",
        "uniqueid": "1795366581.1", "linkedid": "1795366581.0", "peer": "", "userdeftype": "",
        "extra": '{"hangupcause":16,"hangupsource":"","dialstatus":"ANSWER"}',
    }  # fmt: skip

    read = row(CelReader(zone=ISTANBUL).row_of(told))

    assert (read.event, read.at) == ("HANGUP", AT.replace(microsecond=0))
    assert (read.name, read.caller_name, read.extra["hangupcause"]) == ("PJSIP/101-00000001", "Ayşe", 16)


def test_a_table_may_tell_moments_with_their_zone() -> None:
    told = {"eventtype": "ANSWER", "eventtime": AT.astimezone(timezone(timedelta(hours=3))), "uniqueid": "1.1"}

    assert row(CelReader(zone=ISTANBUL).row_of(told)).at == AT


def test_a_row_of_a_table_that_lacks_what_is_needed_says_why() -> None:
    assert reason(CelReader().row_of({"eventtype": "ANSWER", "eventtime": 1795366581.07, "uniqueid": None})) == (
        "no uniqueid"
    )


def test_the_lines_that_operators_are_told_to_write_are_those_we_try() -> None:
    told = (Path(__file__).parents[3] / "docs" / "asterisk.md").read_text(encoding="utf-8")

    mapping = ",".join("${CSV_QUOTE(${" + source + "})}" for source in configuration.CEL_COLUMNS.values())
    assert f"\nMaster.csv => {mapping}\n" in told
    assert f"\napps={configuration.CEL_APPS}\n" in told
