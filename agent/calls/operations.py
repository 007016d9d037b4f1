"""What services write into a call's context: as values that are kept, and applied in order.

A service's wish is first prepared (`agent.calls.wishes`): checked, and given ids and moments. What comes of that is
kept and applied. To apply an operation twice is to apply it once, so whatever was kept may be applied again, also to a
context that holds it already.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, get_args

import orjson

from agent.calls.context import TRACKER_FIELDS, CallContext, TaskState
from agent.calls.history import History

Json = Mapping[str, Any]  # Any: JSON

# Who may not be patched: the tracker's, the agent's own, and lists that have operations of their own.
_LISTS: Final = frozenset({"task_stack", "tasks_done", "interaction_history", "transcript"})
NOT_PATCHED: Final = TRACKER_FIELDS | _LISTS | {"revision", "operation", "last_interaction_time"}
UTTERANCE: Final = "utterance"
TOP: Final = "top"  # in place of a task's id: the one on top


@dataclass(frozen=True, slots=True)
class Patch:
    """A JSON merge patch (RFC 7396) of `variables` and of members that this version does not know."""

    changes: Json


@dataclass(frozen=True, slots=True)
class PushTask:
    """Put a task on top of the stack: its `task_name`, `state_data`, `start_time`, `id` and what else it has."""

    task: Json


@dataclass(frozen=True, slots=True)
class UpdateTask:
    """Change a task, wherever it stands: `state_data` as a merge patch, other members by their value."""

    id: str
    changes: Json


@dataclass(frozen=True, slots=True)
class PopTask:
    """Take a task from the stack, wherever it stands; it stays among `tasks_done`."""

    id: str


@dataclass(frozen=True, slots=True)
class AppendInteractions:
    """Note what was said or done."""

    interactions: Sequence[Json]


@dataclass(frozen=True, slots=True)
class SetTranscript:
    """Say what the transcript is; None: what was said is it."""

    transcript: Sequence[Json] | None


@dataclass(frozen=True, slots=True)
class TakeOver:
    """What somebody changed in a shared store past the agent; `revision` is the store's, with the change."""

    revision: int
    patch: Json = field(default_factory=dict)
    pushed: Sequence[Json] = ()
    updated: Sequence[Json] = ()  # whole tasks
    popped: Sequence[str] = ()
    interactions: Sequence[Json] = ()
    transcript: Sequence[Json] | None = None

    def __bool__(self) -> bool:
        return bool(
            self.patch or self.pushed or self.updated or self.popped or self.interactions or self.transcript is not None
        )


@dataclass(frozen=True, slots=True)
class Recall:
    """All that is known of an ended call's services, so that what is written later can be added to it."""

    tasks: Sequence[Json]
    interactions: Sequence[Json]
    transcript: Sequence[Json] | None
    open_tasks: Sequence[Json] = ()
    others: Json = field(default_factory=dict)


Operation = Patch | PushTask | UpdateTask | PopTask | AppendInteractions | SetTranscript | TakeOver | Recall
_BY_KIND: Final[dict[str, type[Operation]]] = {kind.__name__: kind for kind in get_args(Operation)}


@dataclass(frozen=True, slots=True)
class Logged:
    """An operation as it is kept. Numbers grow, over all calls."""

    number: int
    call_sid: str
    operation: Operation
    service: str
    at: datetime
    revision: int  # of the context, at least, when it was kept
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What the local database knows of a call that is not live: its facts, and either the operations that are kept
    or, once they are deleted, what came of them."""

    facts: CallContext
    operations: Sequence[Logged]
    recall: Recall


def kind_of(operation: Operation) -> str:
    """The word by which an operation is kept."""
    return type(operation).__name__


def to_json(operation: Operation) -> bytes:
    """Its content. Raises TypeError for what JSON cannot hold."""
    return orjson.dumps({name: getattr(operation, name) for name in operation.__dataclass_fields__})


def from_json(kind: str, content: bytes | str) -> Operation:
    """What `to_json` wrote."""
    return _BY_KIND[kind](**orjson.loads(content))


def apply(context: CallContext, operation: Operation, at: datetime) -> CallContext:
    """The context with a prepared operation done; the same one if it holds it already."""
    changes = _changes(context, operation)
    if not changes:
        return context
    removed = [name for name, value in changes.items() if value is _REMOVED]
    kept = {name: value for name, value in changes.items() if value is not _REMOVED}
    changed = context.model_copy(update={**kept, "last_interaction_time": max(at, context.last_interaction_time)})
    for name in removed:
        (changed.model_extra or {}).pop(name, None)
    return changed


def merge_patch(target: Any, patch: Any) -> Any:  # Any: JSON
    """RFC 7396: what becomes of `target`, which stays as it is."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def find_task(context: CallContext, task_id: str) -> TaskState | None:
    """The task on the stack that bears the id."""
    return next((task for task in context.task_stack if task.id == task_id), None)


