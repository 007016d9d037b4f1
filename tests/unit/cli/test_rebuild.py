"""What came of a rebuild, as people read it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.cli.faults import CommandFailed
from agent.cli.rebuild import rebuild, say_rebuilt
from config.settings import Settings

BEGIN = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def amended(number: int, fields: dict[str, Any]) -> dict[str, Any]:
    return {
        "call_sid": f"main:{number}",
        "start_time": (BEGIN + timedelta(seconds=number)).isoformat(),
        "tenant": "acme",
        "revision": 2,
        "fields": fields,
        "tenant_kept_from": None,
    }


def told(calls: list[dict[str, Any]], *, still_live: int = 0) -> dict[str, Any]:
    return {
        "dry_run": False,
        "looked_at": len(calls),
        "changed": len(calls),
        "unchanged": 0,
        "left_alone": {},
        "not_stored": 0,
        "calls": calls,
        "still_live": still_live,
    }


def test_many_changes_are_told_by_kind_and_only_the_oldest_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    direction = {"direction": {"before": "inbound", "after": "internal"}}
    calls = [amended(number, {**direction, "timeline": None} if number < 3 else direction) for number in range(1000)]

    say_rebuilt(told(list(reversed(calls)), still_live=12))

    lines = capsys.readouterr().out.splitlines()
    assert lines[2:4] == ["direction inbound → internal: 997 calls", "direction inbound → internal, timeline: 3 calls"]
    assert "main:0 " in lines[6]
    assert lines[-2:] == [
        "… and 950 more; --json tells all", "12 calls still go on; run this again when they have ended",
    ]  # fmt: skip
    assert len(lines) < 60


def test_a_time_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(CommandFailed, match="--since has to be before --until"):
        rebuild(Settings(site="a"), since=BEGIN, until=BEGIN, dry_run=False)
