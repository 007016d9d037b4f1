"""Checks and backups by the calendar: what they find and leave, and what a start knows of them."""

import asyncio
import errno
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.store import upkeep as working
from agent.store.backup import back_up, restore
from agent.store.backup_files import named_by_clock, named_by_hand, scheduled_in
from agent.store.engine import Store, open_store, quick_check
from agent.store.files import upkeep_file
from agent.store.lease import lock_file
from agent.store.stopping import Stop, Stopped
from agent.store.upkeep import Upkeep
from agent.store.upkeep_notes import UpkeepNotes
from agent.store.writer import Group, Writer
from config.settings import StoreSettings
from tests.integration.store.facts import call
from tests.pbx.waiting import wait_until
from tests.small_disk import small_disk

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass
class Clock:
    """Both clocks of a machine."""

    now: datetime = NOW
    boot: float = 100.0

    def go_on(self, by: timedelta) -> None:
        self.now += by
        self.boot += by.total_seconds()


Starting = Callable[..., Upkeep]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def started(store: Store, clock: Clock) -> Starting:
    """The agent starts over the store."""

    def start(*, directory: Path | None = None, **wishes: int) -> Upkeep:
        settings = StoreSettings(backup_directory=directory, **wishes)
        place = directory or store.path.parent / "backups"
        return Upkeep(
            store,
            site="berlin",
            settings=settings,
            directory=place,
            now=lambda: clock.now,
            since_boot=lambda: clock.boot,
        )

    return start


def kept(upkeep: Upkeep) -> list[str]:
    """Everything in the directory of backups."""
    return sorted(path.name for path in upkeep.directory.iterdir())


def made(*after: timedelta) -> list[str]:
    return [named_by_clock("berlin", NOW + each) for each in after]


async def fill(writer: Writer) -> None:
    """Some 32 MB."""
    words = "x" * 8000
    for number in range(40):
        legs = [{"channel": str(leg), "words": words} for leg in range(100)]
        await writer.commit(Group(finished=[call(number, legs=legs)]))
    await writer.cut_log()


# The check


