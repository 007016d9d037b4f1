"""What happened to live contexts lately, for whoever follows them and comes back after a while."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from secrets import token_hex
from typing import Final

from agent.calls.context import CallContext, CallState

KEPT_CHANGES: Final = 10_000
_MAX_DIGITS: Final = 18


class ChangeKind(StrEnum):
    """What a change is about."""

    CALL_STARTED = "call.started"  # the call is live and belongs to this tenant; again for another, if it moves there
    CALL_CHANGED = "call.changed"  # the PBX told something new
    CALL_ENDED = "call.ended"
    CONTEXT_CHANGED = "context.changed"  # a service wrote
    RESYNC = "resync"  # some changes are not known any more: read again what is needed


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `id` is where to go on from; it is only good as long as this agent's process lives."""

    id: str
    kind: ChangeKind
    call_sid: str | None = None  # None for a resync, as what follows
    tenant: str | None = None
    revision: int | None = None
    state: CallState | None = None
    at: datetime | None = None
    merged_into: str | None = None


class Changes:
    """The latest changes, numbered. Followers read at their own pace: who is too slow is told to `resync`."""

    def __init__(self, *, keep: int = KEPT_CHANGES) -> None:
        # Numbers begin anew with the process, so an id of another one must not be taken for one of these.
        self._run = token_hex(4)
        self._last = 0
        self._ring: deque[Change] = deque(maxlen=keep)
        self._news = asyncio.Event()

    def publish(self, kind: ChangeKind, context: CallContext) -> None:
        """Note that this has happened, and the context is now so."""
        self._last += 1
        change = Change(
            id=self.id_of(self._last),
            kind=kind,
            call_sid=context.call_sid,
            tenant=context.tenant_id,
            revision=context.revision,
            state=context.state,
            at=context.last_interaction_time,
            merged_into=context.merged_into,
        )
        self._ring.append(change)
        self._news.set()
        self._news = asyncio.Event()  # for what comes next

    @property
    def number(self) -> int:
        """Of the latest change."""
        return self._last

    @property
    def latest(self) -> str:
        """The id after which only what comes is told."""
        return self.id_of(self._last)

    def after(self, change_id: str) -> list[Change] | None:
        """Every change after this one; None if not all of them are known any more, or the id is none of ours."""
        number = self._number(change_id)
        if number is None:
            return None
        latest_first = list(islice(reversed(self._ring), self._last - number))
        return latest_first[::-1]

    async def news(self, change_id: str) -> None:
        """Wait until there is something after this change."""
        while change_id == self.latest:
            await self._news.wait()

    async def follow(self, after: str | None, allowed: Callable[[Change], bool]) -> AsyncIterator[Change]:
        """Changes after this one (None: from now on) without end, as far as they are allowed; resyncs always are."""
        place = self.latest if after is None else after
        while True:
            found = self.after(place)
            if found is None:
                place = self.latest
                yield Change(id=place, kind=ChangeKind.RESYNC)
                continue
            for change in found:
                place = change.id
                if allowed(change):
                    yield change
                    if self._is_lost(place):
                        break  # while it was read, the ring went round
            await self.news(place)

    def number_of(self, change_id: str) -> int | None:
        """The number in an id of this run; None for another's."""
        run, _, digits = change_id.partition("-")
        return int(digits) if run == self._run and digits.isdecimal() and len(digits) <= _MAX_DIGITS else None

    def id_of(self, number: int) -> str:
        """The id of this run with that number."""
        return f"{self._run}-{number}"

    def _is_lost(self, change_id: str) -> bool:
        return self._number(change_id) is None

    def _number(self, change_id: str) -> int | None:
        """The number in an id, if everything after it is known."""
        number = self.number_of(change_id)
        return number if number is not None and self._last - len(self._ring) <= number <= self._last else None
