"""Stored calls derived again from the journal, after a rule was mended, while the agent goes on capturing.

For each PBX the journal is heard again from before the first of its calls that touch the time in question, so that
calls joined with others are known wholly. What is heard begins, like everything, at some moment: calls of which
something lies before it are left as they are.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.feed import Interpreter
from agent.store import amend
from agent.store.amend import Amended, Left, Retold
from agent.store.engine import Store
from agent.store.history import pbx_names, read_part, span, timed
from agent.store.moments import moment_of, moment_text
from agent.store.segment import Segment
from agent.store.writer import Writer
from agent.tracking.derive import Derivation, DerivedCall
from agent.tracking.stretch import first_segment
from config.settings import TenancySettings

# Work in one piece, and the pause after it in which everything else goes on.
_SLICE_SECONDS: Final = 0.003
_FRAMES_BETWEEN_LOOKS: Final = 16
_STEP: Final = 100  # calls looked at in one transaction: some milliseconds
_TELL_SECONDS: Final = 0.5
# What is before the journal's first moment by the PBX's clock may be in it by ours.
_CLOCK_MARGIN: Final = timedelta(minutes=15)


@dataclass(slots=True)
class Progress:
    """How far a rebuild is. `amended` holds the calls that are changed or keep their tenant; each is told once."""

    looked_at: int = 0
    changed: int = 0
    unchanged: int = 0
    left: dict[Left, int] = field(default_factory=dict)
    not_stored: int = 0  # calls that the journal tells and the database does not hold
    heard_until: datetime | None = None
    amended: list[Amended] = field(default_factory=list)
    is_done: bool = False

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """For JSON."""
        return {
            "done": self.is_done,
            "looked_at": self.looked_at,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "left_alone": {reason.name.lower(): count for reason, count in sorted(self.left.items())},
            "not_stored": self.not_stored,
            "heard_until": self.heard_until.isoformat() if self.heard_until else None,
            "calls": [amended.as_dict() for amended in self.amended],
        }

    def leave(self, reason: Left, count: int = 1) -> None:
        """So many calls are left alone."""
        if count:
            self.left[reason] = self.left.get(reason, 0) + count
            self.looked_at += count


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be done for one PBX."""

    pending: dict[str, datetime]  # call_sids with when they began
    begun_before: int
    first: int  # the segment to begin with
    last: int
    held_from: datetime


