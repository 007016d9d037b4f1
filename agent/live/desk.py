"""What services write during calls: kept before it is answered, shown to readers, handed on when a call ends.

The desk holds the context of every live call and of those that ended a while ago: the tracker's facts and what
services wrote. A service's write is an operation (`agent.calls.operations`). It is checked against everything accepted
before it, waits for the next commit together with what others write meanwhile, and is shown and answered once it is
durable.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from agent.calls.context import TRACKER_FIELDS, CallContext, CallState, with_facts
from agent.calls.differences import difference
from agent.calls.operations import Logged, Operation, Recall, TakeOver, apply, to_json
from agent.calls.tenancy import Sees, sees_all
from agent.calls.wishes import Limits, Wishing, check_counts, check_size, prepare
from agent.errors import CallUnknown, OperationRefused, RevisionChanged, StoreUnavailable
from agent.live.changes import ChangeKind, Changes
from agent.live.ended import RETRY_SECONDS, DeskTimes, EndedCalls
from agent.live.entries import Entries
from agent.live.entry import Entry, Kept, Key, as_it_was, entry_of, latest_operation, stepped
from agent.live.neighbours import OperationLog, Shared
from agent.live.weaving import Woven, woven

log = logging.getLogger(__name__)

# The service that a change made past the agent is written down for.
STORE_SERVICE: Final = "store"
_WAIT_SECONDS: Final = 15.0  # what could not be kept by then is answered as not kept
_BATCH: Final = 1_000  # writes in one transaction


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a write."""

    context: CallContext
    operations: Sequence[Operation]  # as they are kept, with ids and moments
    is_repeated: bool = False  # the idempotency key was used before: nothing was written now


Mask = Callable[[str | None, Operation], Operation]


def _no_mask(_tenant: str | None, operation: Operation) -> Operation:
    return operation


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class _Write:
    entry: Entry
    logged: Sequence[Logged]
    done: Kept
    key: Key | None = None
    base: CallContext | None = None  # what stands in the shared store once this is known


