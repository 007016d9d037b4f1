"""Services that write through HTTP into live calls of the real daemon: how soon it is durable, how much a second.

    python -m benchmarks.services [--seconds 10] [--home memory|unix]

The agent as a process with 100 live calls of the simulator; twenty services, each with a connection of its own to the
Unix socket, append utterances. "at 200/s" comes evenly, each write timed from the request to its answer; "as fast as it
goes" is each service's next request upon an answer. Beside each, in the same run: the same requests to a server that
has the agent's HTTP stack and only reads the JSON and answers; and commits of one row (WAL, synchronous=FULL) on the
same disk, which is what any durable answer costs.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent.api.bodies import read_json
from agent.api.connections import patient_protocol
from agent.api.listening import serving, unix_socket
from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_call
from agent.simulator.server import Simulator
from tests.agent_process import AgentProcess
from tests.valkey_server import PASSWORD, USER, running_server

_CALLS: Final = 100
_SERVICES: Final = 20
_RATE: Final = 200
_WARM_SECONDS: Final = 2.0
_SECRET: Final = "benchmark"
_SETTINGS: Final = """
site = "istanbul-1"
[[pbx]]
name = "main"
port = {port}
username = "sentiric"
secret = "benchmark"
[tenancy]
default = "acme"
[api]
group = "no-such-group"
socket_access = "write"
"""
_BODY: Final = orjson.dumps(
    {
        "speaker": "caller",
        "text": "what a caller or a service says in one breath, some twelve words long",
        "language": "en",
        "confidence": 0.93,
    }
)


@dataclass(frozen=True)
class Load:
    """What services ask of a server."""

    socket: Path
    calls: Sequence[str]
    seconds: float
    rate: float | None = None  # requests a second over all services; None: as fast as it goes


@dataclass(frozen=True)
class Took:
    """Milliseconds of each request, and how long they came."""

    each: Sequence[float]
    seconds: float
    cpu_seconds: float = 0.0

    def tell(self, what: str) -> None:
        """One line."""
        cuts = statistics.quantiles(self.each, n=1000, method="inclusive")
        cpu = f"   {self.cpu_seconds / len(self.each) * 1e6:5.0f} µs CPU each" if self.cpu_seconds else ""
        print(
            f"  {what:<24} {len(self.each) / self.seconds:>7.0f}/s   p50 {cuts[499]:6.2f} ms"
            f"   p99 {cuts[989]:6.2f} ms   worst {max(self.each):6.2f} ms{cpu}"
        )


async def _service(load: Load, number: int, until: float) -> list[float]:
    reader, writer = await asyncio.open_unix_connection(load.socket)
    pause = _SERVICES / load.rate if load.rate else 0.0
    due = time.perf_counter() + number * pause / _SERVICES
    took, place = [], number
    while (begun := max(due, time.perf_counter()) if pause else time.perf_counter()) < until:
        await asyncio.sleep(max(0.0, begun - time.perf_counter()))
        started = time.perf_counter()
        path = f"/v1/calls/{load.calls[place % len(load.calls)]}/interactions"
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(_BODY)}\r\n\r\n".encode()
            + _BODY
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
        if not head.startswith(b"http/1.1 201"):
            raise RuntimeError(f"not written: {head[:60]!r}")
        took.append((time.perf_counter() - started) * 1e3)
        place += _SERVICES + 1
        due += pause
    writer.close()
    return took


def ask(load: Load) -> list[float]:
    """Be all services, in a process of their own. Raises RuntimeError if a write is refused."""

    async def services() -> list[float]:
        until = time.perf_counter() + load.seconds
        each = await asyncio.gather(*(_service(load, number, until) for number in range(_SERVICES)))
        return [took for services in each for took in services]

    return asyncio.run(services())


async def asked(pool: ProcessPoolExecutor, load: Load, *, pid: int) -> Took:
    """What the load came to, and the CPU that the server took for it."""
    before, began = _cpu_seconds(pid), time.perf_counter()
    each = await asyncio.get_running_loop().run_in_executor(pool, ask, load)
    return Took(each, time.perf_counter() - began, _cpu_seconds(pid) - before)


def echo(socket_file: Path) -> None:
    """A server with the agent's HTTP stack that reads the JSON, and answers as the agent does."""
    answer = orjson.dumps({"call_sid": "istanbul-1:main:1.1", "revision": 12, "ids": ["0" * 32], "repeated": False})

    async def append(request: Request) -> Response:
        await read_json(request, most=1 << 20, take=lambda _: None)
        return Response(answer, status_code=201, media_type="application/json", headers={"ETag": '"12"'})

    async def run() -> None:
        app = Starlette(routes=[Route("/v1/calls/{sid:path}/interactions", append, methods=["POST"])])
        with unix_socket(socket_file) as door:
            loop, http = asyncio.get_running_loop(), patient_protocol(connections=64)
            async with serving(app, [door], spawn=loop.create_task, http=http, server_header=False):  # type: ignore[arg-type]  # an awaitable
                await asyncio.Event().wait()

    asyncio.run(run())


