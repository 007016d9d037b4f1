"""What a service asks for becomes an operation that can be kept: checked, within bounds, with ids and moments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar, assert_never

import orjson
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from agent.calls.context import CallContext
from agent.calls.operations import (
    NOT_PATCHED,
    TOP,
    UTTERANCE,
    AppendInteractions,
    Json,
    Operation,
    Patch,
    PopTask,
    PushTask,
    Recall,
    SetTranscript,
    TakeOver,
    UpdateTask,
    find_task,
)
from agent.errors import OperationRefused, TaskUnknown, TooLarge

# What reads a context back gives up at some depth; no note of a service needs a tenth of this.
MAX_DEPTH: Final = 32
_MAX_NAME: Final = 255


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of what services write; settings [live]."""

    max_interactions: int = 10_000
    max_tasks: int = 64
    max_value_bytes: int = 64 * 1024
    max_context_bytes: int = 4 * 1024 * 1024
    max_transcript_bytes: int = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wishing:
    """Who wishes, when, and within what bounds."""

    service: str
    at: datetime
    new_id: Callable[[], str]
    limits: Limits = Limits()


def prepare(wish: Operation, context: CallContext, wishing: Wishing) -> Operation:  # noqa: PLR0911 - one for each kind
    """The operation to be kept. Raises OperationRefused, with the field at fault."""
    match wish:
        case Patch():
            return _patch(wish, wishing)
        case PushTask():
            return _push(wish, context, wishing)
        case UpdateTask():
            return _update(wish, context, wishing)
        case PopTask():
            return PopTask(_task_id(wish.id, context))
        case AppendInteractions():
            return _append(wish, context, wishing)
        case SetTranscript():
            return _transcript(wish, wishing)
        case TakeOver() | Recall():
            return wish
        case _:
            assert_never(wish)


def size_of(context: CallContext) -> int:
    """Bytes of JSON that services' part of a context takes."""
    own = {
        "task_stack": [task.model_dump(mode="json") for task in context.task_stack],
        "tasks_done": [task.model_dump(mode="json") for task in context.tasks_done],
        "interaction_history": context.interaction_history,
        "variables": context.variables,
        "transcript": context.transcript,
        "others": context.model_extra,
    }
    return len(orjson.dumps(own))


def check_counts(context: CallContext, limits: Limits) -> None:
    """Raise TooLarge if there are more tasks or interactions than may be."""
    if len(context.task_stack) > limits.max_tasks:
        raise TooLarge("task_stack", bound="max_tasks", limit=limits.max_tasks)
    if len(context.interaction_history) > limits.max_interactions:
        raise TooLarge("interactions", bound="max_interactions", limit=limits.max_interactions)


def check_size(context: CallContext, limits: Limits) -> int:
    """Bytes that the services' part takes. Raises TooLarge if they are too many."""
    size = size_of(context)
    if size > limits.max_context_bytes:
        raise TooLarge("context", bound="max_context_bytes", limit=limits.max_context_bytes)
    return size


