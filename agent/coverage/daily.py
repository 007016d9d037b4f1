"""Verifies every day that is over, once, at a quiet hour or as soon after it as the agent runs."""

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from agent.coverage.days import Day, days_due
from agent.coverage.errors import NotVerifiable
from agent.coverage.verifying import Verification, set_up_at, sources_of
from agent.errors import StoreUnavailable
from agent.sources.opening import PbxSources, zone_of
from agent.store import coverage
from agent.store.coverage import DayCounts
from agent.store.engine import Store, reading
from agent.store.writer import Writer

log = logging.getLogger(__name__)

MOST_DAYS: Final = 7  # what is older is not caught up with
_TRY_AGAIN: Final = timedelta(hours=20)  # a day that could not be verified


class DailyCoverage:
    """The nightly verification of all PBXes; `verify_due` is called now and then by the clock."""

    def __init__(
        self,
        pbxes: Sequence[PbxSources],
        *,
        store: Store,
        writer: Writer,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pbxes = pbxes
        self._store = store
        self._writer = writer
        self._now = now
        self._told_without: set[str] = set()

    async def verify_due(self) -> None:
        """Verify what is due, in a thread that takes no more than half of one processor."""
        for of in self._pbxes:
            if not self._has_sources(of):
                continue
            try:
                for day in await self._store.reader.run(partial(self._due, of)):
                    await self._verify(of, day)
            except StoreUnavailable as exc:
                log.warning("a day's calls could not be verified: %s", exc, extra={"pbx": of.pbx.name})

    def _has_sources(self, of: PbxSources) -> bool:
        try:
            sources_of(of)
        except NotVerifiable as exc:
            if of.pbx.name not in self._told_without:
                self._told_without.add(of.pbx.name)
                log.warning("calls that the agent misses cannot be noticed: %s; see docs/sources.md", exc)
            return False
        return True

    def _due(self, of: PbxSources, connection: sqlite3.Connection) -> list[Day]:
        now, begun_at = self._now(), set_up_at(connection, of.pbx.name)
        if begun_at is None:
            return []
        kept = coverage.history(connection, pbx=of.pbx.name)
        done = {each.day for each in kept if each.trouble is None or now - each.at < _TRY_AGAIN}
        zone = zone_of(of.pbx.time_zone)
        return list(days_due(now=now, zone=zone, begun_at=begun_at, done=done, most=MOST_DAYS))[::-1]

    async def _verify(self, of: PbxSources, day: Day) -> None:
        stop = threading.Event()
        try:
            counts = await asyncio.to_thread(self._counts, of, day, _Halves(stop))
        finally:
            stop.set()
        await self._writer.transact(partial(coverage.keep, counts=counts))
        facts = {"pbx": counts.pbx, "day": counts.day, "known": counts.known, "missing": counts.missing,
                 "extra": counts.extra, "differing": counts.differing}  # fmt: skip
        if counts.trouble is not None:
            log.warning("a day's calls cannot be verified: %s", counts.trouble, extra=facts)
        elif counts.missing or counts.extra or counts.differing:
            log.warning("a day's calls are not those that the PBX knows: edge-agent verify", extra=facts)
        else:
            log.info("a day's calls are those that the PBX knows", extra=facts)

    def _counts(self, of: PbxSources, day: Day, rest: Callable[[float], None]) -> DayCounts:
        now = self._now()
        try:
            with Verification.of(of, day, now=now, rest=rest) as verification:
                verification.read()
                with reading(self._store.path) as connection:
                    return verification.compare(connection).counts(at=now)
        except NotVerifiable as exc:
            return DayCounts.not_verified(of.pbx.name, day.name, str(exc), at=now)


class _Stopped(Exception):
    """The agent does not wait for the end of a verification."""


class _Halves:
    """Rests as long as it worked, so that capture is hardly held up; ends the work when the agent stops."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._since = time.monotonic()

    def __call__(self, seconds: float) -> None:
        worked = time.monotonic() - self._since
        if self._stop.wait(max(seconds, worked)):
            raise _Stopped
        self._since = time.monotonic()
