"""Lines of a queue log, gathered by the caller's channel, and told once those who tell more have had time to do so."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from agent.calls.rules import CallRules
from agent.calls.tenancy import CallFacts, facts_of
from agent.pbx.asterisk.queue_log import QueueEvent, QueueLine, QueueLogFault, read_line
from agent.pbx.asterisk.queue_log_calls import BY_THE_WAY, QueueCall, account_of
from agent.sources.gathering import GatheredCall, Mark
from agent.sources.source import Content
from sync.models import Call

MAX_GATHERED: Final = 20_000  # calls; beyond it the oldest are taken to be told wholly
# CDRs are waited for just as long, and are to be told first.
_AFTER_OTHERS_SECONDS: Final = 5.0
# Who is not told to have left, by the source's own clock, was told so in a file that is lost.
_LONGEST: Final = timedelta(days=1)


@dataclass(slots=True, eq=False)
class _Gathered:
    call: QueueCall
    first: Mark
    last_seconds: float


class QueueLogGatherer:
    """Implements `agent.sources.gathering.Gatherer`."""

    tells_every_call = False

    def __init__(
        self,
        *,
        site: str,
        pbx: str,
        rules: Callable[[], CallRules],
        tenant_of: Callable[[CallFacts], str | None],
        encoding: str,
        settle_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._site = site
        self._pbx = pbx
        self._rules = rules
        self._tenant_of = tenant_of
        self._encoding = encoding
        self._settle_seconds = 2 * settle_seconds + _AFTER_OTHERS_SECONDS
        self._clock = clock
        self._calls: dict[str, _Gathered] = {}  # by the id of the caller's channel
        self.last_at: datetime | None = None

    def begin(self, mark: Mark) -> None:
        """Nothing is to be known beforehand."""

    def take(self, data: Content, mark: Mark) -> str | None:
        """The next line."""
        if not isinstance(data, bytes):
            return "a queue log is a file"
        try:
            line = read_line(data.replace(b"\0", b""), self._encoding)
        except QueueLogFault as exc:
            return str(exc)
        if line is None:
            return None
        self.last_at = line.at
        if line.event is QueueEvent.QUEUESTART:
            for each in self._calls.values():
                each.call.cut_off()
            return None
        if (gathered := self._of(line, mark)) is not None:
            gathered.call.add(line)
            gathered.last_seconds = self._clock()
        return None

    def _of(self, line: QueueLine, mark: Mark) -> _Gathered | None:
        known = self._calls.get(line.call_id)
        if line.event is QueueEvent.ENTERQUEUE or (known is not None and known.call.waits_in(line.queue)):
            return known or self._new(line.call_id, mark)
        if line.event in BY_THE_WAY:
            return known
        return self._taken_over(line) or known or self._new(line.call_id, mark)

    def _new(self, call_id: str, mark: Mark) -> _Gathered:
        gathered = self._calls[call_id] = _Gathered(QueueCall(call_id), mark, self._clock())
        return gathered

    def _taken_over(self, line: QueueLine) -> _Gathered | None:
        """The only visit that may have gone over to this line's channel, now among those of that channel's call."""
        found = [(each, visit) for each in self._calls.values() for visit in each.call.visits if visit.is_that_of(line)]
        if len(found) != 1:
            return None
        ((old, visit),) = found
        old.call.visits.remove(visit)
        if not old.call.visits:
            del self._calls[old.call.call_id]
        visit.number, visit.is_taken_over = None, True
        new = self._calls.get(line.call_id) or self._new(line.call_id, old.first)
        new.first = min(new.first, old.first, key=_number)
        new.call.visits.append(visit)
        return new

    def take_calls(self, *, seconds: float, is_at_end: bool) -> list[GatheredCall]:
        """Calls that left their queues long enough ago, and those of which nothing is told any more."""
        told = [each for each in self._calls.values() if self._is_told(each.call, seconds - each.last_seconds)]
        if len(self._calls) - len(told) > MAX_GATHERED:
            oldest = sorted(self._calls.values(), key=lambda each: each.first.number)
            told = oldest[: len(oldest) - MAX_GATHERED // 2]
        for each in told:
            del self._calls[each.call.call_id]
            each.call.cut_off()
        return [self._gathered(each) for each in told]

    def _is_told(self, call: QueueCall, quiet_seconds: float) -> bool:
        if call.is_over:
            return quiet_seconds >= self._settle_seconds
        return self.last_at is not None and self.last_at - call.last_at > _LONGEST

    def _gathered(self, gathered: _Gathered) -> GatheredCall:
        rules = self._rules()
        row = account_of(gathered.call, site=self._site, pbx=self._pbx, rules=rules)
        return GatheredCall(row, self._tenant_of(facts_of(Call(**row), rules)), gathered.first)

    @property
    def first_unsettled(self) -> Mark | None:
        """Where the earliest line stands of calls that are not told."""
        return min((each.first for each in self._calls.values()), key=_number, default=None)

    @property
    def unsettled_since(self) -> datetime | None:
        """When the earliest began."""
        return min((each.call.start_time for each in self._calls.values()), default=None)

    def __len__(self) -> int:
        return len(self._calls)


def _number(mark: Mark) -> int:
    return mark.number
