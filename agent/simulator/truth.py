"""What really happened to a simulated call, in the words of the product's own table of outcomes."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from sync.models import Direction, Disposition, Status

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Cut(StrEnum):
    """What ended a call that nobody wanted to end."""

    RESTART = "restart"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """One ended call. `native_id` is the first channel's Uniqueid, moments are those in the events' `Timestamp`.

    A call cut by a kill ended at `end_time`, but no event says so.
    """

    native_id: str
    scenario: str
    tenant: str
    direction: Direction
    caller: str | None
    caller_name: str | None
    callee: str
    answered_by: str | None
    queue: str | None
    status: Status
    disposition: Disposition
    start_time: datetime
    pbx_answer_time: datetime | None  # the PBX itself answered first: menu, queue
    answer_time: datetime | None
    end_time: datetime
    talk_seconds: float
    traceparent: str | None = None
    cut: Cut | None = None

    def call_sid(self, site: str, pbx: str) -> str:
        """The id that this call has to have in the product."""
        return f"{site}:{pbx}:{self.native_id}"

    def to_json(self) -> dict[str, object]:
        """Moments as ISO text, everything else as it is."""
        return {
            name: value.isoformat(timespec="microseconds") if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }


def moment(microseconds: int) -> datetime:
    """Microseconds since the epoch as an aware UTC moment, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)
