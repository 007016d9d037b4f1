"""What an operator wants to know of one second source."""

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(slots=True)
class SourceStatus:
    """How far a source of a PBX is read; changed in place by its follower."""

    pbx: str
    name: str
    kind: str
    place: str  # where it is
    read_until: datetime | None = None  # when it was last read to its end
    records: int = 0
    rejects: int = 0  # records that could not be understood
    waiting: int = 0  # calls of which it has not told all
    found: int = 0  # since the agent started: calls that were not known, or not wholly
    confirmed: int = 0  # since then: calls that the live feed held already
    trouble: str | None = None  # why nothing can be read, a sentence
    warnings: dict[str, str] = field(default_factory=dict)