class Rebuild:
    """One pass over the calls that began in a time; `run` may be left at any point, what is done stays done."""

    def __init__(
        self,
        *,
        store: Store,
        writer: Writer,
        site: str,
        tenancy: TenancySettings,
        rules: Mapping[str, CallRules],
        interpreter: Callable[[str], Interpreter],  # of a PBX by its name
        since: datetime,
        until: datetime | None = None,
        dry_run: bool = False,
        pause_seconds: float = _SLICE_SECONDS,
    ) -> None:
        self._reader = store.reader
        self._writer = writer
        self._site = site
        self._tenancy = tenancy
        self._rules = rules
        self._interpreter = interpreter
        self._since = since
        self._until = until
        self._dry_run = dry_run
        self._pause_seconds = pause_seconds
        self._progress = Progress()
        self._worked = 0.0  # seconds since the last pause

    async def run(self) -> AsyncGenerator[Progress, None]:
        """Do it, telling now and then how far it is. Raises StoreUnavailable."""
        progress = self._progress
        for pbx in await self._reader.run(partial(_pbxes, since=self._since, until=self._until)):
            work = await self._reader.run(partial(self._work, pbx))
            if work is None:
                progress.leave(Left.NOT_TOLD, await self._reader.run(partial(self._count, pbx)))
                continue
            progress.leave(Left.JOURNAL_BEGINS_LATER, work.begun_before)
            if work.pending:
                async for _ in self._hear(pbx, work):
                    yield self._told()
        progress.is_done = True
        yield self._told()

    def _told(self) -> Progress:
        """The progress so far; what it tells call by call is told once."""
        amended, self._progress.amended = self._progress.amended, []
        told = Progress(**{name: getattr(self._progress, name) for name in Progress.__slots__})
        told.left, told.amended = dict(self._progress.left), amended
        return told

    # What there is to do

    def _work(self, pbx: str, connection: sqlite3.Connection) -> _Work | None:
        held = span(connection, pbx)
        if held is None:
            return None
        where, values = self._range(pbx)
        floor = max(self._since, held.first_at - _CLOCK_MARGIN)
        found = connection.execute(
            f"SELECT call_sid, start_time FROM call WHERE {where} AND start_time >= ?",  # noqa: S608 - our own words
            (*values, moment_text(floor)),
        )
        pending = {sid: moment_of(start) for sid, start in found.fetchall()}
        begun_before = self._count(pbx, connection) - len(pending)
        if not pending:
            return _Work({}, begun_before, 0, 0, held.first_at)
        first = first_segment(connection, pbx, min(pending.values()), interpreter=partial(self._interpreter, pbx))
        return _Work(pending, begun_before, first, held.last_id, held.first_at)

    def _count(self, pbx: str, connection: sqlite3.Connection) -> int:
        where, values = self._range(pbx)
        return int(connection.execute(f"SELECT count(*) FROM call WHERE {where}", values).fetchone()[0])  # noqa: S608 - as above

    def _range(self, pbx: str) -> tuple[str, tuple[str, ...]]:
        where, values = "pbx = ? AND start_time >= ?", (pbx, moment_text(self._since))
        return (
            (where, values)
            if self._until is None
            else (f"{where} AND start_time < ?", (*values, moment_text(self._until)))
        )

    # Hearing it again

    async def _hear(self, pbx: str, work: _Work) -> AsyncIterator[None]:
        """Until every call that is looked for has come, or the journal ends."""
        derivation = Derivation(
            site=self._site,
            pbx=pbx,
            rules=self._rules.get(pbx, CallRules()),
            assign=partial(assign, self._tenancy),
            interpreter=self._interpreter(pbx),
        )
        pending, next_id = work.pending, work.first
        ready: list[Retold] = []
        told_at = time.monotonic()
        while pending and next_id <= work.last:
            part = await self._reader.run(partial(read_part, pbx=pbx, first=next_id, last=work.last))
            if part.damaged:
                derivation.miss()
            for segment in part.segments:
                await self._hear_segment(derivation, segment)
                ready += [_retold(call) for call in derivation.take_ended() if self._is_wanted(call, pending)]
                derivation.take_repaired()  # these are left as they are stored
                self._progress.heard_until = segment.last_at
                if len(ready) >= _STEP:
                    await self._settle(ready)
                    ready.clear()
                if time.monotonic() - told_at >= _TELL_SECONDS:
                    told_at = time.monotonic()
                    yield
                if not pending:
                    break
            next_id = part.next_id
        await self._settle(ready)
        self._leave_rest(work, derivation)

    async def _hear_segment(self, derivation: Derivation, segment: Segment) -> None:
        """Without ever keeping the loop for longer than a slice."""
        began = time.monotonic()
        for number, (frame, at) in enumerate(timed(segment), start=1):
            derivation.hear(frame.data, at)
            if number % _FRAMES_BETWEEN_LOOKS == 0 and time.monotonic() - began > _SLICE_SECONDS:
                await self._breathe()
                began = time.monotonic()
        self._worked += time.monotonic() - began
        if self._worked > _SLICE_SECONDS:
            await self._breathe()

    async def _breathe(self) -> None:
        """Let everything else go on for as long as was worked."""
        self._worked = 0.0
        await asyncio.sleep(self._pause_seconds)

    def _is_wanted(self, call: DerivedCall, pending: dict[str, datetime]) -> bool:
        if pending.pop(call.call_sid, None) is not None:
            return True
        started_at = call.call.started_at
        in_time = started_at >= self._since and (self._until is None or started_at < self._until)
        self._progress.not_stored += in_time and call.is_whole
        return False

    def _leave_rest(self, work: _Work, derivation: Derivation) -> None:
        live = {call.call_sid for call in derivation.model.live_calls()}
        for sid, begun in work.pending.items():
            if sid in live:
                self._progress.leave(Left.STILL_LIVE)
            else:
                self._progress.leave(Left.JOURNAL_BEGINS_LATER if begun <= work.held_from else Left.NOT_TOLD)

    async def _settle(self, calls: list[Retold]) -> None:
        if not calls:
            return
        if self._dry_run:
            results = await self._reader.run(lambda connection: amend.compare(calls, connection=connection))
        else:
            now = self._writer.now_text()
            results = await self._writer.transact(lambda connection: amend.amend(calls, now=now, connection=connection))
        for result in results:
            self._count_in(result)
        await self._breathe()

    def _count_in(self, result: Amended) -> None:
        progress = self._progress
        if result.left is not None:
            progress.leave(result.left)
            return
        progress.looked_at += 1
        progress.changed += result.is_changed
        progress.unchanged += not result.is_changed
        if result.is_changed or result.tenant_kept is not None:
            progress.amended.append(result)


def _retold(derived: DerivedCall) -> Retold:
    call = derived.call
    return Retold(call.to_row(), call.assignment.tenant, is_whole=derived.is_whole, noise=derived.noise)


def _pbxes(connection: sqlite3.Connection, *, since: datetime, until: datetime | None) -> list[str]:
    """Every PBX that has calls in the time or a journal."""
    where, values = "start_time >= ?", [moment_text(since)]
    if until is not None:
        where, values = f"{where} AND start_time < ?", [*values, moment_text(until)]
    found = connection.execute(f"SELECT DISTINCT pbx FROM call WHERE {where}", values)  # noqa: S608 - our own words
    return sorted({str(pbx) for (pbx,) in found.fetchall()} | set(pbx_names(connection)))
