"""Turns of the scheduler, while its clock is set."""

from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from sync.every import Every, bring_near

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def turns(every: Every, due: datetime, now: datetime) -> list[datetime]:
    """As APScheduler counts those that have passed."""
    found = []
    turn = due
    while turn <= now:
        found.append(turn)
        turn = every.get_next_fire_time(turn, now)
    return found


def test_a_clock_that_comes_from_1970_makes_up_for_one_turn_and_not_for_all() -> None:
    booted = datetime(1970, 1, 1, tzinfo=UTC)
    assert turns(Every(MINUTE), booted, NOW) == [booted]


def test_a_turn_comes_an_interval_after_the_last_and_the_first_when_it_is_wanted() -> None:
    every = Every(10 * MINUTE, first=MINUTE)
    assert every.get_next_fire_time(None, NOW) == NOW + MINUTE
    assert every.get_next_fire_time(NOW, NOW) == NOW + 10 * MINUTE
    assert Every(MINUTE).get_next_fire_time(None, NOW) == NOW + MINUTE


def test_jitter_only_adds() -> None:
    every = Every(MINUTE, jitter_seconds=60)
    for _ in range(100):
        assert NOW + MINUTE <= every.get_next_fire_time(NOW, NOW) <= NOW + every.longest


async def test_a_clock_that_is_set_back_by_years_puts_no_turn_off() -> None:
    async def work() -> None: ...

    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start(paused=True)
    job = scheduler.add_job(work, Every(10 * MINUTE))
    planned = job.next_run_time

    bring_near(scheduler, now=planned - 5 * MINUTE)
    assert job.next_run_time == planned
    set_back = planned - timedelta(days=3650)
    bring_near(scheduler, now=set_back)
    assert job.next_run_time == set_back
    scheduler.shutdown(wait=False)
