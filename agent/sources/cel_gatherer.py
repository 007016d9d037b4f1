"""Rows of CEL, of a file or a table, gathered by call; CEL tells itself when a call is over."""

from collections.abc import Callable, Sequence
from datetime import datetime, tzinfo
from typing import Final

from agent.calls.events import SnapshotTaken
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts
from agent.pbx.asterisk.cel import CEL_COLUMNS, CelReader, NoCelRow
from agent.pbx.asterisk.cel_calls import CelCalls
from agent.sources.gathering import GatheredCall, Mark
from agent.sources.source import Content

_NOTHING_WRONG: Final = frozenset({"an empty line", "a header"})
_Place = tuple[Mark, datetime]


class CelGatherer:
    """Implements `agent.sources.gathering.Gatherer`."""

    tells_every_call = True

    def __init__(
        self,
        *,
        site: str,
        pbx: str,
        rules: Callable[[], CallRules],
        assign: Callable[[CallFacts], Assignment],
        zone: tzinfo,
        encoding: str,
        columns: Sequence[str] | None,
        listed: Callable[[], SnapshotTaken | None] | None = None,
    ) -> None:
        """`listed`: the channels that the PBX told last that it has, None while it is not heard."""
        self._reader = CelReader(columns or CEL_COLUMNS, zone=zone, encoding=encoding)
        self._rules = rules
        self._rules_used = rules()
        self._calls: CelCalls[_Place] = CelCalls(site=site, pbx=pbx, rules=self._rules_used, assign=assign)
        self._listed = listed
        self._list_taken: SnapshotTaken | None = None
        self._frontier: Mark | None = None
        self.last_at: datetime | None = None

    def begin(self, mark: Mark) -> None:
        """Whatever ends from here on began here or in what is not told yet."""
        self._frontier = self.first_unsettled or mark
        if (rules := self._rules()) is not self._rules_used:
            self._calls.use_rules(rules)
            self._rules_used = rules

    def take(self, data: Content, mark: Mark) -> str | None:
        """The next line or row."""
        row = self._reader.read(data.replace(b"\0", b"")) if isinstance(data, bytes) else self._reader.row_of(data)
        if isinstance(row, NoCelRow):
            return None if row.reason in _NOTHING_WRONG else row.reason
        self.last_at = row.at
        self._calls.add(row, (mark, row.at))
        return None

    def take_calls(self, *, seconds: float, is_at_end: bool) -> list[GatheredCall]:
        """Calls that have ended, those also of an Asterisk that crashed and does not list them."""
        if is_at_end and self._listed is not None:
            self._take_list(self._listed())
        ended = self._calls.take_ended()
        if not ended or self._frontier is None:
            return []
        return [GatheredCall(each.row, each.call.assignment.tenant, self._frontier) for each in ended]

    def _take_list(self, listed: SnapshotTaken | None) -> None:
        if listed is not None and listed is not self._list_taken:
            self._list_taken = listed
            self._calls.take_list(listed.channels)

    @property
    def first_unsettled(self) -> Mark | None:
        """That of the call that began first."""
        oldest = self._calls.oldest_unfinished
        return oldest[0] if oldest is not None else None

    @property
    def unsettled_since(self) -> datetime | None:
        """When it began."""
        oldest = self._calls.oldest_unfinished
        return oldest[1] if oldest is not None else None

    def __len__(self) -> int:
        return len(self._calls)
