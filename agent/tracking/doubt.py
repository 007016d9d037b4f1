"""Whether this machine's clock is certainly wrong, as after a boot without a battery and before time comes by network.

Meanwhile calls are captured as always; gaps wait to be told, since their other end was timed by a clock that was right.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

from agent.calls.reclocking import moved
from agent.store.writer import GapClosed, GapOpened

# There was no such program before.
_EARLIEST: Final = datetime(2025, 1, 1, tzinfo=UTC)
# A machine that was set by a little while it was down is nobody's trouble.
_BEHIND: Final = timedelta(minutes=1)


class ClockDoubt:
    """Of one PBX's feed, from its start on."""

    def __init__(self) -> None:
        self._floor: datetime | None = None  # the clock is right once it shows at least that
        self._gaps: list[GapOpened | GapClosed] = []

    def begin(self, now: datetime, last_at: datetime | None) -> bool:
        """Look at the clock, knowing when the PBX was heard last; whether it must be wrong."""
        floor = _EARLIEST if last_at is None else max(_EARLIEST, last_at)
        self._floor = floor if now < floor - _BEHIND else None
        return self._floor is not None

    @property
    def words(self) -> str | None:
        """What an operator should know; None if there is no doubt."""
        if self._floor is None:
            return None
        return (
            f"this machine's clock is before {self._floor:%Y-%m-%d %H:%M:%S} UTC, which it has shown already; "
            "have it set by NTP (chrony or systemd-timesyncd), then the times of calls are put right"
        )

    def is_settled_at(self, at: datetime) -> bool:
        """Whether a doubt that there was ends when the clock shows this."""
        return self._floor is not None and at >= self._floor

    def holds(self, gap: GapOpened | GapClosed) -> bool:
        """Keep what is to be said of a gap until the clock is right; False if it is."""
        if self._floor is not None:
            self._gaps.append(gap)
        return self._floor is not None

    def settle(self, seconds: float, *, blind_since: datetime | None) -> list[GapOpened | GapClosed]:
        """The clock was set by so much and is right now: what waited, by it. A gap ends no earlier than it began."""
        by = timedelta(seconds=seconds)
        told: list[GapOpened | GapClosed] = []
        for gap in self._gaps:
            if isinstance(gap, GapOpened):
                blind_since = moved(gap.from_at, by)
                told.append(GapOpened(gap.pbx, blind_since, gap.reason, gap.detail))
            else:
                to_at = moved(gap.to_at, by)
                told.append(GapClosed(gap.pbx, max(to_at, blind_since) if blind_since else to_at))
        self._floor, self._gaps = None, []
        return told