def told_tasks(context: CallContext) -> list[TaskState]:
    """Every task of the call, in the order they were begun."""
    return sorted([*context.tasks_done, *context.task_stack], key=lambda task: task.start_time)


def told_transcript(context: CallContext) -> list[dict[str, Any]]:  # Any: JSON
    """The service's own; else what was said, in order of time."""
    if context.transcript is not None:
        return context.transcript
    said = [entry for entry in context.interaction_history if entry.get("type", UTTERANCE) == UTTERANCE]
    return sorted(said, key=_when_said)


_REMOVED: Final = object()


def _changes(context: CallContext, operation: Operation) -> dict[str, Any]:  # noqa: PLR0911 - one for each kind
    match operation:
        case Patch():
            return _patched(context, operation.changes)
        case PushTask():
            return _pushed(context, [operation.task])
        case UpdateTask():
            return _updated(context, operation)
        case PopTask():
            return _popped(context, {operation.id})
        case AppendInteractions():
            return _appended(context, operation.interactions)
        case SetTranscript():
            same = context.transcript == operation.transcript
            return {} if same else {"transcript": _listed(operation.transcript)}
        case TakeOver():
            return _taken_over(context, operation)
        case Recall():
            return _recalled(context, operation)


def _patched(context: CallContext, patch: Json) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    extra = context.model_extra or {}
    for name, value in patch.items():
        if name == "variables":
            variables = merge_patch(context.variables, value) if value is not None else {}
            if variables != context.variables:
                changes[name] = variables
        elif value is None:
            if name in extra:
                changes[name] = _REMOVED
        elif name not in extra or (merged := merge_patch(extra[name], value)) != extra[name]:
            changes[name] = merge_patch(None, value) if name not in extra else merged
    return changes


def _pushed(context: CallContext, tasks: Iterable[Json]) -> dict[str, Any]:
    known = {task.id for task in (*context.task_stack, *context.tasks_done)}
    new = [TaskState.model_validate(task) for task in tasks if task["id"] not in known]
    return {"task_stack": [*context.task_stack, *new]} if new else {}


def _updated(context: CallContext, operation: UpdateTask) -> dict[str, Any]:
    changes = dict(operation.changes)
    for name in ("task_stack", "tasks_done"):
        tasks: list[TaskState] = list(getattr(context, name))
        for place, task in enumerate(tasks):
            if task.id == operation.id:
                if "state_data" in changes:
                    changes["state_data"] = merge_patch(task.state_data, changes["state_data"])
                tasks[place] = task.model_copy(update=changes)
                return {name: tasks} if tasks[place] != task else {}
    return {}


def _popped(context: CallContext, ids: set[str]) -> dict[str, Any]:
    gone = [task for task in context.task_stack if task.id in ids]
    if not gone:
        return {}
    stay = [task for task in context.task_stack if task.id not in ids]
    return {"task_stack": stay, "tasks_done": [*context.tasks_done, *gone]}


def _appended(context: CallContext, interactions: Sequence[Json]) -> dict[str, Any]:
    history = context.interaction_history
    history = history if isinstance(history, History) else History(history)
    new = [dict(entry) for entry in interactions if not history.holds(entry["id"])]
    return {"interaction_history": history.grown(new)} if new else {}


def _taken_over(context: CallContext, operation: TakeOver) -> dict[str, Any]:
    changes = _patched(context, operation.patch) | _appended(context, operation.interactions)
    stack = _pushed(context, operation.pushed).get("task_stack", context.task_stack)
    whole = {task["id"]: TaskState.model_validate(task) for task in operation.updated}
    stack = [whole.get(task.id or "", task) for task in stack]
    gone = [task for task in stack if task.id in operation.popped]
    if stack != context.task_stack or gone:
        changes["task_stack"] = [task for task in stack if task not in gone]
    if gone:
        changes["tasks_done"] = [*context.tasks_done, *gone]
    if operation.transcript is not None and operation.transcript != context.transcript:
        changes["transcript"] = _listed(operation.transcript)
    return changes


def _recalled(context: CallContext, operation: Recall) -> dict[str, Any]:
    if context.task_stack or context.tasks_done or context.interaction_history:
        return {}  # it is known already
    changes: dict[str, Any] = {**operation.others}
    if operation.tasks:
        changes["tasks_done"] = [TaskState.model_validate(task) for task in operation.tasks]
    if operation.open_tasks:
        changes["task_stack"] = [TaskState.model_validate(task) for task in operation.open_tasks]
    if operation.interactions:
        changes["interaction_history"] = _listed(operation.interactions)
    if operation.transcript is not None:
        changes["transcript"] = _listed(operation.transcript)
    return changes


def _listed(entries: Sequence[Json] | None) -> list[dict[str, Any]] | None:
    return None if entries is None else [dict(entry) for entry in entries]


def _when_said(entry: Json) -> str:
    """Moments of one form sort as text."""
    return str(entry.get("started_at") or entry.get("received_at") or "")
