"""Times of a table's rows that bear no zone, as moments: rows in the order in which they were written tell which of the
two hours is meant that bear the same names in autumn."""

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from agent.pbx.asterisk.cdr_clock import began_at

_OFF: Final = timedelta(seconds=2)  # whole seconds, cut
_OUT_OF_ORDER: Final = timedelta(minutes=10)  # so much earlier than another may a later row be


class RowClock:
    """Reads the times of one table, row after row. In the hour that does not exist in spring they move forward."""

    def __init__(self, zone: tzinfo) -> None:
        self._zone = zone
        self._latest: datetime | None = None

    def told(self, text: str, channel_id: str) -> str:
        """The time with its zone; a text that is no local time as it is. `channel_id` tells when its channel began."""
        if "-" not in text:
            return text  # seconds since 1970, which are the same everywhere
        try:
            local = datetime.fromisoformat(text)
        except ValueError:
            return text
        if local.tzinfo is not None:
            return text
        try:
            moment = self._moment(local, began_at(channel_id))
        except OverflowError:
            return text
        if self._latest is None or moment > self._latest:
            self._latest = moment
        return moment.isoformat()

    def _moment(self, local: datetime, channel_at: datetime | None) -> datetime:
        first, second = (local.replace(tzinfo=self._zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if second <= first:
            return first
        if channel_at is not None and first < channel_at - _OFF:
            return second  # an event of a channel that had not begun yet
        return second if self._latest is not None and first < self._latest - _OUT_OF_ORDER else first
