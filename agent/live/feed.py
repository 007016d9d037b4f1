"""Keeps the live store in step with the tracker, which never waits for it."""

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

from agent.calls.context import CallContext
from agent.errors import ContextStoreAway
from agent.live.store import ContextStore
from agent.live.weaving import Woven, of_facts

logger = logging.getLogger(__name__)

# The first failure in a row that an operator is told of: a restarted store fails once and is there again.
LOGGED_FAILURE: Final = 2
# How many calls that end while the store is away are remembered, by name only: an hour of a busy site.
_REMEMBERED_ENDS: Final = 50_000
# How much longer than a round took the feed rests after it, and at most.
_REST: Final = 4.0
_LONGEST_REST_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class LiveStatus:
    """How the live store is doing."""

    home: str
    reachable: bool | None  # None: not tried yet
    since: datetime  # of `reachable`
    live: int  # calls
    waiting: int  # of them not yet written as they are now
    problem: str | None


@dataclass(frozen=True, slots=True)
class FeedTimes:
    """How patient the feed is, in seconds."""

    pause: float = 0.1  # between two rounds: what changes of a call meanwhile is written once
    between: float = 0.0  # between two calls in a round
    check: float = 5.0  # how often an idle store is asked whether it still remembers
    first_retry: float = 0.2
    longest_retry: float = 30.0


# For a home that only this process reaches: services are answered by the desk, so nobody looks there at once.
UNHURRIED: Final = FeedTimes(pause=1.0, between=0.005)


class Book(Protocol):
    """Who knows what the contexts are, and takes in what others wrote into the store."""

    def current(self, call_sid: str) -> CallContext | None:
        """The context of a call at hand."""
        ...

    def is_known(self, call_sid: str, revision: int) -> bool:
        """Whether what stands in the store is the agent's own, or nothing to the agent."""
        ...

    def weave(self, mine: CallContext, stored: CallContext | None) -> Woven:
        """What is to be written where `stored` stands, and what others changed in it."""
        ...

    def carried(self, result: Woven) -> None:
        """This was written, or found to stand there."""
        ...

    def found_last(self, context: CallContext) -> None:
        """The last context of a call that ended while nobody looked."""
        ...


class FactsOnly:
    """Knows nothing but what is marked."""

    def current(self, call_sid: str) -> CallContext | None:
        """Nothing."""
        return None

    def is_known(self, call_sid: str, revision: int) -> bool:
        """What others write is nobody's business here."""
        return True

    def weave(self, mine: CallContext, stored: CallContext | None) -> Woven:
        """The facts, and what stands there of services."""
        return of_facts(mine, stored)

    def carried(self, result: Woven) -> None:
        """Nothing to do."""

    def found_last(self, context: CallContext) -> None:
        """Nothing to do."""


