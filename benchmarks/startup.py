"""What the daemon weighs and how soon it listens, beside a Python that only imports its libraries.

    python -m benchmarks.startup [--rounds 3]

Ready means: connected to its PBX (the simulator) and able to keep what it hears; counted from the start of the process.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess

_LIBRARIES = "sqlmodel, aiosqlite, fakeredis, apscheduler.schedulers.asyncio, asyncpg, httpx"
_BARE = f"import time, {_LIBRARIES}; print(open('/proc/self/statm').read().split()[1]); time.sleep(0.01)"
_SETTINGS = """
site = "bench"
[[pbx]]
name = "main"
port = {port}
username = "sentiric"
secret = "benchmark"
[tenancy]
default = "acme"
[central]
url = "postgresql://nobody@127.0.0.1:1/none"
"""


def bare() -> tuple[float, float]:
    """Seconds and MiB of a Python that imports the libraries and ends."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _BARE], capture_output=True, text=True, check=True)
    return time.perf_counter() - started, int(done.stdout) * 4096 / 2**20


def daemon(directory: Path, port: int) -> tuple[float, float]:
    """Seconds until the daemon hears its PBX, and its resident MiB when idle."""
    agent = AgentProcess(directory, _SETTINGS.format(port=port))
    started = time.perf_counter()
    with agent:
        ready = time.perf_counter() - started
        memory = agent.status()["resident_bytes"] / 2**20
        agent.stop()
    return ready, memory


async def measure(rounds: int) -> None:
    """Both in turns, against one simulated PBX."""
    with tempfile.TemporaryDirectory() as directory:
        async with Simulator(account=Account(username="sentiric", secret="benchmark")) as pbx:
            daemon_rounds, bare_rounds = [], []
            first = await asyncio.to_thread(daemon, Path(directory), pbx.port)
            for _ in range(rounds):
                bare_rounds.append(await asyncio.to_thread(bare))
                daemon_rounds.append(await asyncio.to_thread(daemon, Path(directory), pbx.port))
    bare_s, bare_mib = (statistics.median(column) for column in zip(*bare_rounds, strict=True))
    ready_s, idle_mib = (statistics.median(column) for column in zip(*daemon_rounds, strict=True))
    print(f"libraries alone      {bare_s:6.2f} s   {bare_mib:6.1f} MiB")
    print(f"first start (empty)  {first[0]:6.2f} s   {first[1]:6.1f} MiB   target <= 1.5 s, 100 MiB")
    ratios = f"{ready_s / bare_s:.2f} x and {idle_mib / bare_mib:.2f} x the libraries alone"
    print(f"later start          {ready_s:6.2f} s   {idle_mib:6.1f} MiB   {ratios}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    asyncio.run(measure(parser.parse_args().rounds))
