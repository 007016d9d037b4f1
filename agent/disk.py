"""Watches the room for local data: says when it runs out, keeps the reserve, and does what the settings say then."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final, assert_never

from agent.errors import StoreUnavailable
from agent.store.engine import Store, reading
from agent.store.faults import faults_of
from agent.store.free_pages import shrink
from agent.store.reserve import Reserve
from agent.store.retention import Retention
from agent.store.room import FULL, Level, Room, days_left, growth, least_free, measure
from agent.store.spill import count_set_aside
from config.settings import OnFull, StoreSettings

log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 30.0
_SOON_SECONDS: Final = 5.0  # while something is the matter
_GROWTH_SECONDS: Final = 600.0
# Below FULL by so much, so that the next call does not bring it back.
_ENOUGH: Final = FULL - 0.02


@dataclass(slots=True)
class DiskState:
    """What was found at the last look, for `status`."""

    room: Room = field(default_factory=Room)
    level: Level = Level.OK
    bytes_a_day: float = 0.0
    days_left: float | None = None
    backfill_stopped: bool = False
    calls_dropped: int = 0  # since the agent started
    segments_dropped: int = 0
    set_aside: int = 0  # spills that could not be read, or not wholly


class DiskWatch:
    """Looks now and then; `state` is its last word."""

    def __init__(
        self, store: Store, *, reserve: Reserve, spilled: Callable[[], int], settings: StoreSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:  # fmt: skip
        self.state = DiskState()
        self._store = store
        self._reserve = reserve
        self._spilled = spilled
        self._settings = settings
        self._now = now
        self._next_growth = 0.0

    def is_backfill_stopped(self) -> bool:
        """Whether past records have to wait."""
        return self.state.backfill_stopped

    async def run(self, retention: Retention) -> None:
        """Look again and again until cancelled."""
        while True:
            await self.look(retention)
            is_calm = self.state.level is Level.OK and not self._spilled()
            await asyncio.sleep(_EVERY_SECONDS if is_calm else _SOON_SECONDS)

    async def look(self, retention: Retention) -> None:
        """Once: measure, tell, and act."""
        if not self._spilled():
            await asyncio.to_thread(self._reserve.make)
        try:
            await self._measure()
            self._tell()
            if self.state.level is Level.FULL:
                await self._act(retention)
            else:
                self._go_on()
        except StoreUnavailable as exc:  # the tracker tells
            log.debug("the room cannot be looked at or made now: %s", exc)

    async def _measure(self) -> None:
        with faults_of(self._store.path):
            self.state.room = room = await self._store.reader.run(
                lambda reader: measure(reader, self._store.path, self._settings)
            )
        self.state.set_aside = await asyncio.to_thread(count_set_aside, self._store.path)
        loop_time = asyncio.get_running_loop().time()
        if loop_time >= self._next_growth:
            self.state.bytes_a_day = await self._store.reader.run(partial(growth, room=room, now=self._now()))
            self._next_growth = loop_time + _GROWTH_SECONDS
        self.state.days_left = days_left(
            room,
            bytes_a_day=self.state.bytes_a_day,
            journal_max=self._settings.journal_max_megabytes << 20,
        )

    def _tell(self) -> None:
        was, self.state.level = self.state.level, self.state.room.level
        if was is self.state.level:
            return
        facts = {"level": str(self.state.level), "percent": round(100 * self.state.room.part)}
        if self.state.level is Level.OK:
            log.info("there is room for local data again", extra=facts)
        else:
            log.warning("the room for local data runs out", extra=facts)

    def _go_on(self) -> None:
        if self.state.backfill_stopped:
            self.state.backfill_stopped = False
            log.info("past records are read again")

    async def _act(self, retention: Retention) -> None:
        target = self._target()
        for wish in self._settings.on_full:
            match wish:
                case OnFull.STOP_BACKFILL:
                    if not self.state.backfill_stopped:
                        log.warning("past records are not read while the room for local data is used up")
                    self.state.backfill_stopped = True
                case OnFull.DROP_SYNCED_HISTORY:
                    gone = await self._drop(retention.drop_synced_calls, target)
                    self.state.calls_dropped += gone
                    if gone:
                        log.warning("calls that the centre has were deleted to make room", extra={"calls": gone})
                case OnFull.DROP_JOURNAL:
                    gone = await self._drop(retention.drop_journal, target)
                    self.state.segments_dropped += gone
                    if gone:
                        log.warning("the oldest of the journal was deleted to make room", extra={"segments": gone})
                case _:
                    assert_never(wish)
        await self._measure()

    def _target(self) -> int | None:
        """To how many bytes the database has to come down; None: nothing need go."""
        room = self.state.room
        too_many = 0
        if room.budget:
            too_many = room.used - round(_ENOUGH * room.budget)
        too_many = max(too_many, least_free(room.disk_total) - room.disk_free - room.unused)
        return room.database - room.unused - too_many if too_many > 0 else None

    async def _drop(self, drop: Callable[[Callable[[], bool]], Awaitable[int]], target: int | None) -> int:
        if target is None or await asyncio.to_thread(self._holds_at_most, target):
            return 0
        gone = await drop(partial(self._holds_at_most, target))
        await shrink(self._store.connection, keep=0)
        return gone

    def _holds_at_most(self, target: int) -> bool:
        with reading(self._store.path) as reader:
            room = measure(reader, self._store.path, self._settings)
        return room.database - room.unused <= target
