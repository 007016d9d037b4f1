"""`edge-agent simulate ami` as a person runs it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from agent.simulator.command import simulate_ami
from agent.simulator.faults import Faults, disturb
from agent.simulator.server import Simulator
from tests.integration.simulator.lines import ACCOUNT, line_again

_APP = typer.Typer()
_APP.command()(simulate_ami)
_FAST = ("--port", "0", "--rate", "500", "--pace", "0.001")

_PROGRAM = "import typer; from agent.simulator.command import simulate_ami; typer.run(simulate_ami)"


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(_APP, [*_FAST, *arguments])


def test_it_ends_after_the_calls_asked_for_and_wrote_what_was_true_of_each(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"

    result = _run("--calls", "12", "--truth", str(truth))

    assert result.exit_code == 0, result.output
    calls = [json.loads(line) for line in truth.read_text(encoding="utf-8").splitlines()]
    assert len(calls) == 12
    assert {"native_id", "tenant", "status", "disposition", "start_time", "end_time"} <= set(calls[0])
    assert "placed 12  live 0  ended 12" in result.output


def test_it_says_where_it_listens_and_the_secret_it_made_up() -> None:
    first, last = (json.loads(line) for line in _run("--calls", "1", "--json").output.splitlines())

    assert first["port"] > 0
    assert len(first["secret"]) >= 12
    assert last["ended"] == 1


def test_a_given_secret_is_not_repeated(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("çok-gizli\n", encoding="utf-8")

    result = _run("--calls", "1", "--quiet", "--secret-file", str(secret))

    assert result.exit_code == 0
    assert "çok-gizli" not in result.output
    assert len(result.output.splitlines()) == 1


def test_no_calls_come_after_the_duration() -> None:
    assert _run("--duration", "0.1").exit_code == 0


def test_a_port_in_use_is_one_clear_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = _run("--port", str(taken.getsockname()[1]))

    assert result.exit_code == 2
    assert "cannot listen on 127.0.0.1" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--secret", "a", "--secret-file", "b"), "not both"),
        (("--secret", ""), "one line"),
        (("--secret-file", "/nowhere/at/all"), "cannot be read"),
        (("--truth", "/nowhere/at/all"), "cannot be written"),
        (("--rate", "0"), "--rate"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(arguments: tuple[str, ...], complaint: str) -> None:
    result = _run("--calls", "1", *arguments)

    assert result.exit_code == 2
    assert complaint in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_cleanly(number: signal.Signals) -> None:
    async with _program("--rate", "20") as (program, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readline()

        program.send_signal(number)

        assert await asyncio.wait_for(program.wait(), 10) == 0
        assert await reader.read() == b""
        writer.close()


async def test_faults_come_again_and_again() -> None:
    faults = Faults(drop_every_seconds=0.05, stall_every_seconds=0.05, stall_seconds=0.01, kill_every_seconds=0.2)
    async with asyncio.timeout(20), Simulator(account=ACCOUNT, rate=50, pace=0.002) as simulator:
        disturbing = asyncio.create_task(disturb(simulator, faults, seed=1))
        for _ in range(3):
            line = await line_again(simulator)
            await line.read_to_the_end()
        disturbing.cancel()

        assert (await asyncio.wait([disturbing]))[1] == set()


@asynccontextmanager
async def _program(*arguments: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PROGRAM,
        *("--port", "0", "--json", *arguments),
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        assert program.stdout is not None
        where = json.loads(await asyncio.wait_for(program.stdout.readline(), 20))
        yield program, where["port"]
    finally:
        if program.returncode is None:
            program.kill()
        await program.communicate()
