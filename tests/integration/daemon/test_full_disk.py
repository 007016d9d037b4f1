"""A full disk under load, on a real file system: nothing is lost, nothing crashes, and all is taken up by itself."""

import asyncio
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.crash.blindness import Blind, Blindness
from tests.crash.comparing import differing, local_calls, unknown
from tests.crash.starving import watching
from tests.integration.daemon.test_daemon import eventually
from tests.small_disk import small_disk

SETTINGS = """
site = "istanbul-1"
[[pbx]]
name = "main"
port = {port}
username = "sentiric"
secret = "{secret}"
reconnect_max_seconds = 1
[tenancy]
rules = [{{ tenant = "acme", context = "*-acme" }}, {{ tenant = "globex", context = "*-globex" }}]
[store]
reserve_megabytes = 32
"""
SECRET = "for tests only"
# The long form, `SENTIRIC_FULL_DISK_SECONDS=600`, takes a quarter of an hour.
FULL_SECONDS: Final = float(os.environ.get("SENTIRIC_FULL_DISK_SECONDS", "8"))
RATE: Final = 10.0
MEGABYTES: Final = 192
# Some 105 MiB at rest, and the contexts of a minute of calls, as on a disk that is not full.
_MAX_RESIDENT_BYTES: Final = 176 << 20


@pytest.mark.timeout(FULL_SECONDS + 240)
async def test_a_full_disk_under_load_and_a_kill_in_it_lose_nothing(tmp_path: Path) -> None:
    with ExitStack() as stack:
        disk = stack.enter_context(small_disk(tmp_path, megabytes=MEGABYTES))
        seen = Blindness()
        account = Account("sentiric", SECRET)
        async with Simulator(account=account, rate=RATE, pace=0.05, seed=4) as simulator:
            agent = AgentProcess(disk.path / "agent", SETTINGS.format(port=simulator.port, secret=SECRET))
            agent.log_file = tmp_path / "agent.log"
            spill = agent.database.with_name("edge.db.spill")
            stack.callback(agent.__exit__, None, None, None)
            await asyncio.to_thread(agent.start)
            seen.heard_again(simulator.now_us())
            await simulator.wait_ended(10)

            with watching(agent.pid) as starving:
                await asyncio.to_thread(disk.fill)
                await eventually(spill.exists, what="something spilled", seconds=60)
                await asyncio.sleep(FULL_SECONDS / 2)
                status = await asyncio.to_thread(agent.status)
                assert status["verdict"] == "degraded"
                assert "the disk is full" in status["database"]["error"]
                assert status["resident_bytes"] < _MAX_RESIDENT_BYTES

            seen.killed(simulator.now_us(), unsaved_seconds=starving.stretched(0.5))
            agent.kill()
            await asyncio.to_thread(agent.start, seconds=60)
            seen.heard_again(simulator.now_us())
            await asyncio.sleep(FULL_SECONDS / 2)
            assert spill.exists()
            status = await asyncio.to_thread(agent.status)
            assert status["resident_bytes"] < _MAX_RESIDENT_BYTES

            await asyncio.to_thread(disk.make_room)
            simulator.stop_placing()
            await simulator.wait_finished()
            await eventually(lambda: not spill.exists(), what="the spill taken up", seconds=60)
            truths = {truth.call_sid("istanbul-1", "main"): truth for truth in simulator.ended}
            heard = [sid for sid, truth in truths.items() if seen.of(truth) is not Blind.WHOLLY]
            await eventually(
                lambda: not set(heard) - local_calls(agent.database).keys(), what="every call kept", seconds=20
            )
            assert await asyncio.to_thread(agent.stop) == 0

        told = local_calls(agent.database)
        assert unknown(told, truths) == []
        wholly = [sid for sid in heard if seen.of(truths[sid]) is Blind.NOT]
        assert differing(truths, told, of=wholly) == []
        assert len(wholly) > RATE
        words = agent.log()
        assert "Traceback" not in words
        assert words.count("the local database cannot be written") <= 2
        assert words.count("all that was spilled stands in the local database") == 1
