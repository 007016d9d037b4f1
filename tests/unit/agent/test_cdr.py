"""Lines of CDR files as rows, in every set of columns."""

import csv
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from agent.pbx.asterisk.cdr import CdrFault, CdrReader, CdrRow, UnknownColumns, caller_of, columns_of, digest_of
from tests.pbx.configuration import CDR_COLUMNS
from tests.unit.agent.cdrs import NOON, WIRE, cut, master_line, row, rows


def _fields(line: str) -> list[str]:
    return next(csv.reader([line]))


def _line(fields: list[str]) -> str:
    return ",".join('"' + field.replace('"', '""') + '"' for field in fields)


def test_a_line_of_master_csv_tells_everything() -> None:
    told = row(userfield="audio:x.wav", accountcode="acme")
    assert (told.start, told.answer, told.end) == (NOON, NOON + timedelta(seconds=5), NOON + timedelta(seconds=65))
    assert (told.src, told.dst, told.dstchannel, told.lastapp) == (
        "905321112233", "902125551001", "PJSIP/101-00000002", "Dial",
    )  # fmt: skip
    assert (told.uniqueid, told.linkedid, told.sequence, told.key) == (
        "1795348800.1",
        "1795348800.1",
        "1",
        told.linkedid,
    )
    assert (told.userfield, told.accountcode, told.disposition, told.billsec) == ("audio:x.wav", "acme", "ANSWERED", 60)


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (range(16), ("", "", "", "")),
        ([*range(16), 16], ("1795348800.1", "", "", "")),
        ([*range(16), 17], ("", "note", "", "")),
        (range(18), ("1795348800.1", "note", "", "")),
        ([*range(16), 18, 19, 20], ("", "", "1795348800.1", "1")),
        ([*range(16), 16, 18, 19, 20], ("1795348800.1", "", "1795348800.1", "1")),
        ([*range(16), 17, 18, 19, 20], ("", "note", "1795348800.1", "1")),
        (range(21), ("1795348800.1", "note", "1795348800.1", "1")),
    ],
)
def test_the_later_columns_may_be_there_or_not(columns: range, told: tuple[str, ...]) -> None:
    whole = _fields(master_line(userfield="note"))
    (read,) = rows(_line([whole[at] for at in columns]))
    assert (read.uniqueid, read.userfield, read.linkedid, read.sequence) == told
    assert read[:10] == row(userfield="note")[:10]


def test_a_file_whose_columns_grew_over_the_years_is_read_to_its_end() -> None:
    whole = _fields(master_line())
    assert len(rows(_line(whole[:16]), _line(whole[:18]), _line(whole))) == 3


def test_the_sample_of_cdr_custom_is_known() -> None:
    line = (
        '"""Ayşe"" <101>","101","102","internal","PJSIP/101-1","PJSIP/102-2","Dial","PJSIP/102,20",'
        '"2026-11-22 12:00:00","2026-11-22 12:00:05","2026-11-22 12:01:05","65","60","ANSWERED","3","",'
        '"1795348800.7","",5'
    )
    (read,) = rows(line)
    assert (read.src, read.dst, read.uniqueid, read.sequence, read.start) == ("101", "102", "1795348800.7", "5", NOON)


def test_columns_may_be_named_and_passed_over() -> None:
    columns = columns_of("uniqueid, start ,-,disposition,CLID")
    (read,) = rows('1795348800.1,1795348800.5,junk,ANSWERED,"""Ali"" <101>"', columns=columns)
    assert (read.uniqueid, read.clid, read.start) == ("1795348800.1", '"Ali" <101>', NOON + timedelta(seconds=0.5))


