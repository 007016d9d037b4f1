"""The times of a CDR as moments: text on the PBX's clock, with the two hours a year that no such clock can tell.

In autumn an hour comes twice. Which of the two is meant is told by the channel's id (it begins with the epoch), by
the duration, or by the order of lines, which Asterisk writes when calls end; else it is taken for the first one and
marked. In spring an hour does not exist; what stands there is moved forward and marked.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import product
from typing import Final, NamedTuple

_EPOCH_START: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH: Final = re.compile(r"(\d{9,10})(?:\.(\d{1,6})\d*)?")
_CHANNEL_ID: Final = re.compile(r"(?:.*-)?(\d{9,10})\.\d+")
_NO_TIMES: Final = frozenset({"", "\\N", "NULL", "null", "None", "0", "0.000000"})
_LATE_LINES: Final = timedelta(minutes=10)  # how much later than it ended a call's line may be written
_OFF: Final = timedelta(seconds=2)  # whole seconds, cut at either end
_MAX_KNOWN_HOURS: Final = 100_000


class CdrTimes(NamedTuple):
    """When a CDR began, was answered and ended. `guessed`: the text that could be read in two ways, or none."""

    start: datetime
    answer: datetime | None
    end: datetime
    guessed: str


class CdrClock:
    """Reads the times of one file, line after line."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        # Hours that are nothing special: when they begin on the PBX's clock, and which moment that is.
        self._hours: dict[str, tuple[datetime, datetime]] = {}
        self._latest_end: datetime | None = None

    def times(
        self, *, start: str, answer: str, end: str, duration: float | None, billsec: float | None, uniqueid: str
    ) -> CdrTimes:
        """The moments; what the file does not tell follows from the lengths. Raises ValueError without a start."""
        starts, answers, ends = self._readings(start), self._readings(answer), self._readings(end)
        if not starts:
            raise ValueError("it has no start time" if start in _NO_TIMES else f"{start[:40]!r} is no time")
        if len(starts) == len(ends) == 1 and len(answers) <= 1:
            began, ended, is_guess = starts[0], ends[0], False
        else:
            began, ended, is_guess = self._likeliest(starts, ends, duration, began_at(uniqueid))
        answered: datetime | None
        if len(answers) == 1:
            answered = answers[0]
        elif answers:
            within = [one for one in answers if began - _OFF <= one <= ended + _OFF] or answers
            wanted = ended - timedelta(seconds=billsec) if billsec is not None else began
            answered = min(within, key=lambda one: abs(one - wanted)) if len(within) > 1 else within[0]
        else:
            answered = ended - timedelta(seconds=billsec) if billsec else None
        ended = max(ended, began)
        if self._latest_end is None or ended > self._latest_end:
            self._latest_end = ended
        is_guess = is_guess or self._does_not_exist(start) or self._does_not_exist(end)
        return CdrTimes(began, answered, ended, f"{start} {end}".strip() if is_guess else "")

    def _likeliest(
        self, starts: Sequence[datetime], ends: Sequence[datetime], duration: float | None, channel_at: datetime | None
    ) -> tuple[datetime, datetime, bool]:
        length = timedelta(seconds=duration) if duration is not None else None
        if ends:
            pairs = [(one, other) for one, other in product(starts, ends) if other >= one - _OFF]
            if length is not None:
                pairs = [pair for pair in pairs if abs(pair[1] - pair[0] - length) <= _OFF] or pairs
        else:
            pairs = [(one, one + (length or timedelta())) for one in starts]
        pairs = pairs or [(starts[0], ends[0])]
        if channel_at is not None:
            pairs = [pair for pair in pairs if pair[0] >= channel_at - _OFF] or pairs
            if abs(pairs[0][0] - channel_at) <= _OFF:
                return *pairs[0], False
        if self._latest_end is not None:
            pairs = [pair for pair in pairs if pair[1] >= self._latest_end - _LATE_LINES] or pairs
        return *pairs[0], len(pairs) > 1

    def _readings(self, text: str) -> Sequence[datetime]:
        """What the text can mean, the earlier moment first; nothing if it is empty."""
        hour = text[:13]
        if (known := self._hours.get(hour)) is not None and (local := datetime.fromisoformat(text)).tzinfo is None:
            begins, moment = known
            return (moment + (local - begins),)  # a third of the time that a change of its zone takes
        if text in _NO_TIMES or text.startswith("0000"):
            return ()
        if found := _EPOCH.fullmatch(text):
            # Whole seconds and microseconds apart: a float has not enough digits for both.
            micros = int((found[2] or "0").ljust(6, "0"))
            return (_EPOCH_START + timedelta(seconds=int(found[1]), microseconds=micros),)
        local = datetime.fromisoformat(text)
        if local.tzinfo is not None:
            return (local.astimezone(UTC),)
        self._remember(hour, local)
        first, second = (local.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return (first,) if second <= first else (first, second)

    def _remember(self, hour: str, local: datetime) -> None:
        begins = local.replace(minute=0, second=0, microsecond=0)
        offsets = {
            (begins + timedelta(minutes=minute)).replace(tzinfo=self._zone, fold=fold).utcoffset()
            for minute in range(0, 60, 5)
            for fold in (0, 1)
        }
        if len(offsets) == 1 and len(self._hours) < _MAX_KNOWN_HOURS:
            self._hours[hour] = begins, begins.replace(tzinfo=self._zone).astimezone(UTC)

    def _does_not_exist(self, text: str) -> bool:
        if text[:13] in self._hours or text in _NO_TIMES or "-" not in text:
            return False
        local = datetime.fromisoformat(text)
        if local.tzinfo is not None:
            return False
        there = local.replace(tzinfo=self._zone).astimezone(UTC).astimezone(self._zone)
        return there.replace(tzinfo=None) != local


def began_at(channel_id: str) -> datetime | None:
    """When a channel began, as its id tells (`[name-]epoch.count`)."""
    found = _CHANNEL_ID.fullmatch(channel_id)
    return _EPOCH_START + timedelta(seconds=int(found[1])) if found else None
