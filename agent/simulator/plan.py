"""One simulated call as it is meant to go, before it is played: who calls whom, and what everybody does."""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from agent.simulator.site import UNKNOWN, Phone, Tenant
from sync.models import Direction, Disposition, Status


class Behaviour(Enum):
    """What the one who is called does."""

    ANSWERS = auto()
    RINGS = auto()  # and never picks up
    BUSY = auto()
    DECLINES = auto()
    CONGESTED = auto()
    UNALLOCATED = auto()  # a number nobody has
    UNREACHABLE = auto()  # a phone without contact: Asterisk makes no channel for it


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a refusal looks: Q.850 cause, SIP answer, and the two words Asterisk has for it."""

    cause: int
    sip: int
    dial_status: str  # as DialEnd tells it
    dialplan_status: str  # as the variable DIALSTATUS tells it
    disposition: Disposition

    @property
    def passed_on(self) -> int:
        """The SIP answer that Asterisk gives to others for this cause."""
        return 403 if self.sip == 603 else self.sip


REFUSALS: Final = {
    Behaviour.BUSY: Refusal(17, 486, "BUSY", "BUSY", Disposition.BUSY),
    Behaviour.DECLINES: Refusal(21, 603, "NOANSWER", "CHANUNAVAIL", Disposition.FAILED),
    Behaviour.CONGESTED: Refusal(34, 503, "CONGESTION", "CONGESTION", Disposition.CONGESTION),
    Behaviour.UNALLOCATED: Refusal(1, 404, "NOANSWER", "CHANUNAVAIL", Disposition.FAILED),
}


@dataclass(frozen=True, slots=True)
class Party:
    """One who is called, and after how many seconds of ringing they do what they do."""

    endpoint: str  # as in channel names
    dial: str  # as the dialplan dials it
    number: str
    caller_name: str
    context: str
    behaviour: Behaviour
    after_seconds: float = 0.0

    @property
    def refusal(self) -> Refusal | None:
        """How they refuse, if they do."""
        return REFUSALS.get(self.behaviour)


def phone_party(tenant: Tenant, phone: Phone, behaviour: Behaviour, after_seconds: float = 0.0) -> Party:
    """Somebody at one of the tenant's phones."""
    return Party(
        endpoint=phone.endpoint,
        dial=phone.endpoint,
        number=phone.number,
        caller_name=phone.name,
        context=tenant.internal_context,
        behaviour=behaviour,
        after_seconds=after_seconds,
    )


def far_party(tenant: Tenant, number: str, behaviour: Behaviour, after_seconds: float = 0.0) -> Party:
    """Somebody in the public network."""
    return Party(
        endpoint=f"PJSIP/{tenant.trunk}",
        dial=f"PJSIP/{number}@{tenant.trunk}",
        number=number,
        caller_name=UNKNOWN,
        context=tenant.inbound_context,
        behaviour=behaviour,
        after_seconds=after_seconds,
    )


@dataclass(frozen=True, slots=True)
class CallPlan:
    """Everything about a call that chance decides. Lengths of time are seconds, before the simulator's pace."""

    scenario: str
    tenant: Tenant
    direction: Direction
    endpoint: str  # the caller's
    caller: str
    caller_name: str
    dialled: str
    parties: tuple[Party, ...]  # called all at once, or by a queue one after another
    timeout_seconds: float  # how long the dialplan lets it ring, the caller wait, or the menu play
    talk_seconds: float = 0.0
    callee_hangs_up: bool = False
    patience_seconds: float | None = None  # the caller gives up so long after the ringing or waiting began
    menu_seconds: float | None = None  # so long the caller listens to a menu first
    digit: str | None = None  # and then chooses; None: hangs up
    queue: str | None = None
    traceparent: str | None = None  # W3C: comes with the call in a SIP header, and the dialplan keeps it in a variable

    @property
    def context(self) -> str:
        """Where the call enters the dialplan."""
        is_inbound = self.direction is Direction.INBOUND
        return self.tenant.inbound_context if is_inbound else self.tenant.internal_context


# The table of outcomes of docs and tests, by what the caller and the called did.
OUTCOMES: Final = {
    Disposition.ANSWERED: Status.COMPLETED,
    Disposition.CANCELLED: Status.ABANDONED,
    Disposition.NO_ANSWER: Status.FAILED,
    Disposition.BUSY: Status.FAILED,
    Disposition.CONGESTION: Status.FAILED,
    Disposition.FAILED: Status.FAILED,
}
