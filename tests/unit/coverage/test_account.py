"""What is said where the calls of a day cannot be laid down."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.coverage.account import Account, SourceCall
from agent.coverage.errors import NotVerifiable
from agent.sources import cdr_scratch

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)


def call(sid: str) -> SourceCall:
    row = {"call_sid": sid, "start_time": AT, "end_time": AT, "pbx_answer_time": None, "disposition": "busy",
           "legs": [{"name": "PJSIP/101-00000001"}] * 50}  # fmt: skip
    return SourceCall(row, None)


def lay_down(calls: int) -> None:
    with Account.open() as account:
        for number in range(calls):
            account.add(call(f"here:main:{number}"), rank=0)


def test_a_full_disk_is_told_as_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdr_scratch, "_PRAGMAS", (*cdr_scratch._PRAGMAS, "max_page_count = 16"))
    with pytest.raises(NotVerifiable, match="no room"):
        lay_down(calls=1000)


def test_a_place_that_is_not_there_is_not_told_as_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(NotVerifiable, match=r"cannot be laid down.*nowhere"), Account.open():
        pass


def test_a_bug_is_no_fault_of_the_disk() -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such table"), Account.open():
        sqlite3.connect(":memory:").execute("SELECT * FROM nowhere")
