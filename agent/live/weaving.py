"""What is written into a shared store where others may have written meanwhile."""

from dataclasses import dataclass

from agent.calls.context import CallContext, with_facts
from agent.calls.differences import difference, named
from agent.calls.operations import TakeOver, apply


@dataclass(frozen=True, slots=True)
class Woven:
    """What stands in the store afterwards."""

    context: CallContext
    is_new: bool = True  # it has to be written
    taken: TakeOver | None = None  # what others changed; `context` has it, the agent does not know it yet


def of_facts(facts: CallContext, stored: CallContext | None) -> Woven:
    """What to write when only the tracker's facts are told: services' part stays as it is stored."""
    if stored is None:
        return Woven(facts.model_copy(update={"revision": max(1, facts.revision)}))
    latest = max(stored.last_interaction_time, facts.last_interaction_time)
    changed = with_facts(stored, facts, at=latest)
    return Woven(changed.model_copy(update={"revision": stored.revision + 1}))


def woven(mine: CallContext, stored: CallContext | None, *, base: CallContext | None) -> Woven:
    """What to write when the agent has `mine`, and `base` is what it last knew to stand there.

    What others changed is left standing, and `mine` waits until it knows it: else what is written could tell more than
    what the agent has kept. An old copy, as of a server that was restored, is told by its numbers.
    """
    if stored is None:
        return Woven(mine)
    if stored is base:
        return _against(stored, mine, None)
    if base is not None and _is_old(stored, base):
        base = None
    theirs = named(stored)
    taken = difference(base, theirs, mine)
    if taken and apply(mine, taken, mine.last_interaction_time) is not mine:
        told = with_facts(theirs, mine, at=max(theirs.last_interaction_time, mine.last_interaction_time))
        if told.operation is None and base is not None:
            told = told.model_copy(update={"operation": base.operation})  # somebody left the mark out
        return _against(stored, told, taken)
    return _against(stored, mine, None)


def _against(stored: CallContext, wanted: CallContext, taken: TakeOver | None) -> Woven:
    numbers = {name: getattr(stored, name) for name in ("revision", "operation", "last_interaction_time")}
    if wanted.model_copy(update=numbers) == stored:
        return Woven(stored, is_new=False, taken=taken)
    revision = max(stored.revision + 1, wanted.revision)
    return Woven(wanted.model_copy(update={"revision": revision}), taken=taken)


def _is_old(stored: CallContext, base: CallContext) -> bool:
    if stored.operation is not None and base.operation is not None and stored.operation < base.operation:
        return True
    return stored.revision < base.revision
