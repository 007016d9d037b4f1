"""How far the room is used up, and how long the rest lasts."""

import pytest

from agent.store.room import Level, Room, days_left

MEGABYTE = 1 << 20
GIGABYTE = 1 << 30


@pytest.mark.parametrize(
    ("used", "level"), [(69, Level.OK), (70, Level.WATCH), (85, Level.LOW), (95, Level.FULL), (120, Level.FULL)]
)
def test_the_level_tells_how_much_of_the_budget_is_used(used: int, level: Level) -> None:
    room = Room(database=used * MEGABYTE, budget=100 * MEGABYTE, disk_free=100 * GIGABYTE, disk_total=200 * GIGABYTE)
    assert room.level is level


def test_everything_counts_but_pages_that_wait_to_be_filled() -> None:
    room = Room(database=100, unused=40, wal=10, spill=5, reserve=3, backups=2, budget=1000, disk_free=1 << 40)
    assert (room.used, room.left) == (80, 960)


def test_a_disk_that_others_fill_counts_as_well_unless_plenty_is_left() -> None:
    assert Room(disk_free=2 * GIGABYTE, disk_total=100 * GIGABYTE).level is Level.FULL
    assert Room(disk_free=50 * GIGABYTE, disk_total=1000 * GIGABYTE).level is Level.OK


def test_the_rest_lasts_as_long_as_calls_come_as_they_did_and_the_journal_has_its_share() -> None:
    room = Room(database=100 * MEGABYTE, journal=12 * MEGABYTE, disk_free=1100 * MEGABYTE, disk_total=GIGABYTE * 100)
    assert days_left(room, bytes_a_day=10 * MEGABYTE, journal_max=512 * MEGABYTE) == 60
    assert days_left(room, bytes_a_day=0, journal_max=512 * MEGABYTE) is None