@pytest.mark.parametrize("text", ["start,disposition,colour", "src,dst", ""])
def test_columns_that_mean_nothing_or_not_enough_are_refused(text: str) -> None:
    with pytest.raises(UnknownColumns):
        columns_of(text)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_an_export_of_freepbx_tells_its_columns_itself(delimiter: str) -> None:
    header = (  # noqa: SIM905 - as it stands in the file
        "calldate,clid,src,dst,dcontext,channel,dstchannel,lastapp,lastdata,duration,billsec,disposition,amaflags,"
        "accountcode,uniqueid,userfield,did,recordingfile,cnum,cnam,outbound_cnum,outbound_cnam,dst_cnam,linkedid,"
        "peeraccount,sequence"
    ).split(",")
    line = [
        "2026-11-22 12:00:00", '"Ayşe" <905321112233>', "905321112233", "101", "ext-local", "PJSIP/trunk-1",
        "PJSIP/101-2", "Dial", "PJSIP/101 20", "65", "60", "ANSWERED", "3", "", "1795348800.1", "", "902125551001",
        "in-101.wav", "905321112233", "Ayşe", "", "", "", "1795348800.1", "", "3",
    ]  # fmt: skip
    reader = CdrReader(UTC)
    assert reader.row("\ufeff" + delimiter.join(header)) is None
    read = reader.row(delimiter.join('"' + field.replace('"', '""') + '"' for field in line))
    assert read is not None
    assert (read.start, read.answer, read.end) == (NOON, NOON + timedelta(seconds=5), NOON + timedelta(seconds=65))
    assert (read.did, read.recordingfile, read.cnam) == ("902125551001", "in-101.wav", "Ayşe")
    assert reader.row(delimiter.join(header)) is None  # files put one behind the other


@pytest.mark.parametrize(
    "line",
    ["nonsense", '"a","b"', master_line(disposition="MAYBE"), master_line(start="soon"), master_line(start="")],
)
def test_what_is_no_cdr_is_told_so(line: str) -> None:
    reader = CdrReader(UTC)
    assert reader.row(master_line()) is not None
    with pytest.raises(CdrFault):
        reader.row(line)
    assert reader.row(master_line()) is not None


def test_a_file_of_something_else_is_given_up() -> None:
    reader = CdrReader(UTC)
    with pytest.raises(UnknownColumns):  # noqa: PT012 - the first hundred lines may be broken ones
        for _ in range(200):
            with pytest.raises(CdrFault):
                reader.row("Nov 22 12:00:00 pbx asterisk[1]: something happened, again")


@pytest.mark.parametrize(
    ("clid", "name", "number"),
    [
        ('"Ayşe" <101>', "Ayşe", "101"),
        ('"" <101>', "", "101"),
        ("<101>", "", "101"),
        ('"Ali \\"Baba\\" <Can>" <101>', 'Ali "Baba" <Can>', "101"),
        ("101", "101", ""),
        ("", "", ""),
    ],
)
def test_name_and_number_of_a_caller_id(clid: str, name: str, number: str) -> None:
    assert caller_of(clid) == (name, number)


def test_equal_lines_without_ids_have_the_same_digest_and_others_another() -> None:
    nameless = row(uniqueid="", linkedid="")
    assert digest_of(nameless) == digest_of(row(uniqueid="", linkedid=""))
    assert digest_of(nameless) != digest_of(row(uniqueid="", linkedid="", dst="902125551002"))


@pytest.mark.parametrize("name", ["town", "stage"])
def test_both_of_asterisks_own_files_tell_the_same(name: str) -> None:
    plain = rows(*_texts(WIRE / f"{name}.master.csv"))
    custom = rows(*_texts(WIRE / f"{name}.custom.csv"), columns=tuple(CDR_COLUMNS))
    assert len(plain) == len(custom)
    for one, other in zip(plain, custom, strict=True):
        assert _coarse(one) == _coarse(other)


def _texts(path: Path) -> list[str]:
    return [one.raw.decode() for one in cut(path.read_bytes())]


def _coarse(one: CdrRow) -> CdrRow:
    return one._replace(
        start=one.start.replace(microsecond=0),
        answer=one.answer.replace(microsecond=0) if one.answer else None,
        end=one.end.replace(microsecond=0),
        billsec=int(one.billsec),
    )
