"""How much is sent at once, on lines whose behaviour is made up."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from sync.pace import BulkHours, LineShare, Pace


def a_pace(clock: Callable[[], float] = lambda: 0.0) -> Pace:
    return Pace(max_records=1000, max_lanes=4, slow_seconds=10, clock=clock)


def driven(rate_of: Callable[[int], float], *, batches: int, silent_at: int = -1) -> Pace:
    """A pace after so many full batches, on a line that carries so many records a second with so many lanes, and once
    nothing for most of a second."""
    now = 0.0
    pace = Pace(max_records=100, max_lanes=4, slow_seconds=10, clock=lambda: now)
    for number in range(batches):
        now += pace.limit / rate_of(pace.lanes) + (0.8 if number == silent_at else 0.0)
        pace.answered(pace.limit, seconds=0.1, is_full=True)
    return pace


def test_lanes_are_added_while_they_bring_throughput() -> None:
    assert driven(lambda lanes: 100.0 * lanes, batches=60).lanes == 4


def test_a_lane_that_brings_nothing_is_given_up() -> None:
    assert driven(lambda lanes: 100.0, batches=60).lanes == 1
    assert driven(lambda lanes: 100.0 * min(lanes, 2), batches=60).lanes == 2


def test_a_moment_of_silence_costs_no_lane() -> None:
    for silent_at in range(7, 60):
        assert driven(lambda lanes: 1000.0 * lanes, batches=200, silent_at=silent_at).lanes == 4


def test_short_batches_tell_nothing_about_the_line() -> None:
    pace = a_pace()
    for _ in range(100):
        pace.answered(3, seconds=0.1, is_full=False)

    assert pace.lanes == 1


def test_trouble_makes_it_careful() -> None:
    pace = driven(lambda lanes: 100.0 * lanes, batches=60)
    pace.trouble()

    assert (pace.lanes, pace.limit) == (1, 50)


def test_a_slow_answer_makes_batches_smaller_before_one_takes_too_long() -> None:
    pace = a_pace()
    pace.answered(1000, seconds=12, is_full=True)
    assert pace.limit == 500

    pace.answered(500, seconds=6, is_full=True)
    assert pace.limit == 1000


def test_what_was_too_large_is_approached_slowly() -> None:
    pace = a_pace()
    pace.too_large(1000)
    limits = []
    for _ in range(4):
        pace.answered(pace.limit, seconds=0.1, is_full=True)
        limits.append(pace.limit)

    assert limits == [500, 550, 605, 665]


def test_the_centre_s_own_limit_holds() -> None:
    pace = a_pace()
    pace.allow(200)
    for _ in range(5):
        pace.answered(200, seconds=0.1, is_full=True)
    assert pace.limit == 200

    pace.allow(0)
    assert pace.limit == 1


class Line:
    """A clock that sleeping moves, and what went out when."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def send(self, share: LineShare, size: int) -> float:
        """Send a body; returns how long after the line's beginning its last part went."""
        await share.turn()
        assert b"".join([part async for part in share.spread(bytes(size))]) == bytes(size)
        return self.now - 100.0


@pytest.mark.parametrize("size", [10, 5_000, 50_000, 300_000])
async def test_bodies_take_no_more_than_their_share_of_the_line(size: int) -> None:
    line = Line()
    share = LineShare(256, clock=lambda: line.now, sleep=line.sleep)  # 32,000 bytes a second
    last = 0.0
    for _ in range(10):
        last = await line.send(share, size)
    await share.turn()

    assert line.now - 100.0 == pytest.approx(10 * size / 32_000)
    assert last <= 10 * size / 32_000


async def test_a_body_too_large_for_its_time_goes_and_the_next_one_waits_for_it() -> None:
    line = Line()
    share = LineShare(64, clock=lambda: line.now, sleep=line.sleep)  # 8,000 bytes a second

    assert await line.send(share, 800_000) == pytest.approx(8.0)
    assert await line.send(share, 10) == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("hours", "clock", "goes"),
    [
        ([], "12:00", True),
        (["22:00-06:00"], "21:59", False),
        (["22:00-06:00"], "22:00", True),
        (["22:00-06:00"], "05:59", True),
        (["22:00-06:00"], "06:00", False),
        (["12:00-13:00", "20:00-21:30"], "12:59", True),
        (["12:00-13:00", "20:00-21:30"], "13:00", False),
        (["12:00-13:00", "20:00-21:30"], "21:00", True),
    ],
)
def test_a_backlog_goes_in_its_hours(hours: list[str], clock: str, goes: bool) -> None:
    moment = datetime.fromisoformat(f"2026-11-23T{clock}").replace(tzinfo=UTC)

    assert BulkHours(hours).are_now(moment) is goes
