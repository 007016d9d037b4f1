"""When a clock is believed that says how old things are."""

from datetime import UTC, datetime, timedelta

from agent.store.clock_trust import ClockTrust, first_trust, look_again

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
HOUR = 3600.0


def is_believed(trust: ClockTrust) -> bool:
    return trust.doubted_since is None


def test_a_clock_that_goes_as_it_should_is_believed() -> None:
    trust = first_trust(newest=NOW - timedelta(days=2), now=NOW, monotonic=100.0)
    assert is_believed(trust)
    assert is_believed(look_again(trust, now=NOW + timedelta(hours=8), monotonic=100.0 + 8 * HOUR))


def test_an_empty_database_tells_nothing_against_it() -> None:
    assert is_believed(first_trust(newest=None, now=NOW, monotonic=0.0))


def test_a_clock_years_ahead_at_the_start_is_doubted_for_a_day_of_running() -> None:
    trust = first_trust(newest=NOW - timedelta(days=3650), now=NOW, monotonic=50.0)
    assert not is_believed(trust)
    trust = look_again(trust, now=NOW + timedelta(hours=23), monotonic=50.0 + 23 * HOUR)
    assert not is_believed(trust)
    assert is_believed(look_again(trust, now=NOW + timedelta(hours=24), monotonic=50.0 + 24 * HOUR))


def test_or_until_it_is_set_right() -> None:
    trust = first_trust(newest=NOW, now=NOW + timedelta(days=3650), monotonic=50.0)
    assert is_believed(look_again(trust, now=NOW + timedelta(days=1), monotonic=60.0))


def test_a_leap_forward_is_doubted_until_it_is_taken_back() -> None:
    trust = first_trust(newest=NOW, now=NOW, monotonic=0.0)
    trust = look_again(trust, now=NOW + timedelta(days=30), monotonic=600.0)
    assert not is_believed(trust)
    assert not is_believed(look_again(trust, now=NOW + timedelta(days=30, minutes=10), monotonic=1200.0))
    assert is_believed(look_again(trust, now=NOW + timedelta(minutes=20), monotonic=1200.0))


def test_a_leap_that_stays_is_believed_after_a_day() -> None:
    trust = first_trust(newest=NOW, now=NOW, monotonic=0.0)
    trust = look_again(trust, now=NOW + timedelta(days=30), monotonic=600.0)
    trust = look_again(trust, now=NOW + timedelta(days=31), monotonic=600.0 + 24 * HOUR)
    assert is_believed(trust)
    assert is_believed(look_again(trust, now=NOW + timedelta(days=31, minutes=10), monotonic=1200.0 + 24 * HOUR))


def test_a_clock_that_is_set_back_only_keeps_things_longer() -> None:
    trust = first_trust(newest=NOW, now=NOW, monotonic=0.0)
    assert is_believed(look_again(trust, now=datetime(1970, 1, 1, tzinfo=UTC), monotonic=600.0))
