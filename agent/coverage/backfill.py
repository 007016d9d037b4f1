"""What second sources tell of the time of gaps, read anew and at once."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Self

from agent.coverage.account import Account, SourceCall
from agent.coverage.errors import NotVerifiable
from agent.coverage.reading import Reach, Rest, read_calls
from agent.sources.opening import PbxSources
from config.settings import SourceSettings


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time, mostly that of a gap."""

    from_at: datetime
    to_at: datetime


class Backfill:
    """The sources of one PBX, read for some stretches of time."""

    def __init__(self, account: Account, read: Sequence[tuple[SourceSettings, Reach]], troubles: Sequence[str]) -> None:
        self._account = account
        self._read = read
        self._troubles = troubles

    @classmethod
    @contextmanager
    def of(
        cls,
        of: PbxSources,
        sources: Sequence[SourceSettings],
        stretches: Sequence[Stretch],
        *,
        now: datetime,
        rest: Rest,
    ) -> Iterator[Self]:
        """Read all of these sources; one that cannot be read keeps nobody from the others."""
        since, until = min(each.from_at for each in stretches), max(each.to_at for each in stretches)
        read: list[tuple[SourceSettings, Reach]] = []
        troubles: list[str] = []
        with Account.open() as account:
            for rank, source in enumerate(sources):
                keep = partial(account.add, rank=rank)
                try:
                    reach = read_calls(source, of, since=since, until=until, now=now, rest=rest, keep=keep)
                    read.append((source, reach))
                except NotVerifiable as exc:
                    troubles.append(str(exc))
            yield cls(account, read, troubles)

    def calls(self, stretch: Stretch, *, at_once: int) -> Iterator[list[SourceCall]]:
        """Calls that went on at that time."""
        return self._account.overlapping(stretch.from_at, stretch.to_at, at_once=at_once)

    def told_by(self, stretch: Stretch, *, now: datetime) -> str:
        """The source that tells all calls of that time. Raises NotVerifiable if none does, with what is wanting."""
        reasons = list(self._troubles)
        for source, reach in self._read:
            reason = _why_not(source, reach, stretch, now=now)
            if reason is None:
                return source.called
            reasons.append(reason)
        raise NotVerifiable("; ".join(reasons) or "no second source tells calls")


def _why_not(source: SourceSettings, reach: Reach, stretch: Stretch, *, now: datetime) -> str | None:
    if reach.first_at is None or reach.last_at is None:
        return f"{source.called} holds no record around that time"
    if not reach.reaches(stretch.from_at):
        return f"{source.called} does not reach back so far: its first record is from {_text(reach.first_at)}"
    if reach.nameless:
        nameless = f"{source.called} holds {reach.nameless} CDRs around that time that bear no id"
        return f"{nameless}: loguniqueid = yes in cdr.conf"
    if reach.last_at < stretch.to_at:
        # A PBX that writes nothing down any more would look like one without calls.
        return f"{source.called} tells nothing later yet: its last record is from {_text(reach.last_at)}"
    if now - stretch.to_at < timedelta(seconds=source.settle_seconds):
        return f"{source.called} may not have told all of it yet; try again in {source.settle_seconds:.0f} s"
    return None


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
