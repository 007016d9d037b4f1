"""CEL rows become calls, by the call model that the live feed is told to; pure.

A call is told once its source has said all of it: every channel that began has ended, and so has every linkedid where
linkedids' ends are told. Rows of calls that meet (a transfer, a pickup, a bridge, a conference) are kept together, so
that each is told with the other known. Memory is bounded by calls that have not ended.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

from agent.calls.events import LineLost, SnapshotTaken
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts
from agent.pbx.asterisk.cel import CelRow
from agent.pbx.asterisk.cel_channels import with_untold_hangup
from agent.pbx.asterisk.cel_events import events_of
from sync.models import HangupSource

SOURCE: Final = "cel"
MAX_ROWS: Final = 100_000  # of calls that have not ended, some 100 MB; beyond it the oldest are closed as estimated

# A late word about what is gone must not begin anything anew.
_REMEMBERED_GONE: Final = 4096
# A linkedid whose end is not told although others' are is not waited for longer, by the source's own clock.
_PATIENCE: Final = timedelta(seconds=60)
# Two channels made at the same time may be numbered and told in either order.
_AT_ONCE_SECONDS: Final = 2
_MAX_ASTERISKS: Final = 64  # that write into one source; further names are none
_REMEMBERED_MADE: Final = 1024  # channels of one Asterisk
_MUSIC: Final = "STREAM_BEGIN"
_NO_KEYS: Final = frozenset({"", "N/A"})
_ID: Final = re.compile(r"(?:(.*)-)?(\d{9,11})\.(\d{1,18})", re.ASCII | re.DOTALL)

Place = TypeVar("Place")


class CelCall(NamedTuple):
    """A call that has ended, and its columns as CEL alone tells them."""

    call: LiveCall
    row: dict[str, Any]  # Any: columns


@dataclass(slots=True, eq=False)
class _Group(Generic[Place]):
    """The rows of calls that belong together."""

    first: Place
    first_number: int
    rows: list[tuple[int, CelRow]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)  # channels, linkedids, bridges
    open: set[str] = field(default_factory=set)
    linked: set[str] = field(default_factory=set)  # those whose end was not told

    @property
    def last_at(self) -> datetime:
        return max(row.at for _, row in self.rows)


@dataclass(slots=True)
class _Run:
    """Which channels one Asterisk has made since it was started, and when: the latest, by their numbers."""

    numbers: list[int] = field(default_factory=list)
    seconds: list[int] = field(default_factory=list)

    @property
    def last_made(self) -> int:
        """The second of the channel that was made last."""
        return self.seconds[-1] if self.seconds else 0

    def made(self, number: int, second: int) -> bool:
        """Take in a channel; False if this run cannot have made it, having made a higher number before it."""
        at = bisect_left(self.numbers, number)
        if at < len(self.numbers):
            if second > self.seconds[at] + _AT_ONCE_SECONDS:
                return False
            if self.numbers[at] == number:
                return True
        self.numbers.insert(at, number)
        self.seconds.insert(at, second)
        if len(self.numbers) > _REMEMBERED_MADE:
            del self.numbers[0], self.seconds[0]
        return True


class CelCalls(Generic[Place]):
    """All calls of one PBX's CEL. A row comes with its place in the source, whatever that is.

    To go on after a restart, read again from where `oldest_unfinished` was: what ended since is told again. Calls that
    were going on where reading began are not told, since nobody saw them whole.

    Of an Asterisk that crashed no end is written. Its calls ended unseen at their last word, which is known once an
    Asterisk of that name has begun to count its channels anew, or does not list them (`take_list`).
    """

    def __init__(
        self,
        *,
        site: str,
        pbx: str,
        rules: CallRules,
        assign: Callable[[CallFacts], Assignment],
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._max_rows = max_rows
        self._new_model = partial(CallModel, site=site, pbx=pbx, rules=rules, assign=assign)
        self._groups: dict[int, _Group[Place]] = {}  # by their first row, so in the order in which they began
        self._by_key: dict[str, _Group[Place]] = {}
        self._waiting: dict[_Group[Place], datetime] = {}  # since when every channel has ended, and a linkedid has not
        self._tells_linked_ends = True
        self._unlisted: dict[_Group[Place], int] = {}  # by the last list of channels, and how many rows they had
        self._rows_taken = 0
        self._rows_kept = 0
        self._gone: dict[str, None] = {}
        self._ended: list[CelCall] = []
        self._runs: dict[str, _Run] = {}  # of each Asterisk
        self._heard_at: dict[str, datetime] = {}  # of each Asterisk: when it wrote last

    def __len__(self) -> int:
        """How many rows are kept."""
        return self._rows_kept

    @property
    def oldest_unfinished(self) -> Place | None:
        """Where the first row stands of calls that are not told yet; None if there is none."""
        oldest = next(iter(self._groups.values()), None)
        return oldest.first if oldest is not None else None

    def add(self, row: CelRow, place: Place) -> None:
        """Take in the next row."""
        self._rows_taken += 1
        self._hear(row)
        if row.event == "LINKEDID_END":
            self._linked_ended(row)
        elif row.channel not in self._gone:
            self._keep(row, place)
        if self._waiting:
            self._wait_no_longer(row.at)
        if self._rows_kept > self._max_rows:
            self._make_room()

    def take_ended(self) -> list[CelCall]:
        """Calls that were told to their end since the last time."""
        ended, self._ended = self._ended, []
        return ended

    def use_rules(self, rules: CallRules) -> None:
        """Those of calls that end from now on."""
        self._new_model = partial(self._new_model, rules=rules)

    def take_list(self, channels: Container[str]) -> None:
        """What the PBX has now; to be told when all was read that it had written.

        Calls of which it has no channel, twice in a row and without a word between, ended unseen. Once is not enough:
        the list may be older than the call, or the word of its end on its way.
        """
        unlisted = {}
        for group in list(self._groups.values()):
            if any(channel in channels for channel in group.open):
                continue
            if self._unlisted.get(group) == len(group.rows):
                self._tell(group, group.last_at)
            else:
                unlisted[group] = len(group.rows)
        self._unlisted = unlisted

    # Rows that belong together

    def _keep(self, row: CelRow, place: Place) -> None:
        keys = _keys(row)
        group = self._joined(keys) or self._begun(place)
        for key in keys:
            self._by_key[key] = group
        group.keys.update(keys)
        group.rows.append((self._rows_taken, row))
        group.linked.add(row.linked)
        self._rows_kept += 1
        if row.event == "CHAN_END":
            group.open.discard(row.channel)
            self._forget(row.channel)
            self._tell_if_complete(group, row.at)
        else:
            group.open.add(row.channel)
            self._waiting.pop(group, None)

    def _begun(self, place: Place) -> _Group[Place]:
        group = self._groups[self._rows_taken] = _Group(place, self._rows_taken)
        return group

    def _joined(self, keys: list[str]) -> _Group[Place] | None:
        """The group of all these, made one if it was several."""
        groups = {self._by_key[key] for key in keys if key in self._by_key}
        if len(groups) < 2:
            return next(iter(groups), None)
        whole = max(groups, key=_size)
        oldest = min(groups, key=_when_begun)
        for group in groups - {oldest}:
            del self._groups[group.first_number]
        for part in groups - {whole}:
            whole.rows += part.rows
            whole.keys |= part.keys
            whole.open |= part.open
            whole.linked |= part.linked
            self._waiting.pop(part, None)
            for key in part.keys:
                self._by_key[key] = whole
        whole.first, whole.first_number = oldest.first, oldest.first_number
        self._groups[whole.first_number] = whole
        return whole

    def _linked_ended(self, row: CelRow) -> None:
        self._tells_linked_ends = True
        group = self._by_key.get(row.linked)
        if group is not None:
            group.linked.discard(row.linked)
            self._tell_if_complete(group, row.at)

    def _tell_if_complete(self, group: _Group[Place], at: datetime) -> None:
        if group.open:
            return
        if group.linked and self._tells_linked_ends:
            self._waiting.setdefault(group, at)
        else:
            self._tell(group, at)

    def _wait_no_longer(self, at: datetime) -> None:
        for group in [group for group, since in self._waiting.items() if at - since > _PATIENCE]:
            self._tells_linked_ends = False
            self._tell(group, at)

    # Asterisk starts anew

    def _hear(self, row: CelRow) -> None:
        """Asterisk numbers its channels from 0 when it starts: a low number, later, shows that it was restarted."""
        match = _ID.fullmatch(row.channel)
        if match is None:
            return
        name, second, number = match[1] or "", int(match[2]), int(match[3])
        if name not in self._heard_at and len(self._heard_at) >= _MAX_ASTERISKS:
            return
        if row.event == "CHAN_START":
            run = self._runs.setdefault(name, _Run())
            if not run.made(number, second):
                self._runs[name] = _Run([number], [second])
                self._restarted(name, run.last_made)
        self._heard_at[name] = row.at

    def _restarted(self, name: str, last_made: int) -> None:
        """What an Asterisk of that name left open ended unseen when it stopped.

        It made its last channel in the second `last_made`; one that was back at once has made some since.
        """
        at = self._heard_at[name]
        for group in list(self._groups.values()):
            if any(_is_of(channel, name, until=last_made) for channel in group.open):
                self._tell(group, at)

    # The calls

    def _tell(self, group: _Group[Place], at: datetime) -> None:
        """What is still open ended unseen at `at`."""
        self._waiting.pop(group, None)
        del self._groups[group.first_number]
        for key in group.keys:
            self._by_key.pop(key, None)
        for channel in group.open:
            self._forget(channel)
        self._rows_kept -= len(group.rows)
        rows = [row for _, row in sorted(group.rows, key=_when_read)]
        begun = {row.channel for row in rows if row.event == "CHAN_START"}
        if not all(row.channel in begun and row.linked in begun for row in rows):
            return  # only its end was read
        model = self._new_model()
        for event in events_of(rows):
            model.apply(event)
        if model.live_calls():
            model.apply(LineLost(at))
            model.apply(SnapshotTaken(at, frozenset()))
        untold = with_untold_hangup(rows)
        tells_music = any(row.event == _MUSIC for row in rows)
        self._ended += [CelCall(call, _columns(call, untold, tells_music=tells_music)) for call in model.take_ended()]

    def _make_room(self) -> None:
        """By half, so that it is not to be made again at once."""
        for group in list(self._groups.values()):
            if self._rows_kept <= self._max_rows // 2:
                return
            self._tell(group, group.last_at)

    def _forget(self, channel: str) -> None:
        self._gone[channel] = None
        if len(self._gone) > _REMEMBERED_GONE:
            del self._gone[next(iter(self._gone))]


def _columns(call: LiveCall, with_untold_hangup: set[str], *, tells_music: bool) -> dict[str, Any]:  # Any: columns
    row = call.to_row() | {"source": SOURCE}
    if row["hangup_source"] is HangupSource.PBX and call.caller_channel in with_untold_hangup:
        row["hangup_source"] = None
    if not tells_music:
        # Older versions do not tell of music, so nobody knows who was on hold; a parked one is known.
        row["legs"] = [_without_hold(leg) for leg in row["legs"]]
    return row


def _without_hold(leg: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    return leg if leg["hold_seconds"] else {name: value for name, value in leg.items() if name != "hold_seconds"}


def _keys(row: CelRow) -> list[str]:
    """What a row shares with others of the same calls: channels, linkedids, the bridge, those a transfer is about."""
    keys = [row.channel, row.linked]
    extra = row.extra
    if extra:
        if extra.get("bridge_technology") != "holding_bridge":
            keys.append(extra.get("bridge_id", ""))
        keys += [value for key, value in extra.items() if key.endswith("_uniqueid")]
    return [key for key in keys if isinstance(key, str) and key not in _NO_KEYS]


def _is_of(channel: str, name: str, *, until: int) -> bool:
    """Whether the Asterisk of that name made the channel, and not after that second."""
    match = _ID.fullmatch(channel)
    return match is not None and (match[1] or "") == name and int(match[2]) <= until


def _when_begun(group: _Group[Any]) -> int:  # Any: of any place
    return group.first_number


def _size(group: _Group[Any]) -> int:  # Any: of any place
    return len(group.rows)


def _when_read(numbered: tuple[int, CelRow]) -> int:
    return numbered[0]
