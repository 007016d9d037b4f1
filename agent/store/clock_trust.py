"""Whether the clock is to be believed when it says that something is old: what is deleted by a wrong clock is gone.

A machine may begin with the clock years ahead, and a clock may be set while the agent runs. Both are waited out; a
clock that is behind only keeps things longer.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

_ABSENCE: Final = timedelta(days=7)  # so long a machine may be off without anybody wondering
_LEAP_SECONDS: Final = 3600.0
_PATIENCE_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class ClockTrust:
    """What is known of the clock. `ahead` is how much further the wall clock stands than the monotonic one."""

    ahead: float  # when it was last believed, in seconds
    doubted_since: float | None  # seconds of the monotonic clock; None: it is believed


def first_trust(*, newest: datetime | None, now: datetime, monotonic: float) -> ClockTrust:
    """At the start: `newest` is the latest moment that is kept of the time before, None if nothing is."""
    if newest is not None and now - newest > _ABSENCE:
        return ClockTrust((newest + _ABSENCE).timestamp() - monotonic, doubted_since=monotonic)
    return ClockTrust(now.timestamp() - monotonic, None)


def look_again(trust: ClockTrust, *, now: datetime, monotonic: float) -> ClockTrust:
    """What is to be thought of the clock now: a leap forward is doubted until it is taken back, or for a day."""
    ahead = now.timestamp() - monotonic
    since = monotonic if trust.doubted_since is None else trust.doubted_since
    if ahead - trust.ahead > _LEAP_SECONDS and monotonic - since < _PATIENCE_SECONDS:
        return replace(trust, doubted_since=since)
    return ClockTrust(ahead, None)
