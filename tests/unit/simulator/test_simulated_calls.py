"""Calls come from a seed, and the product understands each as it was."""

from collections import Counter
from itertools import islice

import pytest

from agent.calls.span import span_of
from agent.calls.traces import minted_trace_id, parse_traceparent
from agent.simulator.exchange import Exchange
from agent.simulator.playing import PlayedCall
from agent.simulator.scenarios import SCENARIOS, plan_call, plan_calls, traced
from agent.simulator.truth import Cut, SimulatedCall
from sync.models import Direction, Disposition, Status
from tests.unit.simulator.played import START_US, differences, new_exchange, play, play_on, rows_of

NAMES = [scenario.name for scenario in SCENARIOS]


def test_the_same_seed_makes_the_same_calls_and_the_same_bytes() -> None:
    first, second = (play(islice(plan_calls(7), 40)) for _ in range(2))

    assert first.stream == second.stream
    assert first.truths == second.truths


def test_another_seed_makes_other_calls() -> None:
    assert list(islice(plan_calls(7), 40)) != list(islice(plan_calls(8), 40))


@pytest.mark.parametrize("name", NAMES)
def test_the_product_tells_every_kind_of_call_as_it_was(name: str) -> None:
    played = play(plan_call(name, seed) for seed in range(12))

    rows = rows_of(played.events)

    assert len(played.truths) == len(rows) == 12
    for truth in played.truths:
        assert differences(truth, rows[truth.native_id]) == {}


def test_what_comes_from_outside_may_bring_a_trace_and_is_told_to_be_part_of_it() -> None:
    played = play(traced(islice(plan_calls(7), 60), 7))

    rows = rows_of(played.events)

    found = {truth.native_id: parse_traceparent(truth.traceparent) for truth in played.truths if truth.traceparent}
    assert len(found) == sum(truth.direction is Direction.INBOUND for truth in played.truths) > 20
    assert {parent.sampled for parent in found.values() if parent} == {True, False}
    for native_id, row in rows.items():
        parent = found.get(native_id)
        assert row["trace_id"] == (parent.trace_id if parent else minted_trace_id(row["call_sid"]))
        assert span_of(row, None).get("parentSpanId") == (parent.span_id if parent else None)


def test_the_product_keeps_three_hundred_mixed_calls_apart() -> None:
    played = play(islice(plan_calls(11), 300), apart_seconds=0.05)

    rows = rows_of(played.events)

    assert {truth.native_id for truth in played.truths} == set(rows)
    assert {truth.native_id: differences(truth, rows[truth.native_id]) for truth in played.truths} == {
        native_id: {} for native_id in rows
    }


@pytest.mark.parametrize(
    ("name", "status", "disposition"),
    [
        ("inbound_answered", Status.COMPLETED, Disposition.ANSWERED),
        ("inbound_no_answer", Status.FAILED, Disposition.NO_ANSWER),
        ("inbound_busy", Status.FAILED, Disposition.BUSY),
        ("inbound_declined", Status.FAILED, Disposition.FAILED),
        ("inbound_congestion", Status.FAILED, Disposition.CONGESTION),
        ("inbound_unreachable", Status.FAILED, Disposition.FAILED),
        ("inbound_cancelled", Status.ABANDONED, Disposition.CANCELLED),
        ("group_no_answer", Status.FAILED, Disposition.NO_ANSWER),
        ("queue_answered", Status.COMPLETED, Disposition.ANSWERED),
        ("queue_abandoned", Status.ABANDONED, Disposition.CANCELLED),
        ("queue_timeout", Status.FAILED, Disposition.NO_ANSWER),
        ("menu_abandoned", Status.ABANDONED, Disposition.CANCELLED),
        ("outbound_failed", Status.FAILED, Disposition.FAILED),
    ],
)
def test_truth_follows_the_table_of_outcomes(name: str, status: Status, disposition: Disposition) -> None:
    truth = _truth_of(name)

    assert (truth.scenario, truth.status, truth.disposition) == (name, status, disposition)


