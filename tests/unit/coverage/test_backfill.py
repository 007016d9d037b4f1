"""What a source has to tell before the time of a gap counts as known."""

from datetime import timedelta
from pathlib import Path

import pytest

from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment
from agent.coverage.backfill import Backfill, Stretch
from agent.coverage.errors import NotVerifiable
from agent.sources.opening import PbxSources
from config.settings import AsteriskSettings
from tests.integration.sources.cdr_lines import cdr
from tests.integration.sources.world import MINUTE, NINE

GAP = Stretch(NINE + 2 * MINUTE, NINE + 4 * MINUTE)
NOW = NINE + timedelta(hours=1)


def line(number: int) -> str:
    return cdr(number, after=number * MINUTE)


def told(file: Path, *lines: str) -> tuple[int, str]:
    """How many calls of the gap's time are found, and by what it is filled."""
    file.write_text("".join(lines), encoding="utf-8")
    pbx = AsteriskSettings.model_validate(
        {"name": "main", "host": "pbx.example", "username": "x", "secret": "y", "time_zone": "UTC",
         "sources": [{"kind": "cdr-csv", "path": file}]}
    )  # fmt: skip
    of = PbxSources(site="s", pbx=pbx, encoding="cp1254", rules=CallRules, assign=lambda _: Assignment("acme"))
    with Backfill.of(of, pbx.sources, [GAP], now=NOW, rest=lambda _: None) as read:
        return sum(len(part) for part in read.calls(GAP, at_once=100)), read.told_by(GAP, now=NOW)


def test_a_source_that_tells_of_before_and_after_a_gap_tells_all_of_it(tmp_path: Path) -> None:
    assert told(tmp_path / "Master.csv", line(0), line(3), line(5)) == (1, "cdr-csv")


def test_a_record_of_a_clock_that_was_wrong_proves_nothing(tmp_path: Path) -> None:
    wrong = cdr(9, after=timedelta(days=4000))
    assert told(tmp_path / "Master.csv", line(0), wrong, line(3), line(5)) == (1, "cdr-csv")
    with pytest.raises(NotVerifiable, match="tells nothing later yet"):
        told(tmp_path / "Master.csv", line(0), line(3), wrong)


def test_cdrs_without_an_id_leave_a_gap_open(tmp_path: Path) -> None:
    with pytest.raises(NotVerifiable, match="1 CDRs around that time that bear no id: loguniqueid = yes"):
        told(tmp_path / "Master.csv", line(0), line(3).replace("1795340000.3", ""), line(5))
