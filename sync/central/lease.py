"""Who may speak for a site: the table of docs/hub.md, without a database.

A token is `<generation>.<random>`; each new one has a greater generation. So a site whose token is of a later one than
the centre's tells that the centre was restored from a backup, and only an installation that spoke for it can have it.
"""

import math
import re
import secrets
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sync.errors import Fenced, LeaseHeld

_TOKEN = re.compile(r"(\d{1,18})\.[A-Za-z0-9_-]{1,64}")
SHORTEST_SECONDS, LONGEST_SECONDS = 10.0, 600.0


class Standing(StrEnum):
    """What a greeting comes to."""

    NEW = "new"  # it gets a new token
    SAME = "same"  # it keeps the present one
    HELD = "held"  # another installation is there
    FENCED = "fenced"  # another installation has taken over


@dataclass(frozen=True, slots=True)
class KeptLease:
    """What a site's row says of its lease. `left_seconds` is not positive once it has run out."""

    token: str | None = field(repr=False)
    token_before: str | None = field(repr=False)
    holder: str | None
    host: str | None
    since: datetime | None
    left_seconds: float


def standing(kept: KeptLease, *, shown: str | None, holder: str) -> Standing:
    """Decide on a greeting by `holder`, which shows a token or none."""
    if kept.token is None or _generation(shown) > _generation(kept.token):
        return Standing.NEW
    if holder == kept.holder:
        return Standing.SAME if shown in {None, kept.token, kept.token_before} else Standing.FENCED
    if shown != kept.token:
        return Standing.FENCED
    return Standing.HELD if kept.left_seconds > 0 else Standing.NEW


def next_token(kept: KeptLease, *, shown: str | None) -> str:
    """A token that nobody has, later than all that are known."""
    generation = max(_generation(token) for token in (kept.token, kept.token_before, shown)) + 1
    return f"{generation}.{secrets.token_urlsafe(18)}"


def bounded(seconds: float) -> float:
    """The lease's time a site gets if it wishes for this one."""
    return min(max(seconds, SHORTEST_SECONDS), LONGEST_SECONDS) if math.isfinite(seconds) else LONGEST_SECONDS


def held(kept: KeptLease, site: str) -> LeaseHeld:
    """The refusal of one that comes while the other is there."""
    return LeaseHeld(
        f"{_other(kept)} speaks for site {site!r} just now; this one may once the other is silent for "
        f"{math.ceil(kept.left_seconds)} s more. If both run, one is a copy: stop it",
        retry_after_seconds=max(kept.left_seconds, 1.0),
    )


def fenced(kept: KeptLease, site: str) -> Fenced:
    """The refusal of one whose site was taken over."""
    return Fenced(
        f"{_other(kept)} speaks for site {site!r} now, so this installation may be a copy, or an old one come back. "
        f"If it is to go on, stop the other and run `edge-hub sites release {site}` at the centre"
    )


def _other(kept: KeptLease) -> str:
    since = f", since {kept.since:%Y-%m-%d %H:%M} UTC," if kept.since else ""
    return f"another installation (on {kept.host or 'an unknown host'}){since}"


def _generation(token: str | None) -> int:
    found = _TOKEN.fullmatch(token) if token is not None else None
    return int(found[1]) if found else 0
