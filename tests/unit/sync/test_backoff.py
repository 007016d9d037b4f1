"""Delays between tries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.backoff import Backoff


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def without_jitter(clock: Clock | None = None, **settings: float) -> Backoff:
    return Backoff(random=lambda: 0.0, clock=clock or Clock(), **settings)


def test_delays_double_up_to_the_maximum() -> None:
    backoff = without_jitter(maximum=10)

    assert [backoff.next_delay() for _ in range(6)] == [1, 2, 4, 8, 10, 10]


def test_a_lasting_success_makes_delays_short_again() -> None:
    clock = Clock()
    backoff = without_jitter(clock, maximum=60, stable_seconds=5)
    for _ in range(4):
        backoff.next_delay()

    backoff.succeeded()
    clock.now += 5

    assert backoff.next_delay() == 1


def test_a_success_that_breaks_at_once_counts_for_nothing() -> None:
    clock = Clock()
    backoff = without_jitter(clock, maximum=60, stable_seconds=5)
    backoff.next_delay()

    backoff.succeeded()
    clock.now += 1

    assert backoff.next_delay() == 2


def test_repeated_successes_count_from_the_first() -> None:
    clock = Clock()
    backoff = without_jitter(clock, maximum=60, stable_seconds=5)
    backoff.next_delay()
    for _ in range(6):
        backoff.succeeded()
        clock.now += 1

    assert backoff.next_delay() == 1


def test_the_peers_own_wish_is_honoured_within_reason() -> None:
    backoff = without_jitter(maximum=10)

    assert backoff.next_delay(at_least=120) == 120
    assert backoff.next_delay(at_least=1e9) == 3600
    assert backoff.next_delay(at_least=0.5) == 4


@given(random=st.floats(0, 1, exclude_max=True), initial=st.floats(0.01, 100), maximum=st.floats(0.01, 600))
def test_a_delay_is_never_above_the_maximum_nor_below_half_of_what_is_due(
    random: float, initial: float, maximum: float
) -> None:
    backoff = Backoff(maximum=maximum, initial=initial, random=lambda: random, clock=Clock())
    due = min(initial, maximum)

    for _ in range(12):
        assert due / 2 <= backoff.next_delay() <= due
        due = min(due * 2, maximum)


def test_two_agents_do_not_try_in_step() -> None:
    one, other = Backoff(maximum=60), Backoff(maximum=60)

    assert [one.next_delay() for _ in range(5)] != pytest.approx([other.next_delay() for _ in range(5)])
