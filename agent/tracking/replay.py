"""What was heard elsewhere becomes calls in a database of its own, as it did where it was heard."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from agent.calls.live_call import LiveCall
from agent.store.writer import FinishedCall, Group, Writer
from agent.tracking.derive import Derivation, row_so_far

# Calls written in one transaction: their number bounds memory, and nobody waits for any of them.
_STEP = 500


class Heard(NamedTuple):
    """A frame of a PBX, and when it came."""

    pbx: str
    frame: bytes
    at: datetime


@dataclass(slots=True)
class Replayed:
    """What a replay came to."""

    frames: int = 0
    frame_bytes: int = 0
    ended: int = 0
    live: int = 0
    parts: int = 0  # of the calls, those that began before what was heard
    not_understood: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None


async def replay(
    heard: Iterable[Heard], derivations: Mapping[str, Derivation], writer: Writer, *, lengths_known: bool = True
) -> Replayed:
    """Derive calls of everything heard and keep them by `writer`; those still live in the end are `in_progress`.

    Without `lengths_known` both ends of every call are marked as estimated.
    """
    result = Replayed()
    finished: list[FinishedCall] = []
    for pbx, frame, at in heard:
        derivation = derivations[pbx]
        derivation.hear(frame, at)
        result.frames += 1
        result.frame_bytes += len(frame)
        result.first_at = result.first_at or at
        result.last_at = at
        for derived in derivation.take_ended():
            result.ended += 1
            result.parts += not derived.is_whole
            finished.append(_finished(derived.call, derived.call.to_row(), lengths_known=lengths_known))
        repaired = derivation.take_repaired()
        finished += [_finished(call, call.to_row(), lengths_known=lengths_known) for call in repaired]
        if len(finished) >= _STEP:
            await writer.commit(Group(finished=finished))
            finished.clear()
    for derivation in derivations.values():
        for call in derivation.model.live_calls():
            result.live += 1
            row = row_so_far(call, result.last_at or call.started_at)
            finished.append(_finished(call, row, lengths_known=lengths_known))
    await writer.commit(Group(finished=finished))
    result.not_understood = sum(derivation.not_understood for derivation in derivations.values())
    return result


def _finished(call: LiveCall, row: Mapping[str, Any], *, lengths_known: bool) -> FinishedCall:  # Any: columns
    marks = {} if lengths_known else {"start_estimated": True, "end_estimated": row["end_time"] is not None}
    return FinishedCall({**row, **marks}, call.assignment.tenant)