def test_an_answered_call_says_who_answered_when_and_how_long_they_talked() -> None:
    truth = _truth_of("queue_answered")

    assert truth.direction is Direction.INBOUND
    assert truth.queue is not None
    assert truth.answered_by is not None
    assert truth.answer_time is not None
    assert truth.pbx_answer_time is not None
    assert truth.start_time < truth.pbx_answer_time < truth.answer_time < truth.end_time
    assert truth.talk_seconds == pytest.approx((truth.end_time - truth.answer_time).total_seconds(), abs=0.01)


def test_a_mix_holds_both_tenants_every_direction_and_every_outcome() -> None:
    truths = play(islice(plan_calls(3), 400)).truths

    assert {truth.tenant for truth in truths} == {"acme", "globex"}
    assert {truth.direction for truth in truths} == set(Direction)
    assert {truth.disposition for truth in truths} == set(Disposition) - {Disposition.VOICEMAIL}
    answered = Counter(truth.status for truth in truths)[Status.COMPLETED]
    assert 0.5 < answered / len(truths) < 0.85


def test_callers_have_turkish_names_plus_numbers_and_sometimes_none() -> None:
    truths = play(islice(plan_calls(5), 400)).truths

    callers = {(truth.caller, truth.caller_name) for truth in truths}
    assert ("anonymous", "Anonymous") in callers
    assert any(caller.startswith("+") for caller, _ in callers if caller)
    assert {"Ayşe Yılmaz", "İBRAHİM ÖZTÜRK ÇAĞLAR", None} <= {name for _, name in callers}
    assert any(truth.callee.startswith("+") for truth in truths if truth.direction is Direction.INBOUND)


def test_pace_shortens_every_length_of_time_and_nothing_else() -> None:
    plan = plan_call("inbound_answered", 1)

    [slow] = play([plan]).truths
    [fast] = play([plan], pace=0.01).truths

    assert fast.talk_seconds == pytest.approx(slow.talk_seconds / 100, abs=0.01)
    assert (fast.caller, fast.callee, fast.status) == (slow.caller, slow.callee, slow.status)


@pytest.mark.parametrize("name", NAMES)
def test_a_restart_hangs_up_every_channel_and_the_product_ends_the_call(name: str) -> None:
    for after_us in (0, 3_000, 300_000, 900_000, 4_000_000, 20_000_000):
        exchange = _begun(name)
        events = play_on(exchange, until_us=START_US + after_us)
        was_cut = exchange.live_calls == 1

        events += exchange.cut_all(START_US + after_us, Cut.RESTART)

        [truth] = exchange.take_ended()
        assert exchange.channels == {}
        assert (truth.cut is Cut.RESTART) is was_cut
        assert differences(truth, rows_of(events)[truth.native_id]) == {}


def test_a_kill_says_nothing() -> None:
    exchange = _begun("inbound_answered")
    play_on(exchange, until_us=START_US + 300_000)

    assert exchange.cut_all(START_US + 400_000, Cut.KILL) == []

    [truth] = exchange.take_ended()
    assert truth.cut is Cut.KILL


def test_a_call_that_had_not_begun_when_the_pbx_stopped_never_was() -> None:
    exchange = _begun("inbound_answered")

    assert exchange.cut_all(START_US, Cut.RESTART) == []
    assert exchange.take_ended() == []


def test_callers_in_one_queue_have_their_places() -> None:
    exchange = new_exchange()
    plans = [plan for plan in (plan_call("queue_abandoned", seed) for seed in range(60)) if plan.queue == "acme-sales"]
    for plan in plans[:3]:
        exchange.begin(PlayedCall(exchange, plan), at_us=START_US)

    stream = b"".join(event.block for event in play_on(exchange) if event.name == "QueueCallerJoin")

    assert [line for line in stream.split(b"\r\n") if line.startswith(b"Position")] == [
        b"Position: 1",
        b"Position: 2",
        b"Position: 3",
    ]


def _truth_of(name: str) -> SimulatedCall:
    [truth] = play([plan_call(name, 4)]).truths
    return truth


def _begun(name: str) -> Exchange:
    exchange = new_exchange()
    exchange.begin(PlayedCall(exchange, plan_call(name, 2)), at_us=START_US)
    return exchange
