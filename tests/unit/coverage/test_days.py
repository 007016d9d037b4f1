"""Days by a PBX's clock, and which of them are due to be verified."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from agent.coverage.days import Day, days_due

ISTANBUL, BERLIN = ZoneInfo("Europe/Istanbul"), ZoneInfo("Europe/Berlin")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def due(now: datetime, *, done: set[str] | None = None, begun_at: datetime = LONG_AGO, most: int = 3) -> list[str]:
    return [day.name for day in days_due(now=now, zone=ISTANBUL, begun_at=begun_at, done=done or set(), most=most)]


def test_a_day_is_from_midnight_to_midnight_at_the_pbx() -> None:
    day = Day.of(date(2026, 11, 22), ISTANBUL)

    assert (day.start, day.end) == (
        datetime(2026, 11, 21, 21, tzinfo=UTC), datetime(2026, 11, 22, 21, tzinfo=UTC),
    )  # fmt: skip


def test_the_days_on_which_clocks_are_changed_have_23_and_25_hours() -> None:
    spring, autumn = Day.of(date(2026, 3, 29), BERLIN), Day.of(date(2026, 10, 25), BERLIN)

    assert spring.end - spring.start == timedelta(hours=23)
    assert autumn.end - autumn.start == timedelta(hours=25)


def test_yesterday_is_due_from_the_quiet_hour_on() -> None:
    assert due(datetime(2026, 11, 22, 23, 59, tzinfo=UTC), most=1) == ["2026-11-21"]  # 02:59 there
    assert due(datetime(2026, 11, 23, 0, 0, tzinfo=UTC), most=1) == ["2026-11-22"]


def test_what_was_not_verified_while_the_agent_was_down_is_caught_up_with() -> None:
    now = datetime(2026, 11, 22, 10, tzinfo=UTC)

    assert due(now, done={"2026-11-20"}) == ["2026-11-21", "2026-11-19"]


def test_days_before_the_agent_was_there_are_not_due() -> None:
    now, begun_at = datetime(2026, 11, 22, 10, tzinfo=UTC), datetime(2026, 11, 20, 12, tzinfo=UTC)

    assert due(now, begun_at=begun_at) == ["2026-11-21"]
