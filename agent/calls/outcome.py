"""How a call ended, in two words: the table of statuses and dispositions, as code."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.calls.events import DialStatus
from sync.models import Disposition, Status


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status` tells how far the call came, `disposition` why not further."""

    status: Status
    disposition: Disposition | None


ANSWERED: Final = Outcome(Status.COMPLETED, Disposition.ANSWERED)
VOICEMAIL: Final = Outcome(Status.COMPLETED, Disposition.VOICEMAIL)
CANCELLED: Final = Outcome(Status.ABANDONED, Disposition.CANCELLED)
NO_ANSWER: Final = Outcome(Status.FAILED, Disposition.NO_ANSWER)
BUSY: Final = Outcome(Status.FAILED, Disposition.BUSY)
CONGESTION: Final = Outcome(Status.FAILED, Disposition.CONGESTION)
FAILED: Final = Outcome(Status.FAILED, Disposition.FAILED)

_SAID_OUTRIGHT: Final[dict[DialStatus | None, Outcome]] = {
    DialStatus.BUSY: BUSY,
    DialStatus.CONGESTION: CONGESTION,
    DialStatus.CHANUNAVAIL: FAILED,
}
# Q.850 causes of a leg whose DialStatus only says NOANSWER although nobody could have answered:
# unallocated, no route, no user responding, subscriber absent, rejected, out of order, invalid number, unspecified.
_UNREACHABLE: Final = frozenset({1, 2, 3, 18, 20, 21, 22, 27, 28, 31, 38, 41, 58, 88, 111})
_CONGESTED: Final = frozenset({34, 42, 44})
_USER_BUSY: Final = 17
_TAKEN_BACK: Final = frozenset({None, 0, 26})  # nothing said, answered elsewhere


@dataclass(frozen=True, slots=True)
class Decision:
    """An outcome and, in words, the rule that led to it."""

    outcome: Outcome
    because: str


UNSEEN: Final = Decision(
    Outcome(Status.FAILED, None), "its end was not seen, and nobody had answered as far as it was heard"
)
MERGED: Final = Decision(
    Outcome(Status.COMPLETED, None), "it went on in another call before anybody had answered (merged_into)"
)


def decide(
    *,
    answered: bool,
    voicemail: bool,
    caller_gave_up: bool,
    cut_off: bool,
    dialled: Sequence[tuple[DialStatus | None, int | None]],
    reached_nobody: bool,
    tone: Outcome | None,
    cause: int | None,
) -> Decision:
    """The outcome from what was seen; the first fact that holds decides.

    `cut_off` tells that the PBX stopped under the call, `dialled` each leg of the last attempt (its DialStatus and
    Q.850 cause), `reached_nobody` that an attempt made no leg at all, `tone` what the PBX let the caller hear in the
    end (busy, congestion), `cause` the Q.850 cause on the caller's leg.
    """
    settled: list[tuple[bool, Outcome, str]] = [
        (answered, ANSWERED, "a person, a far end or an answering service answered"),
        (voicemail, VOICEMAIL, "a voicemail application took the call"),
        (caller_gave_up, CANCELLED, "the caller hung up before anybody had answered"),
        (cut_off, FAILED, "the PBX stopped under the call"),
    ]
    for is_so, outcome, because in settled:
        if is_so:
            return Decision(outcome, because)
    if dialled:
        return _of_attempt({_of_leg(status, leg_cause) for status, leg_cause in dialled})
    if tone is not None:
        return Decision(tone, f"nobody was dialled and the PBX let the caller hear a {tone.disposition} tone")
    if reached_nobody:
        return Decision(FAILED, "the dialplan tried to reach somebody, but there was no way to any phone or trunk")
    outcome = _of_cause(cause)
    cause_text = "without a cause" if cause is None else f"with Q.850 cause {cause}"
    return Decision(outcome, f"nobody was dialled and the PBX ended the call {cause_text}")


def _of_attempt(legs: set[Outcome]) -> Decision:
    """One phone that rang in vain outweighs others that were busy or dead: somebody might have answered."""
    for outcome, because in (
        (NO_ANSWER, "in the last attempt at least one phone rang in vain"),
        (BUSY, "in the last attempt nobody was free, at least one was busy"),
        (CONGESTION, "in the last attempt there was no way through"),
    ):
        if outcome in legs:
            return Decision(outcome, because)
    return Decision(FAILED, "in the last attempt everybody declined or could not be reached")


def _of_leg(status: DialStatus | None, cause: int | None) -> Outcome:
    if status in _SAID_OUTRIGHT:
        return _SAID_OUTRIGHT[status]
    match status:
        case DialStatus.CANCEL:  # the caller stayed: taken back by the PBX, or everything was hung up because it stops
            return NO_ANSWER if cause in _TAKEN_BACK else FAILED
        case None if cause is None:  # the attempt was cut short, as by a restart of the PBX
            return FAILED
        case None:  # older Asterisks do not tell how an attempt of their own ended
            return _of_cause(cause)
        case _:
            return FAILED if cause in _UNREACHABLE else NO_ANSWER


def _of_cause(cause: int | None) -> Outcome:
    """Nobody was dialled, the PBX itself ended the call: a closing announcement is nobody answering."""
    if cause == _USER_BUSY:
        return BUSY
    if cause in _CONGESTED:
        return CONGESTION
    return FAILED if cause in _UNREACHABLE else NO_ANSWER
