"""The calls that are at hand: live, or ended a while ago."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from agent.calls.operations import apply
from agent.calls.tenancy import Sees, sees_all
from agent.calls.wishes import size_of
from agent.errors import CallUnknown
from agent.live.entry import Entry, entry_of, latest_operation
from agent.live.neighbours import OperationLog

_REMEMBERED_MOVES: Final = 10_000


class Entries:
    """By call_sid. Calls that are over are fetched from the local database when somebody wants them."""

    def __init__(self, kept: OperationLog, *, now: Callable[[], datetime]) -> None:
        self._kept = kept
        self._now = now
        self._by_sid: dict[str, Entry] = {}
        self._went_on_in: dict[str, str] = {}  # calls that were none, and what they are a part of

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._by_sid))

    def get(self, call_sid: str) -> Entry | None:
        """The call of this very name, if it is at hand."""
        return self._by_sid.get(call_sid)

    def named(self, call_sid: str) -> Entry | None:
        """The same, also by the name of what turned out to be a part of it."""
        return self._by_sid.get(self._went_on_in.get(call_sid, call_sid))

    def live(self) -> list[Entry]:
        """Of all live calls, the oldest first."""
        live = (entry for entry in self._by_sid.values() if entry.ended_at is None)
        return sorted(live, key=lambda entry: entry.started)

    def put(self, call_sid: str, entry: Entry) -> None:
        """Have the call at hand."""
        self._by_sid[call_sid] = entry

    def drop(self, call_sid: str) -> None:
        """It is not at hand any more."""
        self._by_sid.pop(call_sid, None)

    def merge(self, call_sid: str, into: str) -> tuple[Entry, Entry] | None:
        """What seemed to be a call goes on in another: both of them; None unless both are at hand. Its name leads to
        the other from now on."""
        entry, other = self._by_sid.pop(call_sid, None), self._by_sid.get(into)
        if entry is None or other is None or entry is other:
            return None
        self._went_on_in[call_sid] = into
        if len(self._went_on_in) > _REMEMBERED_MOVES:
            del self._went_on_in[next(iter(self._went_on_in))]
        return entry, other

    async def found(self, call_sid: str, sees: Sees = sees_all) -> Entry:
        """A call that is over, from the local database; not put here.

        Raises CallUnknown, also if `sees` says no to its tenant; StoreUnavailable.
        """
        found = await self._kept.find(call_sid, sees)
        if found is None:
            raise CallUnknown(f"no call {call_sid} goes on, and the local database holds none")
        entry = entry_of(found.facts, found.operations)
        if not found.operations:
            entry.recall = found.recall
            entry.shown = entry.head = apply(entry.shown, found.recall, found.facts.last_interaction_time)
            entry.size = size_of(entry.shown)
        entry.is_anchored = entry.has_row = True
        entry.told = latest_operation(entry)
        entry.ended_at = self._now()  # that is, since it is at hand
        return entry

    async def fetched(self, call_sid: str) -> Entry:
        """The same, put here; whoever was faster counts."""
        return self._by_sid.setdefault(call_sid, await self.found(call_sid))