class LiveFeed:
    """Writes the newest context of every live call to the store, each change of state at most once.

    `mark`, `ended`, `changed_late` and `settled` only note what to do; `run` does it. While the store is away only the
    newest context of each live call is kept, so memory is bounded by the number of live calls. When it is back, or has
    been emptied, every live context is put there again and those of calls that ended meanwhile are ended. Of these
    only the names are remembered, and only where the PBX has not told all its calls yet: else all but the live end.
    """

    def __init__(
        self,
        store: ContextStore,
        *,
        site: str,
        pbxes: Iterable[str],
        grace_seconds: int,
        book: Book | None = None,
        times: FeedTimes | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._site = site
        self._undecided = set(pbxes)
        self._grace_seconds = grace_seconds
        self._book = book or FactsOnly()
        self._times = times or FeedTimes()
        self._now = now
        self._live: dict[str, CallContext] = {}
        self._dirty: dict[str, None] = {}  # in the order of marking
        self._over: dict[str, CallContext] = {}
        self._late: dict[str, CallContext] = {}  # contexts of ended calls that changed
        self._ended_away: dict[str, None] = {}  # while the store was away, of PBXes not settled; the oldest first
        self._stale = True  # the store may hold contexts of calls that are over
        self._lost = True  # the store may lack contexts of live calls
        self._next_check = 0.0  # on the loop's clock
        self._failures = 0
        self._reachable: bool | None = None
        self._since = now()
        self._problem: str | None = None
        self._wake = asyncio.Event()
        self._in_step = asyncio.Event()

    def mark(self, context: CallContext) -> None:
        """The call's state has changed to this."""
        sid = context.call_sid
        self._live[sid] = context
        self._over.pop(sid, None)
        self._ended_away.pop(sid, None)
        self._dirty.pop(sid, None)
        self._dirty[sid] = None
        self._call()

    def ended(self, context: CallContext) -> None:
        """The call is over; these are its last facts."""
        sid = context.call_sid
        self._live.pop(sid, None)
        self._dirty.pop(sid, None)
        if self._reachable is False:
            self._stale = True  # found and ended when the store is back
            self._remember_end(context)
        else:
            self._over[sid] = context
        self._call()

    def changed_late(self, context: CallContext) -> None:
        """The context of a call that is over is now so."""
        self._late[context.call_sid] = context
        self._call()

    def forget(self, call_sids: Iterable[str]) -> None:
        """Nothing is written any more of these calls, which are over."""
        for sid in call_sids:
            self._over.pop(sid, None)
            self._late.pop(sid, None)

    def settled(self, pbx: str) -> None:
        """All live calls of this PBX are marked: contexts of its other calls are of the past, and end."""
        self._undecided.discard(pbx)
        if not self._undecided:
            self._ended_away.clear()  # these are stale like any other call
        self._stale = True
        self._call()

    async def in_step(self) -> None:
        """Wait until the store has everything; bounded by the caller, since the store may be away."""
        await self._in_step.wait()

    async def listen(self) -> None:
        """Notice what others write into the store, until cancelled; for a store that others can reach."""
        while True:
            try:
                async with aclosing(self._store.changes(self._look_at_all)) as changes:
                    async for sid, revision in changes:
                        if not self._book.is_known(sid, revision):
                            self._look(sid)
            except ContextStoreAway:  # `run` tells of it
                await asyncio.sleep(self._times.check)

    def status(self) -> LiveStatus:
        """For `status` and `health`."""
        return LiveStatus(
            home=self._store.home,
            reachable=self._reachable,
            since=self._since,
            live=len(self._live),
            waiting=len(self._dirty) + len(self._over) + len(self._late),
            problem=self._problem,
        )

    async def run(self) -> None:
        """Keep the store in step until cancelled."""
        while True:
            started = asyncio.get_running_loop().time()
            try:
                await self._catch_up()
            except ContextStoreAway as exc:
                self._note_away(exc)
                await asyncio.sleep(self._retry_seconds())
                continue
            # Services are answered without the store, so under load it may lag rather than take their time.
            spent = asyncio.get_running_loop().time() - started
            await asyncio.sleep(max(self._times.pause, min(spent * _REST, _LONGEST_REST_SECONDS)))
            await self._idle()

    async def _catch_up(self) -> None:
        await self._check_memory()
        if self._stale:
            await self._clear_stale()
        if self._lost:
            # Signed first: what is lost from now on is noticed, and the rest is written below or tried again.
            await self._store.sign(self._site)
            self._dirty = dict.fromkeys(self._live) | self._dirty
            self._lost = False
        # What is marked again meanwhile waits for the next round; ends do not wait.
        dirty = list(reversed(self._dirty))
        while dirty or self._over or self._late:
            rest = 0.0
            if self._over:
                await self._end(next(iter(self._over.values())))
            elif dirty:
                if (sid := dirty.pop()) in self._dirty:
                    await self._write(sid)
                    rest = self._times.between
            elif self._late:
                await self._write_late(next(iter(self._late.values())))
            # fakeredis answers without ever yielding; capture goes first.
            await asyncio.sleep(rest)
        self._note_back()
        if not (self._stale or self._dirty):
            self._wake.clear()
            self._in_step.set()

    async def _check_memory(self) -> None:
        """Somebody may have emptied the store; looked at now and then, whatever else there is to do."""
        moment = asyncio.get_running_loop().time()
        if self._lost or moment < self._next_check:
            return
        self._next_check = moment + self._times.check
        if not await self._store.remembers(self._site):
            logger.info("the live store has lost its contexts, they are put back", extra={"home": self._store.home})
            self._lost = True

    async def _clear_stale(self) -> None:
        self._stale = False
        known = self._live.keys() | self._over.keys()
        try:
            cleared = await self._store.clear_stale(
                self._site, known=known, undecided=self._undecided, grace_seconds=self._grace_seconds
            )
        except ContextStoreAway:
            self._stale = True
            raise
        for context in cleared:
            self._book.found_last(context)
        if self._ended_away:
            await self._end_remembered()

    async def _end_remembered(self) -> None:
        """End the contexts of calls that ended while the store was away, though their PBX has not told its calls."""
        for context in await self._store.list_site(self._site):
            if context.call_sid in self._ended_away:
                self._over[context.call_sid] = context
        self._ended_away.clear()

    def _remember_end(self, context: CallContext) -> None:
        if context.pbx not in self._undecided:
            return
        self._ended_away[context.call_sid] = None
        if len(self._ended_away) > _REMEMBERED_ENDS:
            del self._ended_away[next(iter(self._ended_away))]

    async def _write(self, sid: str) -> None:
        mine = self._live[sid]
        result = await self._store.put(mine, self._book.weave)
        if self._live.get(sid) is mine:
            self._dirty.pop(sid, None)
        self._book.carried(result)

    async def _end(self, told: CallContext) -> None:
        sid = told.call_sid
        mine = self._book.current(sid) or told
        result = await self._store.end(mine, self._grace_seconds, self._book.weave)
        if self._over.get(sid) is told:
            del self._over[sid]
        self._book.carried(result)

    async def _write_late(self, mine: CallContext) -> None:
        result = await self._store.rewrite(mine, self._book.weave)
        if self._late.get(mine.call_sid) is mine:
            del self._late[mine.call_sid]
        if result is not None:
            self._book.carried(result)

    def _look(self, sid: str) -> None:
        """Others may have written there."""
        if sid in self._live:
            self._dirty[sid] = None
        elif sid not in self._over and (context := self._book.current(sid)) is not None:
            self._late[sid] = context
        self._call()

    def _look_at_all(self) -> None:
        """What was announced while nobody listened is not known."""
        self._dirty.update(dict.fromkeys(self._live))
        self._call()

    async def _idle(self) -> None:
        """Until there is something to do, or it is time to look after the store."""
        try:
            async with asyncio.timeout(self._times.check):
                await self._wake.wait()
        except TimeoutError:
            return

    def _call(self) -> None:
        self._in_step.clear()
        self._wake.set()

    def _note_away(self, exc: ContextStoreAway) -> None:
        self._failures += 1
        self._lost = self._stale = True
        for context in self._over.values():
            self._remember_end(context)
        self._over.clear()
        self._late.clear()  # they stand in the rows, and what is left in the store expires
        self._in_step.clear()
        if self._reachable is not False:
            self._since = self._now()
        self._reachable, self._problem = False, str(exc)
        if self._failures == LOGGED_FAILURE:
            logger.warning("%s; calls are captured all the same, contexts follow when it is back", exc)

    def _note_back(self) -> None:
        if self._failures >= LOGGED_FAILURE:
            away_seconds = round((self._now() - self._since).total_seconds(), 1)
            logger.info(
                "the live store is back, every live context is in it",
                extra={"home": self._store.home, "live": len(self._live), "away_seconds": away_seconds},
            )
        if self._reachable is not True:
            self._since = self._now()
        self._failures, self._reachable, self._problem = 0, True, None

    def _retry_seconds(self) -> float:
        """At once after the first failure, then twice as long each time, up to the longest; jittered."""
        if self._failures < LOGGED_FAILURE:
            return 0.0
        doubled = self._times.first_retry * 2.0 ** min(self._failures - LOGGED_FAILURE, 30)
        return min(doubled, self._times.longest_retry) * random.uniform(0.5, 1.0)  # noqa: S311  # no secret
