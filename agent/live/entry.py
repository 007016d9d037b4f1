"""One call on the desk."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Final

from agent.calls.context import CallContext
from agent.calls.operations import Logged, Operation, Recall, TakeOver, apply
from agent.calls.wishes import size_of

# Contexts that were changed between a write and a kill are told again with other content: their revisions leap.
REVISION_LEAP: Final = 1_000

# The latest of a call's idempotency keys: a service that asks again does so soon.
_REMEMBERED_KEYS: Final = 10_000

Key = tuple[str, str]  # a service and its idempotency key
Kept = asyncio.Future[Sequence[Operation]]


@dataclass(slots=True)
class Entry:
    """One call on the desk."""

    shown: CallContext  # all that is durable
    head: CallContext  # and what waits to be; its facts may be old
    size: int  # of what services wrote, in bytes: at least what it really is
    started: int  # the change by which it was told
    is_anchored: bool  # its beginning is in the journal, so that it is found again after a crash
    waiting: int = 0  # writes
    keys: dict[Key, Kept] = field(default_factory=dict)
    base: CallContext | None = None  # as the agent knows it to stand in the shared store
    log: Sequence[Logged] = ()  # as it was when the agent started; until there is a base
    recall: Recall | None = None  # to be kept before anything else is
    ended_at: datetime | None = None
    has_row: bool = False
    told: int = 0  # the latest operation that is in the row

    def remember(self, key: Key, kept: Kept) -> None:
        """What came of a write, for whoever sends it again."""
        self.keys[key] = kept
        if len(self.keys) > _REMEMBERED_KEYS:
            del self.keys[next(iter(self.keys))]


def latest_operation(entry: Entry) -> int:
    """The latest one that is shown."""
    return entry.shown.operation or 0


def entry_of(facts: CallContext, logged: Sequence[Logged]) -> Entry:
    """A call with the operations on it that are kept."""
    context = reduce(lambda so_far, each: apply(so_far, each.operation, each.at), logged, facts)
    if logged:
        revision = max(facts.revision, logged[-1].revision + REVISION_LEAP)
        context = context.model_copy(update={"operation": logged[-1].number, "revision": revision})
    else:
        context = stepped(context).model_copy(update={"operation": 0})
    keys: dict[Key, list[Operation]] = {}
    for each in logged:
        if each.idempotency_key is not None and not isinstance(each.operation, Recall):
            keys.setdefault((each.service, each.idempotency_key), []).append(each.operation)
    size = size_of(context) if logged else 0
    entry = Entry(context, context, size=size, started=0, is_anchored=bool(logged), log=logged)
    for key, operations in keys.items():
        kept: Kept = asyncio.get_running_loop().create_future()
        kept.set_result(operations)
        entry.remember(key, kept)
    return entry


def as_it_was(logged: Sequence[Logged], mine: CallContext, stored: CallContext) -> CallContext | None:
    """What the agent had put into the store when it last wrote there, before it was started again."""
    if logged and stored.operation is None:
        return None  # somebody left the mark out
    done = [
        each
        for each in logged
        if each.number <= (stored.operation or 0)
        or (isinstance(each.operation, TakeOver) and each.operation.revision <= stored.revision)
    ]
    empty = mine.model_copy(
        update={"task_stack": [], "tasks_done": [], "interaction_history": [], "variables": {}, "transcript": None}
    )
    for name in list(empty.model_extra or {}):
        (empty.model_extra or {}).pop(name)
    base = reduce(lambda so_far, each: apply(so_far, each.operation, each.at), done, empty)
    return base.model_copy(update={"revision": 0, "operation": None})  # of the store's, nothing is older than it


def stepped(context: CallContext) -> CallContext:
    """The context with the next revision."""
    return context.model_copy(update={"revision": context.revision + 1})
