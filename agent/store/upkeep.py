"""Looks the database through and copies it by the calendar, beside capture, while the agent runs."""

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agent.errors import StoreDamaged, StoreUnavailable
from agent.store.backup import back_up
from agent.store.backup_files import (
    BackupFile,
    doomed,
    left_unfinished,
    named_by_clock,
    scheduled_in,
)
from agent.store.due import Due
from agent.store.engine import Store, quick_check, reading
from agent.store.files import sync_directory
from agent.store.room import FULL, least_free, measure
from agent.store.stopping import Stop
from agent.store.upkeep_notes import UpkeepNotes
from config import failpoints
from config.settings import StoreSettings

log = logging.getLogger(__name__)

_EVERY_WITHOUT_CALENDAR: Final = timedelta(days=7)  # an owed check that cannot be done is tried again soon anyway
_SECOND: Final = timedelta(seconds=1)


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Upkeep:
    """One agent's. `notes` tells what came of it, `next_check_at` and `next_backup_at` when it goes on."""

    def __init__(
        self,
        store: Store,
        *,
        site: str,
        settings: StoreSettings,
        directory: Path,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        since_boot: Callable[[], float] = _since_boot,
    ) -> None:
        self.notes = UpkeepNotes.of(store.path)
        self.directory = directory
        self._store = store
        self._site = site
        self._settings = settings
        self._now = now
        self._since_boot = since_boot
        self._checks = Due(settings.check_every or _EVERY_WITHOUT_CALENDAR, since_boot=since_boot())
        self._backups = Due(settings.backup_every, since_boot=since_boot()) if settings.backup_every else None
        self._is_owed = store.check_due
        self._is_tidy = False
        self._one_at_a_time = asyncio.Lock()

    @property
    def is_urgent(self) -> bool:
        """Whether it should begin at once: the last stop was none, and nobody has looked since."""
        return self._is_owed

    @property
    def next_check_at(self) -> datetime | None:
        """None: none is planned."""
        if not self._is_owed and self._settings.check_every is None:
            return None
        return self._now() + max(timedelta(), self._until_check())

    @property
    def next_backup_at(self) -> datetime | None:
        """None: none are made by the clock."""
        if self._backups is None:
            return None
        return self._now() + max(timedelta(), self._until_backup(self._backups))

    async def run_due(self) -> None:
        """Do what is due. Damage that is found is noted at the store; other faults wait in `notes` and are retried."""
        if self._one_at_a_time.locked():
            return
        async with self._one_at_a_time:
            if not self._is_tidy:
                await self._tidy_up()
            if self.next_check_at is not None and self._until_check() <= timedelta():
                await self._check()
            if self._backups is not None and self._until_backup(self._backups) <= timedelta():
                await self._back_up(self._backups)

    def _until_check(self) -> timedelta:
        # What was found damaged has been salvaged since, and nobody has looked at what came of it.
        last_at = None if self._is_owed or self.notes.found is not None else self.notes.checked_at
        return self._checks.wait(last_at, now=self._now(), since_boot=self._since_boot())

    def _until_backup(self, due: Due) -> timedelta:
        return due.wait(self.notes.backed_up_at, now=self._now(), since_boot=self._since_boot())

    async def _keep(self, notes: UpkeepNotes) -> None:
        self.notes = notes
        try:
            await asyncio.to_thread(notes.keep, self._store.path)
        except OSError as exc:  # this run remembers it; the next one would only do it again
            log.debug("when the database was looked through and copied cannot be kept: %s", exc)

    # The check

    async def _check(self) -> bool:
        """Whether the database is known to be sound."""
        path, began = self._store.path, time.monotonic()
        try:
            problems = await quick_check(path)
        except StoreDamaged as exc:
            problems = [str(exc)]
        except StoreUnavailable as exc:
            self._checks.failed(self._since_boot())
            if self.notes.check_trouble is None:
                log.warning("the database could not be looked through: %s", exc)
            if self.notes.check_trouble != str(exc):
                await self._keep(replace(self.notes, check_trouble=str(exc)))
            return False
        self._checks.done(self._since_boot())
        self._is_owed = False
        found = problems[0] if problems else None
        await self._keep(replace(self.notes, checked_at=self._now(), found=found, check_trouble=None))
        if found is None:
            seconds = round(time.monotonic() - began, 1)
            log.info("the database was looked through and is sound", extra={"file": str(path), "seconds": seconds})
        else:
            self._store.damage.note(StoreDamaged(f"{path} is damaged ({found})"))
        return found is None

    # Backups

    async def _back_up(self, due: Due) -> None:
        stop = Stop()
        try:
            made = await asyncio.to_thread(self._make, stop)
        except StoreDamaged as exc:
            due.failed(self._since_boot())
            # In the copy: either it came over with it, or the copy's disk writes badly.
            is_sound = await self._check()
            if self._store.damage.told is None:
                theirs = f"the copy is damaged, the database is not; look after the disk of {self.directory}"
                await self._backup_failed(theirs if is_sound else str(exc))
            return
        except (StoreUnavailable, OSError) as exc:
            due.failed(self._since_boot())
            words = f"{exc.filename or self.directory}: {exc.strerror}" if isinstance(exc, OSError) else str(exc)
            await self._backup_failed(words)
            return
        finally:
            stop.tell()
        due.done(self._since_boot())
        had_trouble = self.notes.backup_trouble is not None
        await self._keep(_with(made, self.notes))
        failpoints.hit("upkeep.backup.noted")
        facts = {"file": str(made.path), "bytes": made.size}
        log.info("the database is backed up again" if had_trouble else "the database is backed up", extra=facts)
        await self._remove_old(made)

    async def _backup_failed(self, why: str) -> None:
        if self.notes.backup_trouble is None:
            log.warning("backups by the clock are in trouble: %s", why)
        if self.notes.backup_trouble != why:
            await self._keep(replace(self.notes, backup_trouble=why))

    def _make(self, stop: Stop) -> BackupFile:
        path = self._store.path
        self._look_at_directory()
        self._look_for_room()
        at = self._now().replace(microsecond=0)
        while (target := self.directory / named_by_clock(self._site, at)).exists():  # the clock was set back
            at += _SECOND
        try:
            return BackupFile(target, at, back_up(path, target, stop=stop), is_scheduled=True)
        except StoreUnavailable:
            with suppress(OSError):  # its name could not be synced: it may be gone one day, and is made again anyway
                target.unlink(missing_ok=True)
            raise

    def _look_at_directory(self) -> None:
        if not self.directory.is_dir():
            if self._settings.backup_directory is None:
                return  # the usual one is made when it is needed
            raise StoreUnavailable(f"there is no directory {self.directory}; make it, or mount its disk")
        if not os.access(self.directory, os.W_OK | os.X_OK):
            raise StoreUnavailable(
                f"the agent may not write to {self.directory}; look at its owner and mode, and in systemd at "
                "ReadWritePaths= (docs/reliability.md)"
            )

    def _look_for_room(self) -> None:
        """Raise StoreUnavailable if the backup would leave too little for anything else."""
        database = self._store.path
        place = self.directory if self.directory.is_dir() else database.parent
        with reading(database) as connection:
            room = measure(connection, database, self._settings)
        usage = shutil.disk_usage(place)
        needed, staying = room.database, least_free(usage.total) + (self._settings.reserve_megabytes << 20)
        if usage.free - needed < staying:
            raise StoreUnavailable(
                f"there is no room: it takes {_mega(needed)} MB, {self.directory} has {_mega(usage.free)} MB free, of "
                f"which {_mega(staying)} MB stay free; make room, have store.backup_keep smaller and remove one, or "
                "name another store.backup_directory"
            )
        is_beside = place.stat().st_dev == database.parent.stat().st_dev
        is_counted = self.directory.is_relative_to(database.parent)
        after = replace(
            room,
            backups=room.backups + (needed if is_counted else 0),
            disk_free=room.disk_free - (needed if is_beside else 0),
        )
        if after.part >= FULL and after.part > room.part:
            what = "store.budget_megabytes" if after.is_of_budget else "the disk"
            raise StoreUnavailable(
                f"there is no room: with {_mega(needed)} MB more, {after.part:.0%} of {what} would be used; make room, "
                "or name another store.backup_directory"
            )

    async def _remove_old(self, made: BackupFile) -> None:
        try:
            gone = await asyncio.to_thread(self._remove_beyond, made)
        except OSError as exc:
            await self._backup_failed(f"an old backup cannot be removed: {exc.filename}: {exc.strerror or exc}")
            return
        if gone:
            log.info("old backups were removed", extra={"count": gone})

    def _remove_beyond(self, made: BackupFile) -> int:
        files = doomed(scheduled_in(self.directory, self._site), newest=made, keep=self._settings.backup_keep)
        for file in files:
            file.path.unlink(missing_ok=True)
            failpoints.hit("upkeep.backup.removed")
        if files:
            sync_directory(self.directory)
        return len(files)

    # What an earlier run left

    async def _tidy_up(self) -> None:
        """Remove what a kill left of a backup, and learn of one that was whole before it was noted."""
        try:
            newest = await asyncio.to_thread(self._left_behind)
        except OSError:  # its disk is not mounted, or there never was a backup
            return
        self._is_tidy = True
        noted_at = self.notes.backed_up_at
        if newest is not None and newest.at <= self._now() and (noted_at is None or newest.at > noted_at):
            await self._keep(_with(newest, self.notes))

    def _left_behind(self) -> BackupFile | None:
        for file in left_unfinished(self.directory, self._site):
            file.unlink(missing_ok=True)
            log.info("what was left of a backup was removed", extra={"file": str(file)})
        return max(scheduled_in(self.directory, self._site), key=lambda one: one.at, default=None)


def _with(made: BackupFile, notes: UpkeepNotes) -> UpkeepNotes:
    return replace(notes, backed_up_at=made.at, backup_file=str(made.path), backup_bytes=made.size, backup_trouble=None)


def _mega(count: int) -> str:
    return f"{count / 1e6:,.0f}"
