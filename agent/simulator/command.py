"""`edge-agent simulate ami`: a PBX to try things out with, on a port of this machine."""

import asyncio
import contextlib
import json
import secrets
import signal
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer
from typer.models import OptionInfo

from agent.simulator.faults import Faults, disturb
from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_calls, traced
from agent.simulator.server import Simulator
from agent.simulator.truth import SimulatedCall

_REPORT_SECONDS: Final = 5.0
_CANNOT_RUN: Final = 2


def _about_every(what: str) -> OptionInfo:
    option: OptionInfo = typer.Option(min=0.05, metavar="SECONDS", help=f"{what} about so often; never if not given.")
    return option


@dataclass(frozen=True, slots=True)
class _Wishes:
    host: str
    port: int
    account: Account
    secret_is_made_up: bool
    rate: float
    seed: int
    pace: float
    calls: int | None
    duration: float | None
    faults: Faults
    traceparents: bool
    quiet: bool
    as_json: bool


def simulate_ami(
    *,
    rate: Annotated[float, typer.Option(min=0.001, help="Calls a second, on average.")] = 5.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same calls.")] = 7,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free port.")] = 5038,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    username: Annotated[str, typer.Option(help="The manager user.")] = "sentiric",
    secret_file: Annotated[Path | None, typer.Option(help="File with the manager user's secret.")] = None,
    secret: Annotated[
        str | None, typer.Option(help="The secret itself; others see it in the list of processes.")
    ] = None,
    calls: Annotated[int | None, typer.Option(min=1, help="End after so many calls.")] = None,
    duration: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Let no calls come after so long, end after the last."),
    ] = None,
    pace: Annotated[
        float, typer.Option(min=0.0001, max=100.0, help="0.1 makes calls ten times as fast as in real life.")
    ] = 1.0,
    drop_every: Annotated[float | None, _about_every("Close every connection")] = None,
    stall_every: Annotated[float | None, _about_every("Send nothing for a while")] = None,
    stall_seconds: Annotated[float, typer.Option(min=0.01, help="How long a stall lasts.")] = 5.0,
    half_open_every: Annotated[float | None, _about_every("Fall silent for good on the connections there are")] = None,
    restart_every: Annotated[float | None, _about_every("Restart the PBX")] = None,
    kill_every: Annotated[float | None, _about_every("Kill the PBX and start it again")] = None,
    truth: Annotated[
        Path | None, typer.Option(help="Write what was true of each call to this file, one JSON line at its end.")
    ] = None,
    traceparents: Annotated[
        bool, typer.Option("--traceparents", help="Calls from outside come with a W3C traceparent.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but where it listens.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Say everything as JSON lines.")] = False,
) -> None:
    """Pretend to be a busy Asterisk 22 with two customers, for as long as wanted."""
    wishes = _Wishes(
        host=host,
        port=port,
        account=Account(username, _secret(secret, secret_file)),
        secret_is_made_up=secret is None and secret_file is None,
        rate=rate,
        seed=seed,
        pace=pace,
        calls=calls,
        duration=duration,
        faults=Faults(
            drop_every_seconds=drop_every,
            stall_every_seconds=stall_every,
            stall_seconds=stall_seconds,
            half_open_every_seconds=half_open_every,
            restart_every_seconds=restart_every,
            kill_every_seconds=kill_every,
        ),
        traceparents=traceparents,
        quiet=quiet,
        as_json=as_json,
    )
    with ExitStack() as files:
        file: TextIO | None = None
        if truth is not None:
            try:
                file = files.enter_context(truth.open("w", encoding="utf-8", buffering=1))
            except OSError as exc:
                _fail(f"{truth} cannot be written: {exc.strerror}")
        try:
            asyncio.run(_run(wishes, file))
        except OSError as exc:
            _fail(f"cannot listen on {host}:{port}: {exc.strerror or exc}; choose another --port, 0 takes a free one")


def _secret(secret: str | None, secret_file: Path | None) -> str:
    if secret is not None and secret_file is not None:
        raise typer.BadParameter("give --secret or --secret-file, not both")
    if secret_file is not None:
        try:
            secret = secret_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            _fail(f"{secret_file} cannot be read: {exc}")
    elif secret is None:
        return secrets.token_urlsafe(12)
    if not secret or "\n" in secret or "\r" in secret:
        raise typer.BadParameter("the secret has to be one line")
    return secret


def _fail(sentence: str) -> None:
    typer.echo(f"edge-agent: {sentence}", err=True)
    raise typer.Exit(_CANNOT_RUN)


async def _run(wishes: _Wishes, truth: TextIO | None) -> None:
    def ended(call: SimulatedCall) -> None:
        if truth is not None:
            truth.write(json.dumps(call.to_json(), ensure_ascii=False) + "\n")

    simulator = Simulator(
        host=wishes.host,
        port=wishes.port,
        account=wishes.account,
        rate=wishes.rate,
        calls=wishes.calls,
        seed=wishes.seed,
        pace=wishes.pace,
        plans=traced(plan_calls(wishes.seed), wishes.seed) if wishes.traceparents else None,
        keep_ended=False,
        on_ended=ended,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with simulator:
        _say_where(wishes, simulator)
        tasks = [
            asyncio.create_task(stop.wait(), name="stop"),
            asyncio.create_task(_until_done(simulator, wishes.duration), name="until-done"),
            asyncio.create_task(disturb(simulator, wishes.faults, seed=wishes.seed), name="faults"),
            asyncio.create_task(_report(wishes, simulator), name="report"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
    if not wishes.quiet:
        _say(wishes, simulator)


async def _until_done(simulator: Simulator, duration: float | None) -> None:
    if duration is not None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(duration):
                await simulator.wait_finished()
        simulator.stop_placing()
    await simulator.wait_finished()


async def _report(wishes: _Wishes, simulator: Simulator) -> None:
    while True:
        await asyncio.sleep(_REPORT_SECONDS)
        if not wishes.quiet:
            _say(wishes, simulator)


def _say_where(wishes: _Wishes, simulator: Simulator) -> None:
    username, secret = wishes.account.username, wishes.account.secret
    if wishes.as_json:
        facts: dict[str, object] = {"host": simulator.host, "port": simulator.port, "username": username}
        if wishes.secret_is_made_up:
            facts["secret"] = secret
        typer.echo(json.dumps(facts))
        return
    hint = f" secret {secret}" if wishes.secret_is_made_up else ""
    typer.echo(f"simulated Asterisk 22 on {simulator.host}:{simulator.port}, manager user {username}{hint}")


def _say(wishes: _Wishes, simulator: Simulator) -> None:
    facts = {
        "placed": simulator.placed,
        "live": simulator.live_calls,
        "ended": simulator.ended_calls,
        "clients": simulator.clients,
        "events": simulator.events,
    }
    typer.echo(json.dumps(facts) if wishes.as_json else "  ".join(f"{name} {count}" for name, count in facts.items()))
