"""Notices a source that tells nothing more though calls are heard: as if nothing wrote it any longer.

Whether the module that writes it is loaded Asterisk tells only users with write=system, so the calls are asked.
"""

import sqlite3
from datetime import datetime, timedelta
from typing import Final

from agent.store.moments import moment_text

ASKED_EVERY_SECONDS: Final = 60.0
_LATE: Final = timedelta(minutes=2)  # so long after a call its records are there
_ENOUGH: Final = 5  # answered calls; what reaches nobody may leave no CDR

_UNTOLD: Final = """SELECT count(*) FROM call WHERE pbx = ? AND start_time > ? AND end_time < ? AND source = 'ami'
    AND disposition = 'answered' AND merged_into IS NULL"""


def silence(connection: sqlite3.Connection, *, pbx: str, told_until: datetime, now: datetime) -> str | None:
    """A sentence if calls were heard after the source's latest record that it should have told long since."""
    since, until = moment_text(told_until), moment_text(now - _LATE)
    (count,) = connection.execute(_UNTOLD, (pbx, since, until)).fetchone()
    if count < _ENOUGH:
        return None
    return (
        f"it tells none of {count} answered calls that were heard since {told_until:%Y-%m-%d %H:%M} UTC; see whether "
        "Asterisk still writes it: `cdr show status`, `cel show status`, `module show like cdr_` (by AMI only a user "
        "with write=system could ask)"
    )