async def test_a_sound_database_is_looked_through_once_a_week_however_often_the_agent_starts(
    started: Starting, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    async def look(path: Path) -> list[str]:
        nonlocal looks
        looks += 1
        return await quick_check(path)

    monkeypatch.setattr(working, "quick_check", look)
    for _ in range(4 * 7 * 2 - 1):
        upkeep = started()
        await upkeep.run_due()
        clock.go_on(12 * HOUR)
        await upkeep.run_due()

    assert looks == 4
    assert upkeep.notes.found is None
    assert upkeep.next_check_at is not None
    assert upkeep.next_check_at - clock.now <= timedelta(days=7)


async def test_damage_that_a_check_finds_is_told_to_the_store_and_kept(
    database: Path, clock: Clock, started: Starting, store: Store
) -> None:
    await (await Writer.over(store.connection)).commit(Group(finished=[call(number) for number in range(200)]))
    await store.connection.run(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
    with database.open("r+b") as stream:
        stream.seek(database.stat().st_size // 2 // 8192 * 8192)
        stream.write(os.urandom(4 * 8192))

    await started().run_due()

    assert store.damage.told is not None
    assert "damaged" in store.damage.told
    assert UpkeepNotes.of(database).checked_at == clock.now
    assert UpkeepNotes.of(database).found


async def test_what_was_salvaged_is_looked_through_soon_after(database: Path, clock: Clock, started: Starting) -> None:
    UpkeepNotes(checked_at=clock.now, found="row 7 missing from index").keep(database)
    clock.go_on(HOUR)
    await started().run_due()
    assert UpkeepNotes.of(database) == UpkeepNotes(checked_at=clock.now)


async def test_without_a_calendar_only_a_stop_that_was_none_is_followed_by_a_check(
    database: Path, clock: Clock, started: Starting, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = started(check_every_days=0)
    await upkeep.run_due()
    assert (upkeep.notes.checked_at, upkeep.next_check_at) == (None, None)

    monkeypatch.setattr("agent.store.engine._CHECK_AT_START_BYTES", 0)
    other = database.with_name("other.db")
    async with open_store(other):
        pass
    lock_file(other).write_text("{}")  # as a killed holder leaves it
    async with open_store(other) as store:
        upkeep = Upkeep(
            store, site="berlin", settings=StoreSettings(check_every_days=0), directory=other.parent / "backups",
            now=lambda: clock.now, since_boot=lambda: clock.boot,
        )  # fmt: skip
        urgencies = [upkeep.is_urgent]
        await upkeep.run_due()
        assert [*urgencies, upkeep.is_urgent] == [True, False]
        assert upkeep.notes.checked_at == clock.now
        clock.go_on(timedelta(days=400))
        await upkeep.run_due()
        assert upkeep.notes.checked_at == NOW


async def test_a_check_that_cannot_be_done_is_told_and_done_later(
    started: Starting, clock: Clock, database: Path
) -> None:
    upkeep = started()
    aside = database.with_name("aside")
    database.rename(aside)
    await upkeep.run_due()
    assert "cannot be opened" in str(upkeep.notes.check_trouble)
    aside.rename(database)
    await upkeep.run_due()
    assert UpkeepNotes.of(database).checked_at is None
    clock.go_on(HOUR)
    await upkeep.run_due()
    assert UpkeepNotes.of(database) == UpkeepNotes(checked_at=clock.now)


async def test_a_check_nobody_waits_for_any_more_ends(database: Path, store: Store) -> None:
    looking = asyncio.create_task(quick_check(database))
    await asyncio.sleep(0)
    looking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await looking


# Backups


async def test_none_are_made_unless_the_settings_say_so(started: Starting) -> None:
    upkeep = started()
    await upkeep.run_due()
    assert not upkeep.directory.exists()
    assert upkeep.next_backup_at is None


async def test_the_latest_are_kept_and_what_others_put_there_stays(started: Starting, clock: Clock) -> None:
    upkeep = started(backup_every_hours=6, backup_keep=2)
    upkeep.directory.mkdir()
    others = {named_by_hand(NOW - 99 * HOUR), named_by_clock("munich", NOW - 99 * HOUR), "notes.txt"}
    for name in others:
        (upkeep.directory / name).touch()
    for _ in range(4 * 6):
        await upkeep.run_due()
        clock.go_on(HOUR)

    assert set(kept(upkeep)) == {*made(12 * HOUR, 18 * HOUR), *others}
    newest = upkeep.directory / made(18 * HOUR)[0]
    assert newest.stat().st_mode & 0o777 == 0o600
    assert (upkeep.notes.backup_file, upkeep.notes.backup_bytes) == (str(newest), newest.stat().st_size)
    assert upkeep.next_backup_at == NOW + 24 * HOUR


async def test_a_start_goes_on_where_the_last_run_was(started: Starting, clock: Clock) -> None:
    await started(backup_every_hours=6).run_due()
    for _ in range(11):
        clock.go_on(HOUR)
        await started(backup_every_hours=6).run_due()
    assert kept(started()) == made(timedelta(), 6 * HOUR)


async def test_a_backup_that_was_whole_before_it_was_noted_counts_and_remains_of_others_go(
    started: Starting, clock: Clock, database: Path
) -> None:
    await started(backup_every_hours=6).run_due()
    upkeep_file(database).unlink()
    (name,) = made(HOUR)
    for ending in (".part", ".part-journal", ".part-wal", ".part-shm"):
        (database.parent / "backups" / f"{name}{ending}").touch()
    clock.go_on(2 * HOUR)

    upkeep = started(backup_every_hours=6)
    await upkeep.run_due()

    assert kept(upkeep) == made(timedelta())
    assert upkeep.notes.backed_up_at == NOW


async def test_a_clock_that_leaps_brings_no_storm_and_never_takes_the_newest(started: Starting, clock: Clock) -> None:
    upkeep = started(backup_every_hours=6, backup_keep=1)
    await upkeep.run_due()
    for years in (9, -30, 20, 0):
        clock.now = NOW + timedelta(days=365 * years)
        clock.go_on(HOUR)
        await upkeep.run_due()
    assert kept(upkeep) == made(timedelta())

    clock.now = NOW + timedelta(days=3650)
    clock.go_on(2 * HOUR)
    await upkeep.run_due()
    assert kept(upkeep) == made(timedelta(days=3650) + 2 * HOUR)
    clock.now = NOW
    clock.go_on(6 * HOUR)
    await upkeep.run_due()
    assert kept(upkeep) == made(6 * HOUR)


async def test_a_backup_by_the_clock_is_put_back_by_restore(
    started: Starting, writer: Writer, store: Store, tmp_path: Path
) -> None:
    await writer.commit(Group(finished=[call(1)]))
    upkeep = started(backup_every_hours=6)
    await upkeep.run_due()
    await writer.commit(Group(finished=[call(2)]))
    elsewhere = tmp_path / "elsewhere" / "edge.db"

    restore(upkeep.directory / made(timedelta())[0], elsewhere, site="berlin")

    with closing(sqlite3.connect(elsewhere)) as connection:
        assert connection.execute("SELECT count(*) FROM call").fetchone() == (1,)


async def test_a_directory_that_is_missing_is_told_once_and_used_when_it_is_there(
    started: Starting, clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "usb"
    upkeep = started(directory=place, backup_every_hours=6)
    for _ in range(5):
        await upkeep.run_due()
        clock.go_on(HOUR)
    assert upkeep.notes.backup_trouble == f"there is no directory {place}; make it, or mount its disk"
    assert caplog.text.count("backups by the clock are in trouble") == 1
    assert not place.exists()

    place.mkdir()
    await upkeep.run_due()
    assert kept(upkeep) == made(5 * HOUR)
    assert upkeep.notes.backup_trouble is None


async def test_without_room_nothing_is_begun_and_the_old_ones_stay(
    started: Starting, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    upkeep = started(backup_every_hours=6, backup_keep=1)
    await upkeep.run_due()
    clock.go_on(6 * HOUR)
    real = shutil.disk_usage(upkeep.directory)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=(32 << 20) + 100))

    await upkeep.run_due()

    assert kept(upkeep) == made(timedelta())
    assert "there is no room" in str(upkeep.notes.backup_trouble)
    assert upkeep.notes.backed_up_at == NOW


async def test_a_disk_that_is_read_only_or_too_small_is_told_and_ends_nothing(
    started: Starting, clock: Clock, tmp_path: Path
) -> None:
    with small_disk(tmp_path, megabytes=8) as disk:
        upkeep = started(directory=disk.path, backup_every_hours=1)
        await upkeep.run_due()
        assert "there is no room" in str(upkeep.notes.backup_trouble)
        await asyncio.to_thread(_remount, disk.path, "ro")
        clock.go_on(HOUR)
        await upkeep.run_due()
        assert f"may not write to {disk.path}" in str(upkeep.notes.backup_trouble)
        await asyncio.to_thread(_remount, disk.path, "rw")
        assert [name for name in kept(upkeep) if name != "lost+found"] == []


def _remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


@pytest.mark.parametrize(("number", "is_kept"), [(errno.EINVAL, True), (errno.EIO, False)])
async def test_a_share_without_sync_of_names_will_do_and_a_disk_with_errors_does_not_fill_up(
    started: Starting, clock: Clock, monkeypatch: pytest.MonkeyPatch, number: int, is_kept: bool
) -> None:
    def refuse(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("agent.store.backup.sync_directory", refuse)
    upkeep = started(backup_every_hours=24)
    for _ in range(5):
        await upkeep.run_due()
        clock.go_on(HOUR)
    assert kept(upkeep) == (made(timedelta()) if is_kept else [])
    assert (upkeep.notes.backup_trouble is None) is is_kept


async def test_an_agent_that_stops_does_not_wait_for_the_end_of_a_backup(started: Starting, writer: Writer) -> None:
    await fill(writer)
    upkeep = started(backup_every_hours=1)
    due = asyncio.create_task(upkeep.run_due())
    await asyncio.to_thread(
        wait_until, lambda: any(upkeep.directory.glob("*.part")), what="a backup", seconds=5, pause=0.002
    )
    due.cancel()
    with pytest.raises(asyncio.CancelledError):
        await due
    await asyncio.to_thread(wait_until, lambda: not any(upkeep.directory.iterdir()), what="nothing", seconds=5)
    assert upkeep.notes.backed_up_at is None


async def test_a_budget_that_a_backup_would_use_up_is_kept(started: Starting, writer: Writer, store: Store) -> None:
    await fill(writer)
    upkeep = started(backup_every_hours=6, budget_megabytes=64, reserve_megabytes=0)
    await upkeep.run_due()
    assert "store.budget_megabytes would be used" in str(upkeep.notes.backup_trouble)
    assert not upkeep.directory.exists()


async def test_a_backup_that_is_stopped_in_its_middle_leaves_nothing(database: Path, store: Store) -> None:
    stop = Stop()
    stop.tell()
    target = database.parent / "backups" / "one.db"
    with pytest.raises(Stopped):
        back_up(database, target, stop=stop)
    assert list(target.parent.iterdir()) == []


async def test_notes_that_cannot_be_read_are_as_none(database: Path, started: Starting) -> None:
    for text in ("", "{", "[]", '{"format": 2}', '{"format": 1}', '{"format": 1, "checked_at": "2026"}'):
        upkeep_file(database).write_text(text)
        assert started().notes == UpkeepNotes()


async def test_no_backup_is_listed_before_it_is_whole(started: Starting, monkeypatch: pytest.MonkeyPatch) -> None:
    upkeep = started(backup_every_hours=6)
    seen = []
    rename = os.rename

    def look_first(source: Path, target: Path) -> None:
        if source.name.endswith(".db.part"):
            seen.extend(scheduled_in(upkeep.directory, "berlin"))
        rename(source, target)

    monkeypatch.setattr(os, "rename", look_first)
    await upkeep.run_due()
    assert seen == []
    assert kept(upkeep) == made(timedelta())
