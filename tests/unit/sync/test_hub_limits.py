"""The counts that keep a hub within its bounds."""

import gc

import pytest

from sync.hub.limits import Budget, Limits, Places, Rate, Turns
from sync.hub.problems import Busy, RateLimited, TooManyRequests

LIMITS = Limits(bytes_in_flight=100)


def test_bytes_are_held_and_given_back() -> None:
    budget = Budget(LIMITS)

    with budget.share("ankara") as share:
        share.take(30)
        share.take(20)
        assert budget.used == 50

    assert budget.used == 0


def test_a_site_may_hold_half_and_others_the_rest() -> None:
    budget = Budget(LIMITS)
    with budget.share("ankara") as ankara, budget.share("izmir") as izmir, budget.share("van") as van:
        ankara.take(50)
        with pytest.raises(TooManyRequests):
            ankara.take(1)
        izmir.take(50)
        with pytest.raises(Busy):
            van.take(1)

    assert budget.used == 0


def test_places_are_counted_by_site() -> None:
    places = Places(1)
    with places.taken("ankara"):
        with pytest.raises(TooManyRequests), places.taken("ankara"):
            pass
        with places.taken("izmir"):
            pass
    with places.taken("ankara"):
        pass


def test_a_rate_recovers_with_time() -> None:
    now = 1000.0
    rate = Rate(6, clock=lambda: now)
    for _ in range(6):
        rate.spend("198.51.100.7")
    with pytest.raises(RateLimited) as limited:
        rate.spend("198.51.100.7")
    rate.spend("198.51.100.8")

    assert limited.value.retry_after_seconds == pytest.approx(10)
    now += 10
    rate.spend("198.51.100.7")


def test_an_ipv6_network_counts_as_one_address() -> None:
    rate = Rate(1, clock=lambda: 0.0)
    rate.spend("2001:db8::1")

    with pytest.raises(RateLimited):
        rate.spend("2001:db8::2")
    rate.spend("2001:db8:0:1::1")


def test_addresses_are_forgotten_before_they_are_too_many() -> None:
    rate = Rate(1, clock=lambda: 0.0)
    for number in range(20_000):
        rate.spend(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    assert len(rate._left) == Rate._ADDRESSES


async def test_a_sites_turn_is_one_lock_as_long_as_somebody_holds_it() -> None:
    turns = Turns()
    held = turns.of("ankara")
    assert turns.of("ankara") is held
    assert turns.of("izmir") is not held
    del held
    gc.collect()

    assert len(turns._locks) == 0