class Desk:
    """All contexts at hand. One task (`run`) commits; the tracker and services only note."""

    def __init__(
        self,
        kept: OperationLog,
        *,
        limits: Limits | None = None,
        times: DeskTimes | None = None,
        mask: Mask = _no_mask,
        on_amended: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = _utc_now,
        new_id: Callable[[], str] = lambda: uuid4().hex,
    ) -> None:
        self._kept = kept
        self._limits = limits or Limits()
        self._mask = mask
        self._now = now
        self._new_id = new_id
        self._shared: Shared | None = None
        self._entries = Entries(kept, now=now)
        self._ended = EndedCalls(
            kept,
            self._entries,
            times=times or DeskTimes(),
            on_amended=on_amended,
            take_last=self._take_last,
            now=now,
        )
        self._restored: dict[str, list[Logged]] = {}  # of calls that the tracker has not told yet
        self._moves: list[tuple[str, str]] = []
        self._queue: list[_Write] = []
        self._work = asyncio.Event()
        self._start_news = asyncio.Event()
        self.changes = Changes()

    def share_with(self, shared: Shared) -> None:
        """Carry every context there too."""
        self._shared = shared

    async def restore(self) -> None:
        """Read what services wrote for calls that were live when the agent stopped; before the tracker tells them."""
        for logged in await self._kept.of_live_calls():
            self._restored.setdefault(logged.call_sid, []).append(logged)

    async def run(self) -> None:
        """Make writes durable and rows complete until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_writes(), name="desk-writes")
            tasks.create_task(self._ended.run(), name="desk-ended")

    # For services

    def live(self) -> list[CallContext]:
        """The contexts of all live calls, the oldest first."""
        return [entry.shown for entry in self._entries.live()]

    async def read(self, call_sid: str, *, sees: Sees = sees_all) -> CallContext:
        """The context of a call, live or over, if its tenant is one that `sees` says yes to.

        Raises CallUnknown, after the same work for a call of others as for one that nobody knows; StoreUnavailable.
        """
        entry = self._entries.named(call_sid)
        if entry is not None and sees(entry.shown.tenant_id):
            return entry.shown
        found = await self._entries.found(call_sid, sees)
        if entry is not None:
            raise CallUnknown(f"call {call_sid} is of a tenant that may not be seen")
        return found.shown

    async def write(
        self,
        call_sid: str,
        operations: Sequence[Operation],
        *,
        service: str,
        if_revision: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written:
        """Do all of these or none; what is returned is durable.

        Raises CallUnknown; OperationRefused, TooLarge; RevisionChanged if the context is not at `if_revision` any more;
        StoreUnavailable if it could not be kept: it may be sent again, with the same ids or the same key.
        """
        entry = self._entries.named(call_sid) or await self._entries.fetched(call_sid)
        key = (service, idempotency_key) if idempotency_key is not None else None
        if key is not None and (earlier := entry.keys.get(key)) is not None:
            kept = await _within(earlier)
            return Written(entry.shown, kept, is_repeated=True)
        if if_revision is not None and (entry.waiting or if_revision != entry.shown.revision):
            raise RevisionChanged(entry.shown.revision)
        kept = await _within(self._submit(entry, operations, service=service, key=key))
        return Written(entry.shown, kept)

    async def next_call(
        self, allowed: Callable[[str | None], bool], after: str | None, wait_seconds: float
    ) -> tuple[CallContext, str] | None:
        """The first live call of an allowed tenant that began after the change `after`, and the change that tells it.

        None if none comes in time. None for `after`: a call that begins from now on. After a restart of the agent every
        live call is a new one.
        """
        number = self.changes.number if after is None else self.changes.number_of(after) or 0
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_seconds):
                while True:
                    news = self._start_news
                    for entry in self._entries.live():
                        if entry.started > number and allowed(entry.shown.tenant_id):
                            return entry.shown, self.changes.id_of(entry.started)
                    number = self.changes.number
                    await news.wait()
        return None

    @property
    def last_start(self) -> str:
        """The `after` of `next_call` by which only calls that begin from now on are told."""
        return self.changes.latest

    # For the tracker

    def mark(self, facts: CallContext) -> None:
        """A live call is now so."""
        entry = self._entries.get(facts.call_sid)
        if entry is None:
            entry = self._begin(facts)
        elif _same_facts(entry.shown, facts) and entry.ended_at is None:
            return
        else:
            self._take_facts(entry, facts)
        entry.ended_at = None
        if self._shared is not None:
            self._shared.mark(entry.shown)

    def ended(self, facts: CallContext) -> None:
        """A call has ended."""
        entry = self._entries.get(facts.call_sid) or self._begin(facts)
        entry.ended_at = self._now()
        entry.shown = stepped(with_facts(entry.shown, facts, at=_latest(entry.shown, facts)))
        entry.shown = entry.shown.model_copy(update={"state": CallState.ENDED})
        self.changes.publish(ChangeKind.CALL_ENDED, entry.shown)
        if self._shared is not None:
            self._shared.ended(entry.shown)

    def settled(self, pbx: str) -> None:
        """All live calls of this PBX have been marked."""
        if self._shared is not None:
            self._shared.settled(pbx)

    def noted(self, call_sid: str) -> CallContext | None:
        """The context of a call that has ended, for its row; None if no service wrote anything.

        What is written from now on amends the row.
        """
        entry = self._entries.get(call_sid)
        if entry is None or not entry.shown.operation:
            return None
        entry.told = latest_operation(entry)
        return entry.shown

    def committed(self, *, opened: Iterable[str], ended: Iterable[str], moved: Iterable[tuple[str, str]] = ()) -> None:
        """The beginnings of these calls are durable, and the rows of these; and what seemed to be calls goes on in
        others."""
        for sid in opened:
            if (entry := self._entries.get(sid)) is not None:
                entry.is_anchored = True
        for sid in ended:
            if (entry := self._entries.get(sid)) is not None:
                entry.is_anchored = entry.has_row = True
                self._ended.check_row(entry)
        for sid, into in moved:
            self._move(sid, into)
        if self._queue or self._moves:
            self._work.set()

    def forget(self, call_sids: Iterable[str]) -> None:
        """These calls are over, and what was kept of them was taken away or changed: they are not at hand any more."""
        for sid in call_sids:
            entry = self._entries.get(sid)
            if entry is not None and entry.ended_at is not None:
                self._entries.drop(sid)
            self._ended.forget(sid)

    # For the shared store

    def current(self, call_sid: str) -> CallContext | None:
        """The context of a call at hand."""
        entry = self._entries.get(call_sid)
        return entry.shown if entry is not None else None

    def is_known(self, call_sid: str, revision: int) -> bool:
        """Whether what stands in the store is the agent's own, or nothing to the agent."""
        entry = self._entries.get(call_sid)
        return entry is None or (entry.base is not None and entry.base.revision >= revision)

    def weave(self, mine: CallContext, stored: CallContext | None) -> Woven:
        """What is to be written where `stored` stands, and what others changed in it."""
        entry = self._entries.get(mine.call_sid)
        if entry is None:
            return woven(mine, stored, base=None)
        if entry.base is None and stored is not None:
            entry.base = as_it_was(entry.log, mine, stored)
        return woven(mine, stored, base=entry.base)

    def carried(self, result: Woven) -> None:
        """This was written, or found to stand there; what others changed is taken over."""
        entry = self._entries.get(result.context.call_sid)
        if entry is None:
            return
        if result.context.revision > entry.shown.revision:
            entry.shown = entry.shown.model_copy(update={"revision": result.context.revision})
        if result.taken is None:
            entry.base, entry.log = result.context, ()
            return
        self._take_over(entry, result.taken, base=result.context)

    def found_last(self, context: CallContext) -> None:
        """The last context of a call in the shared store, that ended while the agent did not look."""
        self._ended.found_last(context)

    # Facts

    def _begin(self, facts: CallContext) -> Entry:
        logged = self._restored.pop(facts.call_sid, [])
        entry = entry_of(facts, logged)
        self._entries.put(facts.call_sid, entry)
        self._start(entry)
        return entry

    def _start(self, entry: Entry) -> None:
        self.changes.publish(ChangeKind.CALL_STARTED, entry.shown)
        entry.started = self.changes.number
        self._start_news.set()
        self._start_news = asyncio.Event()  # for the next one

    def _take_facts(self, entry: Entry, facts: CallContext) -> None:
        former = entry.shown.tenant_id
        entry.shown = stepped(with_facts(entry.shown, facts, at=_latest(entry.shown, facts)))
        if former != facts.tenant_id or entry.ended_at is not None:
            self._start(entry)
        else:
            self.changes.publish(ChangeKind.CALL_CHANGED, entry.shown)

    def _move(self, sid: str, into: str) -> None:
        """A call was none: what services wrote for it, and write yet, belongs to another."""
        both = self._entries.merge(sid, into)
        if both is None:
            return
        entry, other = both
        self._moves.append((sid, into))
        notes = difference(None, entry.shown, other.shown)
        other.size += entry.size
        other.keys = {**entry.keys, **other.keys}
        for write in self._queue:
            if write.entry is entry:
                write.entry = other
                write.logged = [replace(logged, call_sid=into) for logged in write.logged]
                other.waiting += 1
        if notes:
            self._show_changed(other, [(notes, self._now())], number=max(map(latest_operation, (entry, other))))

    # Writes

    def _submit(self, entry: Entry, wishes: Sequence[Operation], *, service: str, key: Key | None = None) -> Kept:
        at = self._now()
        wishing = Wishing(service=service, at=at, new_id=self._new_id, limits=self._limits)
        head, size, operations = entry.head, entry.size, []
        for wish in wishes:
            operation = self._mask(entry.shown.tenant_id, prepare(wish, head, wishing))
            changed = apply(head, operation, at)
            if changed is not head:
                check_counts(changed, self._limits)
                size += len(to_json(operation))
                if size > self._limits.max_context_bytes:
                    size = check_size(changed, self._limits)
                head = changed
            operations.append(operation)
        if entry.recall is not None:
            operations.insert(0, entry.recall)
            entry.recall = None
        done: Kept = asyncio.get_running_loop().create_future()
        done.add_done_callback(_seen)
        write = _Write(entry, self._logged(entry, operations, service=service, at=at, key=key), done, key)
        entry.head, entry.size = head, size
        entry.waiting += 1
        if key is not None:
            entry.remember(key, done)
        self._queue.append(write)
        self._work.set()
        return done

    def _logged(
        self, entry: Entry, operations: Sequence[Operation], *, service: str, at: datetime, key: Key | None
    ) -> list[Logged]:
        revision = entry.shown.revision + entry.waiting + 1
        return [
            Logged(
                number=self._kept.next_number(),
                call_sid=entry.shown.call_sid,
                operation=operation,
                service=service,
                at=at,
                revision=revision,
                idempotency_key=key[1] if key is not None else None,
            )
            for operation in operations
        ]

    def _take_last(self, entry: Entry, context: CallContext) -> None:
        self.carried(replace(self.weave(entry.shown, context), context=context))
        self._tell_shared(entry)

    def _take_over(self, entry: Entry, taken: TakeOver, *, base: CallContext) -> None:
        stamp = {"service": STORE_SERVICE, "received_at": self._now().isoformat(timespec="microseconds")}
        taken = replace(taken, interactions=[{**stamp, **each} for each in taken.interactions])
        try:
            self._submit(entry, [taken], service=STORE_SERVICE)
        except (OperationRefused, TypeError) as exc:
            # Not TooLarge alone: what others put into a store need not be what JSON can hold.
            log.warning(
                "what was written into the live store past the agent cannot be kept and is taken back: %s",
                exc if isinstance(exc, OperationRefused) else "it holds what JSON cannot",
                extra={"call_sid": entry.shown.call_sid},
            )
            entry.base = base
            self._tell_shared(entry)
        else:
            self._queue[-1].base = base

    async def _keep_writes(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            batch: list[_Write] = []
            try:
                while self._moves:
                    await self._kept.move(*self._moves[0])
                    del self._moves[0]
                batch = self._take()
                if batch:
                    await self._kept.keep([logged for write in batch for logged in write.logged])
            except StoreUnavailable as exc:
                self._refuse(batch, exc)
                await asyncio.sleep(RETRY_SECONDS if self._moves else 0)
                continue
            for write in batch:
                self._show(write)

    def _take(self) -> list[_Write]:
        """Writes that can be kept now, as many as go into one transaction."""
        batch = [write for write in self._queue if write.entry.is_anchored][:_BATCH]
        if len(batch) == len(self._queue):
            self._queue = []
        else:
            taken = {id(write) for write in batch}
            self._queue = [write for write in self._queue if id(write) not in taken]
            if len(batch) == _BATCH:
                self._work.set()
        return batch

    def _show(self, write: _Write) -> None:
        write.entry.waiting -= 1
        # What seemed to be a call may have turned out to be none meanwhile.
        entry = self._entries.named(write.logged[0].call_sid) or write.entry
        if write.base is not None:
            entry.base = write.base
        last = write.logged[-1]
        self._show_changed(entry, [(logged.operation, logged.at) for logged in write.logged], number=last.number)
        write.done.set_result([logged.operation for logged in write.logged if not isinstance(logged.operation, Recall)])

    def _show_changed(self, entry: Entry, operations: Iterable[tuple[Operation, datetime]], *, number: int) -> None:
        changed = entry.shown
        for operation, at in operations:
            changed = apply(changed, operation, at)
        is_changed = changed is not entry.shown
        entry.shown = changed.model_copy(update={"operation": number, "revision": changed.revision + is_changed})
        if not entry.waiting:
            entry.head = entry.shown
        if is_changed:
            self.changes.publish(ChangeKind.CONTEXT_CHANGED, entry.shown)
        self._tell_shared(entry)
        self._ended.check_row(entry)

    def _refuse(self, batch: Sequence[_Write], exc: StoreUnavailable) -> None:
        """Nothing of this is kept, nor of what was accepted on top of it."""
        refused, self._queue = [*batch, *self._queue], []
        for write in refused:
            entry = write.entry
            entry.waiting = 0
            entry.head = entry.shown
            if isinstance(write.logged[0].operation, Recall):
                entry.recall = write.logged[0].operation
            if write.key is not None:
                entry.keys.pop(write.key, None)
            if write.base is not None:
                # It still stands in the shared store, and is found there again.
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._tell_shared, entry)
            if not write.done.done():
                write.done.set_exception(StoreUnavailable(str(exc)))

    def _tell_shared(self, entry: Entry) -> None:
        if self._shared is None:
            return
        if entry.ended_at is None:
            self._shared.mark(entry.shown)
        else:
            self._shared.changed_late(entry.shown)


def _same_facts(context: CallContext, facts: CallContext) -> bool:
    return all(getattr(context, name) == getattr(facts, name) for name in TRACKER_FIELDS)


def _latest(one: CallContext, other: CallContext) -> datetime:
    return max(one.last_interaction_time, other.last_interaction_time)


async def _within(kept: Kept) -> Sequence[Operation]:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            return await asyncio.shield(kept)
    except TimeoutError:
        raise StoreUnavailable("the local database does not take writes in time; send it again") from None


def _seen(kept: Kept) -> None:
    """Nobody may wait any more for what could not be kept."""
    if not kept.cancelled():
        kept.exception()