@contextlib.contextmanager
def echoing(directory: Path) -> Iterator[tuple[Path, int]]:
    """That server as a process: its socket and pid."""
    socket_file = directory / "echo.sock"
    process = multiprocessing.get_context("spawn").Process(target=echo, args=(socket_file,))
    process.start()
    try:
        while not socket_file.exists():
            time.sleep(0.05)
        yield socket_file, process.pid or 0
    finally:
        process.terminate()
        process.join()


def bare_commits(directory: Path, seconds: float) -> Took:
    """A transaction of one row at the same rate: what the disk allows at this moment."""
    took: list[float] = []
    with contextlib.closing(sqlite3.connect(directory / "bare.db", isolation_level=None)) as database:
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t (v TEXT);")
        began = time.perf_counter()
        for number in range(int(_RATE * seconds)):
            time.sleep(max(0.0, began + number / _RATE - time.perf_counter()))
            started = time.perf_counter()
            database.execute("INSERT INTO t VALUES (?)", (_BODY,))
            took.append((time.perf_counter() - started) * 1e3)
    return Took(took, time.perf_counter() - began)


async def measure(name: str, live: str, seconds: float) -> None:
    """Everything in one home."""
    print(name)
    async with AsyncExitStack() as held:
        directory = Path(held.enter_context(tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="bench-")))
        pool = held.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        simulator = await held.enter_async_context(Simulator(account=Account("sentiric", _SECRET)))
        agent = AgentProcess(directory, _SETTINGS.format(port=simulator.port) + live)
        await asyncio.to_thread(agent.start)
        held.callback(agent.kill)
        echo_socket, echo_pid = held.enter_context(echoing(directory))
        calls = await _live_calls(simulator, agent)
        to_agent = Load(directory / "run" / "services.sock", calls, _WARM_SECONDS, _RATE)
        to_echo = replace(to_agent, socket=echo_socket)
        await asked(pool, to_agent, pid=agent.pid)
        await asked(pool, to_echo, pid=echo_pid)
        (await asyncio.to_thread(bare_commits, directory, seconds)).tell("bare commits")
        for what, rate in (("at 200/s", _RATE), ("as fast as it goes", None)):
            plain = await asked(pool, replace(to_echo, seconds=seconds, rate=rate), pid=echo_pid)
            durable = await asked(pool, replace(to_agent, seconds=seconds, rate=rate), pid=agent.pid)
            plain.tell(f"{what}, echo")
            durable.tell(f"{what}, agent")
        print(f"  ratio to the echo         {len(durable.each) / len(plain.each):.2f}")


async def _live_calls(simulator: Simulator, agent: AgentProcess) -> list[str]:
    for seed in range(1, _CALLS + 1):
        plan = plan_call("inbound_answered", seed)
        answers = tuple(replace(each, after_seconds=0.2) for each in plan.parties)
        simulator.place(replace(plan, talk_seconds=3600.0, parties=answers))
    await simulator.wait_live(_CALLS)
    while True:
        calls = [call["call_sid"] for call in (await asyncio.to_thread(agent.ask, "/v1/calls"))["calls"]]
        if len(calls) == _CALLS:
            return calls
        await asyncio.sleep(0.1)


def _cpu_seconds(pid: int) -> float:
    """Of all threads; proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def main() -> None:
    """Measure the homes that are asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--home", choices=["memory", "unix"], help="only this one")
    arguments = parser.parse_args()
    if arguments.home != "unix":
        await measure("memory://", "", arguments.seconds)
    if arguments.home != "memory":
        server = running_server()
        live = f'[live]\nurl = "{server.unix_url}"\nusername = "{USER}"\npassword = "{PASSWORD}"\n'
        try:
            await measure("unix://", live, arguments.seconds)
        finally:
            server.remove()


if __name__ == "__main__":
    asyncio.run(main())
