"""The product's own connector on the simulated PBX: nothing is lost on a good line, little on a bad one."""

import asyncio

from agent.simulator.scenarios import plan_call
from agent.simulator.server import Simulator
from agent.simulator.truth import SimulatedCall
from sync.models import Status
from tests.integration.simulator.lines import ACCOUNT, Listener, listening
from tests.unit.simulator.played import differences


async def test_every_call_on_a_good_line_is_told_as_it_was() -> None:
    async with Simulator(account=ACCOUNT, rate=0, pace=0.002) as simulator, listening(simulator) as (listener, _):
        for seed in range(150):
            simulator.place(plan_call(("inbound_answered", "queue_answered", "outbound_busy")[seed % 3], seed))
        await simulator.wait_ended(150)
        await listener.wait_rows(150)

        _assert_true(simulator.ended, listener)


async def test_a_restart_closes_its_calls_and_the_next_ones_are_heard() -> None:
    async with Simulator(account=ACCOUNT, pace=1.0) as simulator, listening(simulator) as (listener, connector):
        for name in ("inbound_no_answer", "queue_abandoned", "outbound_answered"):
            simulator.place(plan_call(name, 2))
        await simulator.wait_live(3)

        await simulator.restart(farewell_seconds=0.01, down_seconds=0.01, boot_seconds=0.01)
        await simulator.wait_logins(2)
        simulator.place(plan_call("internal_busy", 1))
        await simulator.wait_ended(4)
        await listener.wait_rows(4)

        assert connector.status.reconnects == 1
        assert {listener.rows[call.native_id]["status"] for call in simulator.ended} == {Status.FAILED}


async def test_calls_that_end_while_the_line_is_down_are_closed_from_the_list_of_channels() -> None:
    async with Simulator(account=ACCOUNT, pace=0.005) as simulator, listening(simulator) as (listener, _):
        simulator.place(plan_call("inbound_answered", 1))
        await simulator.wait_live()

        await asyncio.gather(simulator.go_away(0.5), simulator.wait_ended(1))
        await listener.wait_rows(1)

        [row] = listener.rows.values()
        assert row["end_estimated"]


async def test_a_killed_pbx_leaves_calls_that_are_closed_by_estimate() -> None:
    async with Simulator(account=ACCOUNT, pace=1.0) as simulator, listening(simulator) as (listener, _):
        simulator.place(plan_call("inbound_no_answer", 1))
        await simulator.wait_live()
        await listener.wait_live()

        await simulator.kill(down_seconds=0.01, boot_seconds=0.01)
        await listener.wait_rows(1)

        [row] = listener.rows.values()
        assert row["end_estimated"]
        assert row["call_sid"] == simulator.ended[0].call_sid("here", "sim")


async def test_a_line_that_died_without_a_word_is_noticed_and_made_again() -> None:
    async with (
        Simulator(account=ACCOUNT, pace=0.002) as simulator,
        listening(simulator, ping_seconds=1.0, pong_timeout_seconds=0.1) as (listener, connector),
    ):
        simulator.half_open()
        await simulator.wait_logins(2)
        simulator.place(plan_call("internal_busy", 1))
        await listener.wait_rows(1)

        assert connector.status.reconnects == 1


def _assert_true(truths: list[SimulatedCall], listener: Listener) -> None:
    assert {call.native_id for call in truths} == set(listener.rows)
    wrong = {call.native_id: differences(call, listener.rows[call.native_id]) for call in truths}
    assert {native_id: found for native_id, found in wrong.items() if found} == {}
