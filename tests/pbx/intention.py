"""What the rig meant a call to be, to be held against what Asterisk says it was."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Intention:
    """What a call was meant to be, by the words of the product's table of outcomes."""

    call: str
    scenario: str
    tenant: str
    direction: str
    caller: str
    caller_name: str
    callee: str
    status: str
    disposition: str
    answered_by: tuple[str, ...]
    """Who may have answered; empty when nobody should."""
    queue: str | None
    talk: timedelta | None
    """How long the caller meant to stay; None where the other side decides."""
