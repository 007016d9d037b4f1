"""The simulated PBX on a real socket, looked at by a plain AMI client."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import pytest

from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_call, plan_calls
from agent.simulator.server import Simulator
from agent.simulator.truth import Cut
from tests.integration.simulator.lines import ACCOUNT, Line, line_again

FAST = 0.002


@asynccontextmanager
async def _simulator(**wishes: Any) -> AsyncIterator[Simulator]:
    """Any: whatever the simulator takes."""
    wishes.setdefault("account", ACCOUNT)
    wishes.setdefault("pace", FAST)
    async with Simulator(**wishes) as simulator:
        yield simulator


async def test_a_call_is_told_from_its_first_channel_to_its_last() -> None:
    async with _simulator() as simulator:
        line = await Line.logged_in(simulator)
        await line.read_until("FullyBooted")

        simulator.place(plan_call("inbound_answered", 1))
        await simulator.wait_ended(1)
        await line.ask("Ping")

        [truth] = simulator.ended
        first, *_ = line.events("Newchannel")
        assert first["Uniqueid"] == truth.native_id
        assert float(first["Timestamp"]) == pytest.approx(truth.start_time.timestamp(), abs=1e-5)
        assert len(line.events("Hangup")) == 2


async def test_the_stamp_is_the_moment_of_sending() -> None:
    async with _simulator() as simulator:
        line = await Line.logged_in(simulator, events="call")
        before = time.time()

        simulator.place(plan_call("internal_busy", 1))
        message = await line.read_until("Newchannel")

        assert before - 0.01 <= float(message["Timestamp"]) <= time.time() + 0.01


async def test_a_pong_tells_the_clock_of_the_pbx() -> None:
    async with _simulator() as simulator:
        line = await Line.logged_in(simulator)

        answer = await line.ask("Ping")

        assert answer["Ping"] == "Pong"
        assert float(answer["Timestamp"]) == pytest.approx(time.time(), abs=0.5)


async def test_a_wrong_secret_waits_then_fails_then_closes() -> None:
    async with _simulator(refusal_seconds=0.02) as simulator:
        line = await Line.to(simulator)
        line.send("Login", Username="sentiric", Secret="wrong")

        assert (await line.read())["Message"] == "Authentication failed"
        assert await line.reader.read() == b""
        assert simulator.clients == 0


async def test_each_client_hears_what_it_asked_for() -> None:
    async with _simulator() as simulator:
        everything = await Line.logged_in(simulator)
        calls_only = await Line.logged_in(simulator, events="call")
        filtered = await Line.logged_in(simulator)
        await filtered.ask("Filter", Operation="Add", Filter="!Event: VarSet")
        nothing = await Line.logged_in(simulator, events="off")

        simulator.place(plan_call("queue_answered", 1))
        await simulator.wait_ended(1)
        lines = (everything, calls_only, filtered, nothing)
        for line in lines:
            await line.ask("Ping")

        names = [{message["Event"] for message in line.messages if "Event" in message} for line in lines]
        assert {"VarSet", "Newexten", "QueueCallerJoin", "Hangup", "Cdr"} <= names[0]
        assert names[1].isdisjoint({"VarSet", "Newexten", "QueueCallerJoin", "Cdr"})
        assert names[2] == names[0] - {"VarSet"}
        assert names[3] == set()


async def test_live_channels_are_listed_and_gone_ones_are_not() -> None:
    async with _simulator(pace=0.05) as simulator:
        line = await Line.logged_in(simulator, events="call")
        simulator.place(plan_call("inbound_answered", 1))
        await line.read_until("BridgeEnter")

        line.send("CoreShowChannels")
        live = await line.read_until("CoreShowChannelsComplete")
        await simulator.wait_ended(1)
        line.send("CoreShowChannels")
        ended = await line.read_until("CoreShowChannelsComplete")

        assert live["ListItems"] == "2"
        assert ended["ListItems"] == "0"


async def test_calls_come_at_their_rate_and_stop_at_their_number() -> None:
    async with _simulator(rate=200.0, calls=50, seed=3) as simulator:
        await simulator.wait_finished()

        assert simulator.placed == len(simulator.ended) == 50
        assert len({call.native_id for call in simulator.ended}) == 50


async def test_the_same_seed_brings_the_same_calls() -> None:
    told = []
    for _ in range(2):
        async with _simulator(rate=500.0, calls=30, seed=9) as simulator:
            await simulator.wait_finished()
            told.append(sorted((call.scenario, call.caller or "", call.callee) for call in simulator.ended))

    planned = sorted((plan.scenario, plan.caller, plan.dialled) for plan in islice(plan_calls(9), 30))
    assert told[0] == told[1] == planned


async def test_every_ended_call_is_told_to_whoever_wants_to_know() -> None:
    ended: list[str] = []
    async with _simulator(rate=500.0, calls=10, on_ended=lambda call: ended.append(call.native_id)) as simulator:
        await simulator.wait_finished()

    assert ended == [call.native_id for call in simulator.ended]


async def test_dropped_lines_can_be_made_again() -> None:
    async with _simulator() as simulator:
        line = await Line.logged_in(simulator)

        simulator.drop_lines()
        await line.read_to_the_end()
        again = await Line.logged_in(simulator)

        assert (await again.ask("Ping"))["Ping"] == "Pong"


async def test_a_stalled_line_says_everything_later() -> None:
    async with _simulator() as simulator:
        line = await Line.logged_in(simulator, events="call")
        simulator.stall(0.2)
        simulator.place(plan_call("internal_busy", 1))
        await simulator.wait_ended(1)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(line.reader.readexactly(1), 0.05)
        await line.read_until("Hangup")
        await line.read_until("Hangup")

        assert len(line.events("Newchannel")) == 2


async def test_a_half_open_line_answers_nothing_but_stays() -> None:
    async with _simulator() as simulator:
        line = await Line.logged_in(simulator)
        simulator.half_open()
        line.send("Ping")

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(line.read_until("Pong"), 0.1)
        other = await Line.logged_in(simulator)

        assert (await other.ask("Ping"))["Ping"] == "Pong"
        assert not line.reader.at_eof()


async def test_a_restart_hangs_up_says_goodbye_and_begins_anew() -> None:
    async with _simulator(pace=1.0) as simulator:
        line = await Line.logged_in(simulator)
        simulator.place(plan_call("inbound_no_answer", 1))
        await simulator.wait_live()
        await line.read_until("DialBegin")

        restarting = asyncio.create_task(simulator.restart(farewell_seconds=0.05, down_seconds=0.05, boot_seconds=0.05))
        await line.read_to_the_end()
        with pytest.raises(ConnectionRefusedError):
            await Line.to(simulator)
        await restarting

        assert len(line.events("Hangup")) == 2
        assert line.messages[-1]["Shutdown"] == "Cleanly"
        assert simulator.ended[0].cut is Cut.RESTART
        again = await Line.logged_in(simulator)
        simulator.place(plan_call("internal_busy", 1))
        assert (await again.read_until("Newchannel"))["Channel"].endswith("-00000000")


async def test_whoever_logs_in_before_the_boot_is_told_of_it_later() -> None:
    async with _simulator() as simulator:
        before = await Line.logged_in(simulator)
        restarting = asyncio.create_task(simulator.restart(farewell_seconds=0, down_seconds=0, boot_seconds=0.2))
        await before.read_to_the_end()

        line = await line_again(simulator)
        booted = await line.read_until("FullyBooted")
        await restarting

        assert "Timestamp" in booted
        assert len(line.events("PeerStatus")) == 20


async def test_a_killed_pbx_says_nothing() -> None:
    async with _simulator(pace=1.0) as simulator:
        line = await Line.logged_in(simulator)
        simulator.place(plan_call("inbound_no_answer", 1))
        await line.read_until("DialBegin")

        await simulator.kill(down_seconds=0.01, boot_seconds=0.01)
        await line.read_to_the_end()

        assert line.events("Hangup") == line.events("Shutdown") == []
        assert simulator.ended[0].cut is Cut.KILL


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with _simulator(rate=1000.0, pace=0.001, buffer_bytes=20_000, write_timeout_seconds=0.05) as simulator:
        with socket.create_connection((simulator.host, simulator.port)) as lazy:
            lazy.sendall(b"Action: Login\r\nUsername: sentiric\r\nSecret: gizli\r\n\r\n")
            await simulator.wait_clients()
            while simulator.clients:
                await simulator.wait_ended(simulator.ended_calls + 1)
            simulator.stop_placing()
            received = await asyncio.to_thread(_read_all, lazy)

        assert simulator.cut_clients == 1
        assert b"Authentication accepted" in received


async def test_a_client_that_reads_slowly_but_steadily_hears_everything() -> None:
    async with _simulator(rate=300.0, calls=60) as simulator:
        line = await Line.logged_in(simulator, events="call")
        await simulator.wait_finished()
        await line.ask("Ping")

        assert simulator.cut_clients == 0
        ends = [message for message in line.events("CEL") if message["EventName"] == "LINKEDID_END"]
        assert len(ends) == 60


async def test_system_name_and_missing_stamps_are_as_set() -> None:
    async with _simulator(system_name="pbx1", timestamps=False) as simulator:
        line = await Line.logged_in(simulator, events="call")
        simulator.place(plan_call("internal_busy", 1))

        message = await line.read_until("Newchannel")

        assert message["SystemName"] == "pbx1"
        assert message["Uniqueid"].startswith("pbx1-")
        assert "Timestamp" not in message
        assert simulator.live_calls == 1


async def test_a_stopped_simulator_leaves_its_last_words() -> None:
    async with _simulator() as simulator:
        line = await Line.logged_in(simulator, events="call")
        simulator.place(plan_call("internal_busy", 1))
        await simulator.wait_ended(1)
    await line.read_to_the_end()

    assert len(line.events("Hangup")) == 2


async def test_waiting_for_a_stopped_simulator_fails() -> None:
    async with _simulator() as simulator:
        waiting = asyncio.create_task(simulator.wait_ended(1))
        await simulator.wait_ended(0)

    with pytest.raises(RuntimeError, match="does not run"):
        await waiting


async def test_another_user_and_secret_may_be_chosen() -> None:
    async with _simulator(account=Account("monast", "s3cret")) as simulator:
        line = await Line.to(simulator)

        assert (await line.ask("Login", Username="monast", Secret="s3cret"))["Response"] == "Success"


def _read_all(connection: socket.socket) -> bytes:
    connection.settimeout(5)
    received = bytearray()
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return bytes(received)
