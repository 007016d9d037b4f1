"""After a call's end: its row is completed with what services write late, and in the end the call is let go."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.calls.context import CallContext
from agent.errors import CallUnknown, StoreUnavailable
from agent.live.entries import Entries
from agent.live.entry import Entry, latest_operation
from agent.live.neighbours import OperationLog

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class DeskTimes:
    """In seconds."""

    grace: float = 60.0  # an ended call stays at hand
    late: float = 3600.0  # its operations are kept
    amend: float = 0.2  # what is written late is collected so long
    sweep: float = 10.0


class EndedCalls:
    """Looks after the calls that are over; one task (`run`) works."""

    def __init__(
        self,
        kept: OperationLog,
        entries: Entries,
        *,
        times: DeskTimes,
        on_amended: Callable[[], None],
        take_last: Callable[[Entry, CallContext], None],
        now: Callable[[], datetime],
    ) -> None:
        """`take_last` is given a call and its last context in a shared store."""
        self._kept = kept
        self._entries = entries
        self._times = times
        self._on_amended = on_amended
        self._take_last_in = take_last
        self._now = now
        self._finals: dict[str, CallContext] = {}  # last contexts in a shared store, of calls not at hand
        self._late: set[str] = set()  # whose row may lack something
        self._work = asyncio.Event()
        self._next_sweep = now()

    def check_row(self, entry: Entry) -> None:
        """Something was written, or the row was: see whether it lacks anything."""
        if entry.has_row and entry.ended_at is not None and latest_operation(entry) > entry.told:
            self._late.add(entry.shown.call_sid)
            self._work.set()

    def found_last(self, context: CallContext) -> None:
        """The last context of a call in the shared store, that ended while the agent did not look."""
        self._finals[context.call_sid] = context
        self._work.set()

    def forget(self, call_sid: str) -> None:
        """Nothing of this call is completed any more."""
        self._finals.pop(call_sid, None)
        self._late.discard(call_sid)

    async def run(self) -> None:
        """Make rows complete, and let calls go, until cancelled."""
        is_first = True
        while True:
            try:
                if is_first:
                    self._late.update(await self._kept.unfinished())
                    is_first = False
                while self._finals:
                    await self._take_last(next(iter(self._finals)))
                while self._late:
                    await self._amend(next(iter(self._late)))
                await self._sweep()
            except StoreUnavailable as exc:
                log.debug("ended calls cannot be completed now: %s", exc)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._times.sweep):
                    await self._work.wait()
                    self._work.clear()
                    await asyncio.sleep(self._times.amend)

    async def _take_last(self, sid: str) -> None:
        try:
            entry = self._entries.named(sid) or await self._entries.fetched(sid)
        except CallUnknown:
            self._finals.pop(sid)
            return
        self._take_last_in(entry, self._finals.pop(sid))

    async def _amend(self, sid: str) -> None:
        entry = self._entries.get(sid)
        if entry is None:
            try:
                found = await self._entries.found(sid)
            except CallUnknown:
                self._late.discard(sid)
                return
            entry = self._entries.get(sid) or found  # somebody may write at this moment
        self._late.discard(sid)  # what is written from now on is for the next time
        if entry.ended_at is None:
            return  # it goes on after all
        context = entry.shown
        try:
            is_changed = await self._kept.amend(context)
        except StoreUnavailable:
            self._late.add(sid)
            raise
        entry.told = max(entry.told, context.operation or 0)
        if is_changed:
            self._on_amended()

    async def _sweep(self) -> None:
        now = self._now()
        if now < self._next_sweep:
            return
        self._next_sweep = now + timedelta(seconds=self._times.sweep)
        for sid in self._entries:
            entry = self._entries.get(sid)
            if entry is None or entry.ended_at is None or entry.waiting:
                continue
            # No row for so long: the local database cannot be written. Where nobody noted anything, nothing is lost.
            latest = latest_operation(entry)
            is_told = entry.told >= latest if entry.has_row else not latest
            keep = self._times.grace if is_told else self._times.grace + self._times.late
            if now - entry.ended_at >= timedelta(seconds=keep):
                self._entries.drop(sid)
        await self._kept.expire(now - timedelta(seconds=self._times.late), but=list(self._entries))
