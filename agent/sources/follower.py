"""Follows one source of a PBX all the time, so that what the live feed missed is found: docs/decisions/0006.

A call is held until its source has told all of it, and as long as the live feed still has it; until then the place that
is kept is that of its first record. So a crash repeats a little, and repeating changes nothing.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from agent.errors import StoreUnavailable
from agent.sources.gathering import GatheredCall, Gatherer, Mark
from agent.sources.keeping import Kept, advance, keep_calls
from agent.sources.silence import ASKED_EVERY_SECONDS, silence
from agent.sources.source import Look, Place, Record, Source, looks
from agent.sources.status import SourceStatus
from agent.store import sources
from agent.store.engine import Store
from agent.store.sources import Reject, SourceState
from agent.store.writer import Writer
from config import failpoints
from config.settings import SourceSettings

log = logging.getLogger(__name__)

T = TypeVar("T")

# Opens a source at a place that told itself, None: it was never read. What happened before the moment is not needed.
Opener = Callable[[dict[str, Any] | None, datetime], Source]  # Any: JSON

_SLICE: Final = 200  # calls in one transaction, at most
_AT_ONCE: Final = 100  # records, some milliseconds
_TOLD_AT_ONCE: Final = 20  # calls, some milliseconds
_MAX_HELD: Final = 2000  # beyond it reading waits
# The live feed shall have told a call first; it does so within milliseconds unless it is very busy.
_HOLD_SECONDS: Final = 3.0
_LONG_AGO: Final = timedelta(minutes=2)
_LIVE_AGAIN_SECONDS: Final = 5.0
_TELL_LOSS: Final = timedelta(days=1)
_REFUSED_IN_A_ROW: Final = 2  # records; a writer that died leaves one, wrong settings of columns or ids leave more
_KEEP_SECONDS: Final = 5.0  # between two commits that only advance the place
_KEEP_ANYWAY_SECONDS: Final = 600.0
_STORE_RETRY_SECONDS: Final = 2.0


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, eq=False)
class _Held:
    call: GatheredCall
    ready_at: float


@dataclass(frozen=True, slots=True)
class _KeptPlace:
    """A place of an earlier life, which its source may not have been able to go to yet."""

    told: dict[str, Any]  # Any: JSON

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        return self.told


class Follower:
    """One source. `status` is kept current for operators; `run` ends only by cancellation."""

    def __init__(
        self,
        settings: SourceSettings,
        *,
        pbx: str,
        gatherer: Gatherer,
        open_source: Opener,
        store: Store,
        writer: Writer,
        on_found: Callable[[], None],
        now: Callable[[], datetime] = _utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._gatherer = gatherer
        self._open = open_source
        self._store = store
        self._writer = writer
        self._on_found = on_found
        self._now = now
        self._monotonic = monotonic
        self._pause = pause
        since = now() - timedelta(days=settings.history_days)
        self._state = SourceState(pbx, settings.called, settings.kind, since=since)
        self._known_from: datetime | None = None  # the source tells all that ended later
        self._number = 0
        self._mark = Mark(0, None, 0, 0)  # behind the last record
        self._held: list[_Held] = []
        self._rejects: list[Reject] = []
        self._at_end_at: datetime | None = None
        self._told_until: datetime | None = None  # the time of the latest record
        self._refused = 0  # records in a row
        self._lost_at: datetime | None = None
        self._kept_at: float | None = None
        self._kept_number = 0
        self._asked_at = -_KEEP_SECONDS  # whether a gap can be filled
        self._silence_asked_at = monotonic()
        self.status = SourceStatus(pbx, settings.called, settings.kind, settings.place)

    async def run(self) -> None:
        """Read, and keep what comes of it, for ever."""
        await self._restore()
        place = self._mark.place
        source = self._open(place.as_json() if place is not None else None, await self._wanted_since())
        looked_at = self._now()
        polled = looks(source, poll_seconds=self._settings.polled_every, pause=self._pause)
        async with aclosing(polled) as stream:
            async for look in stream:
                await self._take(look, looked_at)
                await self._keep()
                await self._listen_for_silence()
                while len(self._held) > _MAX_HELD:
                    await self._pause(self._settings.polled_every)
                    await self._keep()
                looked_at = self._now()  # what is written from here on is for the next look

    async def _restore(self) -> None:
        read = partial(sources.state_of, pbx=self._state.pbx, source=self._state.source)
        found = await self._patiently(partial(self._store.reader.run, read))
        if found is None or found.kind != self._state.kind:
            return
        self._state = found
        kept = found.place
        if self._settings.kind.is_remote and kept.get("of") != self._settings.place:
            kept = {}  # the number of a row says nothing of another table
        self._known_from = _moment(kept.get("known_from"))
        self._told_until = _moment(kept.get("told_until"))
        told = kept.get("at", kept.get("tail"))  # "tail" by the first versions
        self._mark = Mark(0, _KeptPlace(told) if told else None, found.records, found.rejects)
        status = self.status
        status.read_until, status.records, status.rejects = found.read_until, found.records, found.rejects

    async def _wanted_since(self) -> datetime:
        """What happened earlier is of no use here."""
        gaps = await self._patiently(partial(self._store.reader.run, partial(sources.unfilled, pbx=self._state.pbx)))
        return min([self._state.since, *(gap.from_at for gap in gaps)])

    # What was read

    async def _take(self, look: Look, looked_at: datetime) -> None:
        status = self.status
        self._tell_trouble(look)
        if look.notes:
            self._known_from = None  # what was written between is not known
        if look.records:
            first = self._mark_at(look.records[0].at)
            self._gatherer.begin(first)
        for number, record in enumerate(look.records):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)  # what the PBX says meanwhile is heard
            mark = self._mark_at(record.at)
            reason = record.fault or self._gathered(record, mark)
            self._number += 1
            self._mark = Mark(self._number, record.after, mark.records + 1, mark.rejects + (reason is not None))
            self._refused = self._refused + 1 if reason is not None else 0
            if reason is not None:
                self._rejects.append(Reject(self._position(record), record.raw, reason))
                if self._refused >= _REFUSED_IN_A_ROW or self._told_until is None:
                    self._known_from = None  # of what calls they told is not known
            elif self._known_from is None:
                self._known_from = self._gatherer.last_at
        if look.place is not None:
            self._mark = self._mark._replace(place=look.place)
        last_at = self._gatherer.last_at
        if look.records and last_at is not None:
            last_at = min(last_at, self._now())  # whose clock was wrong told of the future
            self._told_until = last_at if self._told_until is None else max(last_at, self._told_until)
        if look.is_at_end:
            self._known_from = self._known_from or looked_at
            self._at_end_at = looked_at
        status.records, status.rejects = self._mark.records, self._mark.rejects
        seconds = self._monotonic()
        taken = self._gatherer.take_calls(seconds=seconds, is_at_end=look.is_at_end)
        for number, call in enumerate(taken):
            if number % _TOLD_AT_ONCE == 0:
                await asyncio.sleep(0)
            is_old = self._now() - call.end_time > _LONG_AGO
            self._held.append(_Held(call, seconds if is_old else seconds + _HOLD_SECONDS))

    def _gathered(self, record: Record, mark: Mark) -> str | None:
        try:
            return self._gatherer.take(record.data, mark)
        except Exception:  # a record that ended the agent once must not do so at every start
            facts = {"pbx": self._state.pbx, "source": self._state.source, "position": self._position(record)}
            log.exception("a record cannot be read and is set aside; please report this", extra=facts)
            return "reading it failed; please report this"

    def _mark_at(self, place: Place) -> Mark:
        return self._mark._replace(place=place)

    def _position(self, record: Record) -> str:
        return f"{record.position} of {self._settings.place}"

    def _tell_trouble(self, look: Look) -> None:
        facts = {"pbx": self._state.pbx, "source": self._state.source}
        if look.trouble != self.status.trouble:
            if look.trouble is not None:
                log.warning("a source cannot be read: %s", look.trouble, extra=facts)
            else:
                log.info("a source is read again", extra=facts)
        self.status.trouble = look.trouble
        if self._lost_at is not None and self._now() - self._lost_at > _TELL_LOSS:
            self._lost_at = None
            self.status.warnings.pop("loss", None)
        for note in look.notes:
            self._lost_at = self._now()
            log.warning("a part of a source may be lost: %s", note, extra=facts)
            self.status.warnings["loss"] = f"on {self._now():%Y-%m-%d %H:%M} UTC: {note}"

    async def _listen_for_silence(self) -> None:
        seconds = self._monotonic()
        if not self._gatherer.tells_every_call or seconds - self._silence_asked_at < ASKED_EVERY_SECONDS:
            return
        self._silence_asked_at = seconds
        told_until = max(self._told_until or self._state.since, self._state.since)
        ask = partial(silence, pbx=self._state.pbx, told_until=told_until, now=self._now())
        words = await self._patiently(partial(self._store.reader.run, ask))
        if words is None:
            self.status.warnings.pop("silence", None)
            return
        if "silence" not in self.status.warnings:
            log.warning("a source tells nothing more", extra={"pbx": self._state.pbx, "source": self._state.source})
        self.status.warnings["silence"] = words

    # What is kept

    async def _keep(self) -> None:
        """Commit what is ready, and how far all is known."""
        while True:
            seconds = self._monotonic()
            ready = [held for held in self._held if held.ready_at <= seconds][:_SLICE]
            if not (ready or self._rejects or await self._is_due(seconds)):
                break
            kept = await self._patiently(partial(self._writer.transact, partial(self._write, ready)))
            failpoints.hit("source.place.after")
            self._rejects = []
            self._kept_at, self._kept_number = seconds, self._number
            self._settle(ready, kept, seconds)
            if not ready:
                break
        self.status.waiting = len(self._gatherer) + len(self._held)
        self.status.read_until = self._at_end_at or self.status.read_until

    async def _is_due(self, seconds: float) -> bool:
        """Whether to commit though no call is ready: the place went on, or a gap can be closed."""
        if self._kept_at is None:
            return True  # what was written before the source was first read is to be known from now on
        if seconds - self._kept_at < _KEEP_SECONDS:
            return False
        if self._number != self._kept_number or seconds - self._kept_at >= _KEEP_ANYWAY_SECONDS:
            return True
        return await self._can_fill(seconds)

    async def _can_fill(self, seconds: float) -> bool:
        known_until, known_from = self._known_until(), self._known_from
        if known_until is None or known_from is None or seconds - self._asked_at < _KEEP_SECONDS:
            return False
        self._asked_at = seconds
        ask = partial(sources.can_fill, pbx=self._state.pbx, known_from=known_from, known_until=known_until)
        return await self._patiently(partial(self._store.reader.run, ask))

    def _write(self, ready: list[_Held], connection: sqlite3.Connection) -> Kept:
        now = self._writer.now_text()
        calls = [held.call for held in ready]
        kept, rejects = keep_calls(connection, calls, pbx=self._state.pbx, since=self._state.since, now=now)
        waiting = self._waiting(ready, kept)
        known_until = self._known_until(waiting)
        kept.filled = advance(
            connection,
            self._state_now(waiting),
            [*self._rejects, *rejects],
            known_from=self._known_from,
            known_until=known_until,
            now=now,
        )
        return kept

    def _state_now(self, waiting: list[_Held]) -> SourceState:
        marks = [held.call.first for held in waiting]
        unsettled = self._gatherer.first_unsettled
        mark = min([*marks, *([unsettled] if unsettled else []), self._mark], key=_number)
        place: dict[str, Any] = {"of": self._settings.place}  # Any: JSON
        if mark.place is not None:
            place["at"] = mark.place.as_json()
        for name, moment in (("known_from", self._known_from), ("told_until", self._told_until)):
            if moment is not None:
                place[name] = moment.isoformat()
        return replace(
            self._state,
            place=place,
            read_until=self._at_end_at or self._state.read_until,
            records=mark.records,
            rejects=mark.rejects,
        )

    def _known_until(self, waiting: list[_Held] | None = None) -> datetime | None:
        """Up to when every call that ended is told, by what was read and what of it is not settled.

        Never later than the latest record: a PBX that writes nothing down any more would look like one without calls.
        """
        if self._at_end_at is None or self._told_until is None or not self._gatherer.tells_every_call:
            return None
        begun = [held.call.start_time for held in (self._held if waiting is None else waiting)]
        unsettled = self._gatherer.unsettled_since
        written = self._at_end_at - timedelta(seconds=self._settings.settle_seconds)
        return min([written, self._told_until, *begun, *([unsettled] if unsettled is not None else [])])

    def _settle(self, ready: list[_Held], kept: Kept, seconds: float) -> None:
        self._held = self._waiting(ready, kept)
        for held in ready[: kept.done]:
            held.ready_at = seconds + _LIVE_AGAIN_SECONDS
        self.status.found += kept.found
        self.status.confirmed += kept.confirmed
        if kept.found:
            self._on_found()
        if kept.found or kept.filled:
            facts = {"pbx": self._state.pbx, "source": self._state.source, "calls": kept.found, "gaps": kept.filled}
            log.info("a source told calls that were not known wholly", extra=facts)

    def _waiting(self, ready: list[_Held], kept: Kept) -> list[_Held]:
        """Calls that are still to be told afterwards."""
        told = {id(held) for held in ready[: kept.done] if held.call.sid not in kept.live}
        return [held for held in self._held if id(held) not in told]

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Again until the local database can be used; `status` tells that it cannot."""
        while True:
            try:
                return await work()
            except StoreUnavailable:
                await self._pause(_STORE_RETRY_SECONDS)


def _number(mark: Mark) -> int:
    return mark.number


def _moment(told: object) -> datetime | None:
    return datetime.fromisoformat(told) if isinstance(told, str) else None