class _Interaction(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: Annotated[str, Field(min_length=1, max_length=_MAX_NAME)] | None = None
    type: Annotated[str, Field(min_length=1, max_length=_MAX_NAME)] = UTTERANCE
    speaker: str | None = None
    text: str | None = None
    language: str | None = None
    tool: str | None = None
    confidence: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None


class _Task(BaseModel):
    model_config = ConfigDict(extra="allow")

    id: Annotated[str, Field(min_length=1, max_length=_MAX_NAME)] | None = None
    task_name: Annotated[str, Field(min_length=1, max_length=_MAX_NAME)]
    state_data: dict[str, Any] = Field(default_factory=dict)
    start_time: AwareDatetime | None = None


class _TaskChange(BaseModel):
    model_config = ConfigDict(extra="allow")

    task_name: Annotated[str, Field(min_length=1, max_length=_MAX_NAME)] = "unchanged"
    state_data: dict[str, Any] = Field(default_factory=dict)


_Model = TypeVar("_Model", bound=BaseModel)


def _patch(wish: Patch, wishing: Wishing) -> Patch:
    changes = _object(wish.changes, "patch")
    for name, value in changes.items():
        if name in NOT_PATCHED:
            raise OperationRefused(name, "this member is not a service's to patch")
        if name == "variables" and not isinstance(value, Mapping | None):
            raise OperationRefused(name, "an object is wanted")
    _check_value(changes, "patch", wishing.limits)
    return Patch(changes)


def _push(wish: PushTask, context: CallContext, wishing: Wishing) -> PushTask:
    given = _object(wish.task, "task")
    task = _validated(_Task, given, "")
    if task.id == TOP:
        raise OperationRefused("id", f"{TOP} stands for the task on top and is no id")
    begun = _moment_text(task.start_time, "start_time") if task.start_time is not None else _moment_text(wishing.at)
    prepared = {**given, "id": task.id or wishing.new_id(), "state_data": task.state_data, "start_time": begun}
    _check_value(prepared, "task", wishing.limits)
    if len(context.task_stack) >= wishing.limits.max_tasks and find_task(context, prepared["id"]) is None:
        raise TooLarge("task_stack", bound="max_tasks", limit=wishing.limits.max_tasks)
    return PushTask(prepared)


def _update(wish: UpdateTask, context: CallContext, wishing: Wishing) -> UpdateTask:
    changes = _object(wish.changes, "task")
    for name in ("id", "start_time"):
        if name in changes:
            raise OperationRefused(name, "this member of a task cannot be changed")
    _validated(_TaskChange, changes, "")
    _check_value(changes, "task", wishing.limits)
    return UpdateTask(_task_id(wish.id, context), changes)


def _append(wish: AppendInteractions, context: CallContext, wishing: Wishing) -> AppendInteractions:
    limits = wishing.limits
    if len(context.interaction_history) + len(wish.interactions) > limits.max_interactions:
        raise TooLarge("interactions", bound="max_interactions", limit=limits.max_interactions)
    prepared, ids = [], set()
    for number, given in enumerate(wish.interactions):
        entry = _entry(given, f"interactions.{number}", wishing)
        if entry["id"] in ids:
            raise OperationRefused(f"interactions.{number}.id", "it is another's in this list")
        ids.add(entry["id"])
        prepared.append(entry)
    return AppendInteractions(prepared)


def _transcript(wish: SetTranscript, wishing: Wishing) -> SetTranscript:
    if wish.transcript is None:
        return wish
    if len(wish.transcript) > wishing.limits.max_interactions:
        raise TooLarge("transcript", bound="max_interactions", limit=wishing.limits.max_interactions)
    entries = [_entry(given, f"transcript.{number}", wishing) for number, given in enumerate(wish.transcript)]
    limit = wishing.limits.max_transcript_bytes
    if sum(len(orjson.dumps(entry)) for entry in entries) > limit:
        raise TooLarge("transcript", bound="max_transcript_bytes", limit=limit)
    return SetTranscript(entries)


def _entry(given: Any, field: str, wishing: Wishing) -> dict[str, Any]:  # Any: JSON
    """One thing said or done; `service` and `received_at` are the agent's to tell."""
    entry = _object(given, field)
    told = _validated(_Interaction, entry, f"{field}.")
    prepared = {**entry, "id": told.id or wishing.new_id(), "type": told.type}
    for name in ("started_at", "ended_at"):
        moment = getattr(told, name)
        if moment is not None:
            prepared[name] = _moment_text(moment, f"{field}.{name}")
    prepared["service"] = wishing.service
    prepared["received_at"] = _moment_text(wishing.at)
    _check_value(prepared, field, wishing.limits)
    return prepared


def _task_id(given: str, context: CallContext) -> str:
    task = (context.task_stack[-1] if context.task_stack else None) if given == TOP else find_task(context, given)
    if task is None or task.id is None:
        raise TaskUnknown("id", "there is no such task on the stack")
    return task.id


def _object(value: Any, field: str) -> dict[str, Any]:  # Any: JSON
    if not isinstance(value, Mapping):
        raise OperationRefused(field, "an object is wanted")
    return dict(value)


def _validated(model: type[_Model], given: Json, prefix: str) -> _Model:
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        # The value itself is not repeated: it is what somebody said.
        first = exc.errors(include_url=False, include_context=False, include_input=False)[0]
        raise OperationRefused(prefix + ".".join(map(str, first["loc"])), first["msg"]) from None


def _check_value(value: Json, field: str, limits: Limits) -> None:
    if _is_deeper(value, MAX_DEPTH):
        raise OperationRefused(field, f"it is nested deeper than {MAX_DEPTH}")
    try:
        size = len(orjson.dumps(value))
    except TypeError:
        raise OperationRefused(field, "it holds what JSON cannot, or a number beyond 64 bits") from None
    if size > limits.max_value_bytes:
        raise TooLarge(field, bound="max_value_bytes", limit=limits.max_value_bytes)


def _is_deeper(value: Any, depth: int) -> bool:  # Any: JSON
    inner: Sequence[Any] = [value]
    for _ in range(depth):
        inner = [
            below
            for each in inner
            if isinstance(each, Mapping | list | tuple)
            for below in (each.values() if isinstance(each, Mapping) else each)
        ]
        if not inner:
            return False
    return True


def _moment_text(moment: datetime, field: str = "at") -> str:
    """One form for all, so that they sort as text."""
    try:
        return moment.astimezone(UTC).isoformat(timespec="microseconds")
    except OverflowError:
        raise OperationRefused(field, "no moment of this world") from None
