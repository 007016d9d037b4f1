"""Proves day by day that a site and its centre hold the same calls, and sends again what the centre lacks."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Protocol

from sync.records import DayDigest, HeldCall
from sync.uplink import Uplink

USUAL_DAYS: Final = 31  # what the daily look covers; a longer one is an operator's to ask for
_DAYS_AT_ONCE: Final = 31
_CALLS_AT_ONCE: Final = 1000
_EXAMPLES: Final = 20


class Difference(StrEnum):
    """How a call is not the same on both sides."""

    MISSING = "missing"  # at the centre
    OLDER = "older"  # there than here
    NEWER = "newer"  # there than here
    UNKNOWN = "unknown"  # here, and the centre holds it


@dataclass(frozen=True, slots=True)
class DayFound:
    """A tenant's day whose calls are not the same. `examples` are the first of them, with what is different."""

    tenant: str
    day: date
    here: int
    there: int
    counts: dict[Difference, int]
    examples: tuple[tuple[str, Difference], ...]

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """As JSON knows it."""
        return {
            "tenant": self.tenant,
            "day": self.day.isoformat(),
            "here": self.here,
            "there": self.there,
            **{str(kind): count for kind, count in self.counts.items()},
            "examples": [{"call_sid": sid, "difference": str(kind)} for sid, kind in self.examples],
        }


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What a look at some days found. Calls that wait to be sent or are set aside are not counted."""

    at: datetime
    first: date
    last: date
    calls: int = 0  # here, on these days
    missing: int = 0
    older: int = 0
    newer: int = 0
    unknown: int = 0
    resent: int = 0
    not_kept: int = 0  # tenants' days left out, since not all of their calls are kept here any longer

    @property
    def differing(self) -> int:
        """Calls that are not the same on both sides."""
        return self.missing + self.older + self.newer + self.unknown

    def as_dict(self) -> dict[str, Any]:  # Any: JSON
        """As JSON knows it."""
        days = {"at": self.at.isoformat(), "first": self.first.isoformat(), "last": self.last.isoformat()}
        return {**asdict(self), **days, "differing": self.differing}


class Comparison(Protocol):
    """A tenant's day here beside what the centre told of it."""

    async def note(self, held: Sequence[HeldCall]) -> None:
        """The centre holds these."""
        ...

    async def differences(self, *, limit: int) -> Sequence[tuple[str, Difference]]:
        """Up to `limit` call_sids that were not told before; empty when there are no more."""
        ...


class Tally(Protocol):
    """The site's own calls as reconciliation counts them; `agent.store.tally` reads them from SQLite."""

    async def days(self, first: date, last: date) -> Sequence[DayDigest]:
        """What is held here and confirmed by the centre, from day to day, both included."""
        ...

    async def kept_since(self) -> Mapping[str, date]:
        """The first day, by tenant, of which all calls are held that ever were; tenants that never lost one are not
        told."""
        ...

    def comparing(self, tenant: str, day: date) -> AbstractAsyncContextManager[Comparison]:
        """One day of one tenant, to be compared call by call."""
        ...

    async def send_again(self, sids: Sequence[str]) -> int:
        """Have these calls wait to be sent; how many did not wait already."""
        ...

    async def keep(self, found: Reconciled) -> None:
        """Remember the outcome."""
        ...


class Reconciler:
    """Compares by digests first, and call by call only where those differ."""

    def __init__(
        self, tally: Tally, uplink: Uplink, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._tally = tally
        self._uplink = uplink
        self._now = now

    async def run(self, first: date, last: date, *, heal: bool) -> AsyncGenerator[DayFound | Reconciled, None]:
        """Every tenant's day that differs, and at last what it all comes to.

        Raises UplinkUnavailable or UplinkRefused if the centre cannot be asked.
        """
        total = Reconciled(self._now(), first, last)
        kept_since = await self._tally.kept_since()
        for since, until in _stretches(first, last):
            here = {(one.tenant, one.day): one for one in await self._tally.days(since, until)}
            there = {(one.tenant, one.day): one for one in await self._uplink.days(since, until)}
            kept = {key for key in here.keys() | there.keys() if key[1] >= kept_since.get(key[0], key[1])}
            total = replace(
                total,
                calls=total.calls + sum(one.calls for key, one in here.items() if key in kept),
                not_kept=total.not_kept + len((here.keys() | there.keys()) - kept),
            )
            for tenant, day in sorted(kept):
                one, other = here.get((tenant, day)), there.get((tenant, day))
                if one == other:
                    continue
                found, resent = await self._compare(tenant, day, heal=heal)
                if not found.counts:
                    continue  # it was on its way, or waits
                found = replace(found, here=one.calls if one else 0, there=other.calls if other else 0)
                total = _added(total, found, resent)
                yield found
        await self._tally.keep(total)
        yield total

    async def _compare(self, tenant: str, day: date, *, heal: bool) -> tuple[DayFound, int]:
        counts: dict[Difference, int] = {}
        examples: list[tuple[str, Difference]] = []
        resent = 0
        async with self._tally.comparing(tenant, day) as comparison:
            after = ""
            while True:
                page = await self._uplink.calls(tenant, day, after=after, limit=_CALLS_AT_ONCE)
                await comparison.note(page)
                if len(page) < _CALLS_AT_ONCE:
                    break
                after = page[-1].call_sid
            while step := await comparison.differences(limit=_CALLS_AT_ONCE):
                for _, kind in step:
                    counts[kind] = counts.get(kind, 0) + 1
                examples += step[: _EXAMPLES - len(examples)]
                lacking = [sid for sid, kind in step if kind in {Difference.MISSING, Difference.OLDER}]
                if heal and lacking:
                    resent += await self._tally.send_again(lacking)
        return DayFound(tenant, day, 0, 0, counts, tuple(examples)), resent


def _added(total: Reconciled, found: DayFound, resent: int) -> Reconciled:
    more = {kind.value: getattr(total, kind.value) + found.counts.get(kind, 0) for kind in Difference}
    return replace(total, resent=total.resent + resent, **more)


def _stretches(first: date, last: date) -> Iterator[tuple[date, date]]:
    while first <= last:
        until = min(last, first + timedelta(days=_DAYS_AT_ONCE - 1))
        yield first, until
        first = until + timedelta(days=1)
