"""What others changed in a shared store: found by comparing what stands there with what the agent wrote last."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any

import orjson

from agent.calls.context import CallContext, TaskState
from agent.calls.operations import TakeOver


def named(context: CallContext) -> CallContext:
    """The same with an id for every task and interaction that has none: by its place, so that it is always the same."""
    sid = context.call_sid
    return context.model_copy(
        update={
            "task_stack": [_named_task(task, sid, place) for place, task in enumerate(context.task_stack)],
            "interaction_history": [
                entry if isinstance(entry.get("id"), str) else {**entry, "id": _derived(sid, place, entry)}
                for place, entry in enumerate(context.interaction_history)
            ],
        }
    )


def difference(base: CallContext | None, theirs: CallContext, mine: CallContext) -> TakeOver:
    """What others did to `base`, which gave `theirs`, and `mine` does not know yet.

    Without a base (an old copy came back, or nobody knows what it was) only what is new is found: nothing is taken
    away from `mine` and nothing in it is changed. What was said is only ever added.
    """
    known = {entry.get("id") for entry in mine.interaction_history}
    new = {entry["id"]: entry for entry in reversed(theirs.interaction_history) if entry["id"] not in known}
    interactions = [entry for entry in theirs.interaction_history if new.get(entry["id"]) is entry]
    pushed, updated, popped = _tasks(base, theirs, mine)
    is_told = theirs.transcript is not None and theirs.transcript != (base or mine).transcript
    return TakeOver(
        revision=theirs.revision,
        patch=_patch(base, theirs, mine),
        pushed=_dumped(pushed),
        updated=_dumped(updated),
        popped=popped,
        interactions=interactions,
        transcript=theirs.transcript if is_told and (base is not None or mine.transcript is None) else None,
    )


def _tasks(
    base: CallContext | None, theirs: CallContext, mine: CallContext
) -> tuple[list[TaskState], list[TaskState], list[str]]:
    known = {task.id for task in (*mine.task_stack, *mine.tasks_done)}
    before = {task.id: task for task in base.task_stack} if base is not None else {}
    now = {task.id: task for task in theirs.task_stack}
    pushed = [task for name, task in now.items() if name not in before and name not in known]
    updated = [task for name, task in now.items() if name in before and task != before[name]]
    return pushed, updated, [name for name in before if name is not None and name not in now]


def _patch(base: CallContext | None, theirs: CallContext, mine: CallContext) -> dict[str, Any]:
    others = theirs.model_extra or {}
    if base is None:
        own = mine.model_extra or {}
        patch = {name: value for name, value in others.items() if name not in own}
        variables = {name: value for name, value in theirs.variables.items() if name not in mine.variables}
    else:
        patch = patch_between(base.model_extra or {}, others)
        variables = patch_between(base.variables, theirs.variables)
    return {**patch, "variables": variables} if variables else patch


def patch_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    """The JSON merge patch (RFC 7396) that makes `after` of `before`."""
    patch: dict[str, Any] = {name: None for name in before if name not in after}
    for name, value in after.items():
        old = before.get(name)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := patch_between(old, value):
                patch[name] = inner
        elif value != old:
            patch[name] = value
    return patch


def _dumped(tasks: Iterable[TaskState]) -> list[dict[str, Any]]:
    return [task.model_dump(mode="json") for task in tasks]


def _named_task(task: TaskState, sid: str, place: int) -> TaskState:
    if task.id is not None:
        return task
    about = {"task_name": task.task_name, "start_time": task.start_time.isoformat()}
    return task.model_copy(update={"id": _derived(sid, place, about)})


def _derived(sid: str, place: int, content: Mapping[str, Any]) -> str:
    # Integers beyond 64 bits and the like: what cannot be printed cannot be kept either, and is refused later.
    text = orjson.dumps([sid, place, content], default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    return blake2b(text, digest_size=12).hexdigest()
