"""How commands write."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from agent.cli import output
from agent.cli.faults import CommandFailed
from agent.cli.times import parse_moment

NOW = datetime(2026, 11, 22, 17, 30, tzinfo=UTC)


def test_columns_are_aligned_also_with_wide_and_combined_characters() -> None:
    lines = output.table(("A", "B"), [("日本", "1"), ("Ays\u0327e", "2"), ("x", "3")])
    assert lines == ["A     B", "日本  1", "Ays\u0327e  2", "x     3"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"), (0.4, "0 s"), (59, "59 s"), (60, "1 min"), (185, "3 min 5 s"), (3600, "1 h"), (3660, "1 h 1 min"),
        (3605, "1 h"), (90_000, "1 d 1 h"), (864_000, "10 d"),
    ],
)  # fmt: skip
def test_lengths_of_time_have_at_most_two_units(seconds: float, text: str) -> None:
    assert output.length(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (65.4, "1:05"), (59.6, "1:00"), (3723, "1:02:03")])
def test_talk_times_look_as_on_a_telephone(seconds: float, text: str) -> None:
    assert output.clock(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (900, "900 B"), (1536, "1.5 KiB"), (20 * 2**20, "20 MiB"), (3 * 2**40, "3.0 TiB")]
)
def test_sizes_have_the_unit_that_suits_them(count: int, text: str) -> None:
    assert output.size(count) == text


def test_a_moment_is_on_the_readers_clock() -> None:
    there = timezone(timedelta(hours=3))
    assert output.moment(NOW.astimezone(there)) == "2026-11-22 17:30:00"
    assert output.zone() == "UTC+00:00"
    assert output.moment(None) == "-"


def test_colours_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: False)
    assert output.painted("x", output.Colour.BAD) == "x"
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert output.painted("x", output.Colour.BAD) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.painted("x", output.Colour.BAD) == "x"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-21 14:30", datetime(2026, 11, 21, 14, 30, tzinfo=UTC)),
        ("2026-11-21T14:30:00+03:00", datetime(2026, 11, 21, 11, 30, tzinfo=UTC)),
        ("today", datetime(2026, 11, 22, tzinfo=UTC)),
        ("Yesterday", datetime(2026, 11, 21, tzinfo=UTC)),
        ("now", NOW),
        ("90s", NOW - timedelta(seconds=90)),
        ("30min", NOW - timedelta(minutes=30)),
        ("30 m ago", NOW - timedelta(minutes=30)),
        ("2h", NOW - timedelta(hours=2)),
        ("7d", NOW - timedelta(days=7)),
        ("1w", NOW - timedelta(weeks=1)),
    ],
)
def test_moments_are_understood_as_people_type_them(text: str, moment: datetime) -> None:
    assert parse_moment(text, now=NOW) == moment


@pytest.mark.parametrize("text", ["", "h", "2x", "22.11.2026", "2026-13-01", "9999999d", "999999d"])
def test_what_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(CommandFailed, match="is no moment"):
        parse_moment(text, now=NOW)
