"""Exporting calls as CSV and JSON lines."""

import csv
import io
import json
import stat
from pathlib import Path

import pytest

from agent.cli.export import COLUMNS, cell
from agent.cli.faults import ExitCode
from sync.records import CallRecord
from tests.unit.cli.local_site import NOON, LocalSite, call, sid


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "  =1",
        "\n=1",
        "＝1",
        "+90 532",
        "+",
        "=\u202e",
    ],
)
def test_what_a_spreadsheet_would_calculate_begins_with_an_apostrophe(text: str) -> None:
    assert cell(text).startswith("'")


@pytest.mark.parametrize("text", ["+905321234567", "905321234567", "Ayşe Yılmaz", "a=b", "*21#", "anonymous", ""])
def test_numbers_and_ordinary_text_stay_as_they_are(text: str) -> None:
    assert cell(text) == text


def test_negative_numbers_of_ours_are_no_formulas() -> None:
    assert cell(-1.5) == "-1.5"


def test_csv_has_the_documented_columns_and_moments_in_utc(site: LocalSite) -> None:
    site.keep(call(1, caller_name='=HYPERLINK("http://x")'), call(2, caller_name='Ömer, "Bey"', caller_id=None))
    result = site.run("calls", "export", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert result.exit_code == ExitCode.OK
    assert tuple(rows[0]) == COLUMNS
    assert [row["call_sid"] for row in rows] == [sid(1), sid(2)]
    assert rows[0]["caller_name"] == '\'=HYPERLINK("http://x")'
    assert rows[0]["start_time"] == "2026-11-22T12:01:00.000000+00:00"
    assert rows[1]["caller_name"] == 'Ömer, "Bey"'
    assert (rows[1]["caller_id"], rows[1]["transferred"], rows[1]["tenant"]) == ("", "false", "acme")


def test_the_help_names_every_column_and_every_column_is_of_the_record(site: LocalSite) -> None:
    text = " ".join(site.run("calls", "export", "--help").stdout.split())
    assert ", ".join(COLUMNS) in text
    assert set(COLUMNS) <= set(CallRecord._fields)


def test_json_lines_hold_legs_and_timeline(site: LocalSite) -> None:
    site.keep(call(1, legs=[{"endpoint": "PJSIP/101"}], timeline=[{"event": "up"}]), call(2))
    lines = [json.loads(line) for line in site.run("calls", "export", "-f", "jsonl").stdout.splitlines()]
    assert [line["call_sid"] for line in lines] == [sid(1), sid(2)]
    assert lines[0]["legs"] == [{"endpoint": "PJSIP/101"}]
    assert lines[0]["start_time"] == "2026-11-22T12:01:00.000000+00:00"
    assert "id" not in lines[0]


def test_a_file_is_whole_and_for_its_owner_alone(site: LocalSite, tmp_path: Path) -> None:
    site.keep(call(1), call(2))
    file = tmp_path / "calls.csv"
    result = site.run("calls", "export", "-f", "csv", "-o", str(file), "--bom")
    assert "2 calls written" in result.stderr
    assert "personal data" in result.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_bytes().startswith(b"\xef\xbb\xbfcall_sid,")
    assert list(tmp_path.glob(".calls.csv*")) == []


def test_a_file_that_is_there_is_replaced_only_by_force(site: LocalSite, tmp_path: Path) -> None:
    site.keep(call(1))
    file = tmp_path / "calls.csv"
    file.write_text("mine")
    file.chmod(0o644)
    refused = site.run("calls", "export", "-f", "csv", "-o", str(file))
    assert (refused.exit_code, refused.stderr, file.read_text()) == (
        ExitCode.ERROR, f"edge-agent: {file} is there already; --force replaces it\n", "mine",
    )  # fmt: skip
    forced = site.run("calls", "export", "-f", "csv", "-o", str(file), "--force")
    assert (forced.exit_code, stat.S_IMODE(file.stat().st_mode)) == (0, 0o600)
    assert list(tmp_path.glob(".calls.csv*")) == []


def test_a_broken_export_leaves_the_older_file_alone(
    site: LocalSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.keep(call(1))
    file = tmp_path / "calls.csv"
    file.write_text("older")

    def broken(_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agent.cli.export.cell", broken)
    result = site.run("calls", "export", "-f", "csv", "-o", str(file), "--force")
    assert (result.exit_code, result.stderr) == (ExitCode.ERROR, "edge-agent: No space left on device\n")
    assert file.read_text() == "older"
    assert list(tmp_path.glob(".calls.csv*")) == []


def test_only_the_calls_wanted_are_exported(site: LocalSite) -> None:
    site.keep(call(1), call(2, tenant="globex"), call(3, start_time=NOON.replace(day=21)))
    options = ["--tenant", "acme", "--since", "2026-11-22"]
    lines = site.run("calls", "export", "-f", "jsonl", *options).stdout.splitlines()
    assert [json.loads(line)["call_sid"] for line in lines] == [sid(1)]
