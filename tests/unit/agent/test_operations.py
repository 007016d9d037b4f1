"""What services write, applied to a context: nothing is lost, nothing is doubled, everybody's order is kept."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.context import CallContext, CallState, with_facts
from agent.calls.operations import (
    TOP,
    AppendInteractions,
    Operation,
    Patch,
    PopTask,
    PushTask,
    Recall,
    SetTranscript,
    TakeOver,
    UpdateTask,
    apply,
    from_json,
    kind_of,
    merge_patch,
    to_json,
    told_tasks,
    told_transcript,
)
from agent.calls.wishes import MAX_DEPTH, Limits, Wishing, prepare
from agent.errors import OperationRefused, TaskUnknown, TooLarge
from tests.unit.live.contexts import START, facts

SMALL = Limits(max_interactions=3, max_tasks=2, max_value_bytes=400, max_context_bytes=65_536, max_transcript_bytes=900)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from("ab"), inner, max_size=2)


plain = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "ş", "two words"])
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=2) | objects(inner), max_leaves=4)
wishes: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Patch, st.fixed_dictionaries({}, optional={"crm": values, "variables": objects(values)})),
    st.builds(
        PushTask, st.fixed_dictionaries({"task_name": st.just("book")}, optional={"state_data": objects(values)})
    ),
    st.builds(UpdateTask, st.just(TOP), st.fixed_dictionaries({"state_data": objects(values)})),
    st.builds(PopTask, st.just(TOP)),
    st.builds(AppendInteractions, st.lists(st.fixed_dictionaries({"text": st.just("hello")}), min_size=1, max_size=2)),
    st.builds(SetTranscript, st.none() | st.lists(st.fixed_dictionaries({"text": st.just("hi")}), max_size=2)),
)


def wishing(service: str = "speech", *, number: int = 0, limits: Limits | None = None) -> Wishing:
    ids = count()
    return Wishing(
        service=service,
        at=START + timedelta(seconds=number),
        new_id=lambda: f"{service}-{number}-{next(ids)}",
        limits=limits or Limits(),
    )


def prepared(context: CallContext, asked: Sequence[Operation]) -> list[Operation]:
    """What is kept of these; a wish that is refused is none."""
    kept: list[Operation] = []
    for number, wish in enumerate(asked):
        try:
            operation = prepare(wish, context, wishing(number=number))
        except TaskUnknown:
            continue
        context = apply(context, operation, START)
        kept.append(operation)
    return kept


def done(context: CallContext, operations: Sequence[Operation]) -> CallContext:
    for operation in operations:
        context = apply(context, operation, START)
    return context


@given(st.lists(wishes, max_size=12), st.data())
def test_what_was_kept_may_be_applied_again_at_any_point_and_changes_nothing(
    asked: list[Operation], data: st.DataObject
) -> None:
    operations = prepared(facts(), asked)
    once = done(facts(), operations)
    assert done(once, operations) == once
    again = data.draw(st.integers(0, len(operations)))
    assert done(done(facts(), operations[:again]), operations) == once


@given(st.lists(wishes, max_size=8))
def test_an_operation_is_read_back_as_it_was_kept(asked: list[Operation]) -> None:
    for operation in prepared(facts(), asked):
        assert from_json(kind_of(operation), to_json(operation)) == operation


@given(order=st.lists(st.sampled_from(["tracker", "speech", "dialogue", "crm"]), max_size=30))
def test_no_order_of_tracker_and_services_loses_anything_or_mixes_up_what_one_of_them_said(order: list[str]) -> None:
    states, context, written = [CallState.RINGING, CallState.ANSWERED, CallState.HELD], facts(), dict[str, list[str]]()
    told = facts()
    for number, who in enumerate(order):
        if who == "tracker":
            told = facts(state=states[number % 3], caller_name=f"name {number}")
            context = with_facts(context, told, at=context.last_interaction_time)
            continue
        text = f"{who} {number}"
        for wish in (
            AppendInteractions([{"text": text}]),
            PushTask({"task_name": text}),
            Patch({"variables": {text: 1}, who: {"last": number}}),
        ):
            context = apply(context, prepare(wish, context, wishing(who, number=number)), START)
        written.setdefault(who, []).append(text)
    said = [(entry["service"], entry["text"]) for entry in context.interaction_history]
    for who, texts in written.items():
        assert [text for service, text in said if service == who] == texts
        assert (context.model_extra or {})[who] == {"last": int(texts[-1].split()[1])}
    everything = [text for _, text in said]
    assert sorted(everything) == sorted(text for texts in written.values() for text in texts)
    assert [task.task_name for task in context.task_stack] == everything
    assert context.variables == dict.fromkeys(everything, 1)
    assert (context.state, context.caller_name) == (told.state, told.caller_name)


def test_a_popped_task_stays_among_those_that_were_done_and_all_are_told_in_the_order_they_were_begun() -> None:
    context = facts()
    for number, name in enumerate(["greet", "book", "pay"]):
        context = apply(context, prepare(PushTask({"task_name": name}), context, wishing(number=number)), START)
    context = apply(context, prepare(PopTask("speech-1-0"), context, wishing()), START)
    assert [task.task_name for task in context.task_stack] == ["greet", "pay"]
    assert [task.task_name for task in told_tasks(context)] == ["greet", "book", "pay"]
    with pytest.raises(TaskUnknown):
        prepare(PopTask("speech-1-0"), context, wishing())


def test_a_tasks_data_is_merged_and_its_name_replaced() -> None:
    pushed = prepare(PushTask({"task_name": "book", "state_data": {"day": 1, "who": "Ayşe"}}), facts(), wishing())
    context = apply(facts(), pushed, START)
    change = prepare(
        UpdateTask(TOP, {"state_data": {"day": 2, "who": None}, "task_name": "booked"}), context, wishing()
    )
    (task,) = apply(context, change, START).task_stack
    assert (task.task_name, task.state_data) == ("booked", {"day": 2})


def test_what_was_said_is_the_transcript_in_order_of_time_unless_a_service_tells_its_own() -> None:
    said = [
        {"text": "second", "started_at": "2026-11-22T12:00:02+03:00"},
        {"type": "tool_call", "tool": "crm"},
        {"text": "first", "started_at": "2026-11-22T09:00:01Z"},
    ]
    context = apply(facts(), prepare(AppendInteractions(said), facts(), wishing()), START)
    assert [entry["text"] for entry in told_transcript(context)] == ["first", "second"]
    own = prepare(SetTranscript([{"text": "all of it"}]), context, wishing())
    assert [entry["text"] for entry in told_transcript(apply(context, own, START))] == ["all of it"]


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        (Patch({"state": "ended"}), "state"),
        (Patch({"interaction_history": []}), "interaction_history"),
        (Patch({"variables": 5}), "variables"),
        (Patch([]), "patch"),  # type: ignore[arg-type]  # what a client may send
        (PushTask({}), "task_name"),
        (PushTask({"task_name": "x", "state_data": []}), "state_data"),
        (PushTask({"task_name": "x", "id": "top"}), "id"),
        (PushTask({"task_name": "x", "start_time": "9999-12-31T23:59:59-12:00"}), "start_time"),
        (AppendInteractions([{"text": "ok"}, {"confidence": "high"}]), "interactions.1.confidence"),
        (AppendInteractions([{"started_at": "yesterday"}]), "interactions.0.started_at"),
        (AppendInteractions([{"id": "a"}, {"id": "a"}]), "interactions.1.id"),
        (AppendInteractions([{"text": "half \ud800"}]), "interactions.0"),
        (AppendInteractions([{"sentiment": 2**70}]), "interactions.0"),
        (SetTranscript([7]), "transcript.0"),  # type: ignore[list-item]  # what a client may send
    ],
)
def test_a_wrong_wish_is_refused_by_the_name_of_its_field(wish: Operation, field: str) -> None:
    with pytest.raises(OperationRefused) as caught:
        prepare(wish, facts(), wishing())
    assert caught.value.field == field


def test_what_is_nested_too_deep_to_be_read_back_is_refused() -> None:
    value: Any = 1
    for _ in range(MAX_DEPTH):
        value = [value]
    with pytest.raises(OperationRefused, match="nested deeper"):
        prepare(Patch({"crm": value}), facts(), wishing())


@pytest.mark.parametrize(
    ("wish", "bound"),
    [
        (AppendInteractions([{"text": "x"}] * 4), "max_interactions"),
        (AppendInteractions([{"text": "x" * 400}]), "max_value_bytes"),
        (Patch({"variables": {"x": "x" * 400}}), "max_value_bytes"),
        (PushTask({"task_name": "x", "state_data": {"x": "x" * 400}}), "max_value_bytes"),
        (SetTranscript([{"text": "x" * 190}] * 3), "max_transcript_bytes"),
    ],
)
def test_what_is_too_large_is_refused_by_the_name_of_the_bound(wish: Operation, bound: str) -> None:
    with pytest.raises(TooLarge, match=f"live.{bound} = ") as caught:
        prepare(wish, facts(), wishing(limits=SMALL))
    assert caught.value.bound == bound


def test_a_stack_grows_no_deeper_than_it_may() -> None:
    context = facts()
    for number in range(2):
        task = PushTask({"task_name": "x"})
        context = apply(context, prepare(task, context, wishing(number=number, limits=SMALL)), START)
    with pytest.raises(TooLarge, match="max_tasks = 2"):
        prepare(PushTask({"task_name": "x"}), context, wishing(number=2, limits=SMALL))


@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_is_that_of_rfc_7396(target: Any, patch: Any, merged: Any) -> None:
    assert merge_patch(target, patch) == merged


def test_a_recalled_call_and_a_change_past_the_agent_are_applied_once_too() -> None:
    task = {"id": "t", "task_name": "book", "state_data": {}, "start_time": START.isoformat()}
    recall = Recall(tasks=[task], interactions=[{"id": "i", "text": "hello"}], transcript=None)
    change = TakeOver(revision=3, pushed=[{**task, "id": "u"}], interactions=[{"id": "j"}], patch={"crm": 1})
    once = done(facts(), [recall, change])
    assert done(once, [recall, change]) == once
    assert [task.id for task in told_tasks(once)] == ["t", "u"]
