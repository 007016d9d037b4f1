"""What the demonstration is made of: a PBX that is simulated; agent, hub and PostgreSQL that are real."""

import asyncio
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg

from agent.cli.client import RunningAgent
from agent.cli.demonstration.account import Account, KnownCall
from agent.cli.faults import CommandFailed, NotRunning
from agent.cli.local import Filter, LocalCalls, Row
from agent.errors import StoreUnavailable
from agent.simulator.manager import Account as ManagerAccount
from agent.simulator.server import Simulator
from agent.simulator.site import TENANTS
from agent.simulator.truth import SimulatedCall
from config.load import load_settings
from config.notify import Notifier
from config.settings import Settings
from sync.central.connection import CentralAddress
from sync.central.embedded import EmbeddedPostgres, EmbeddedPostgresError
from sync.hub.dev import make_centre
from sync.hub.limits import Limits
from sync.hub.serve import Endpoint, ServeSettings, prepare

SITE: Final = "demo"
PBX: Final = "main"
_READY_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 15.0
_LOOK_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 5.0
_LAST_LINES: Final = 12
_HUB_STOP_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that runs."""

    postgres: EmbeddedPostgres
    simulator: Simulator
    agent: "AgentProcess"
    settings: Settings

    async def stop_centre(self) -> None:
        """Take PostgreSQL away."""
        await asyncio.to_thread(self.postgres.stop_hard)

    async def start_centre(self) -> None:
        """Bring PostgreSQL back."""
        await asyncio.to_thread(self.postgres.start)

    def newest_captured(self, limit: int) -> tuple[int, list[Row]]:
        """How many calls the agent has kept, and the last of them with `waiting` if they wait to be sent."""
        try:
            with LocalCalls.of(self.settings) as calls:
                return sum(calls.count_by_tenant().values()), calls.newest(Filter(), limit=limit)
        except StoreUnavailable:  # the agent has not made it yet
            return 0, []

    async def arrived(self) -> set[str] | None:
        """The calls in PostgreSQL by key; None while it is away."""
        rows = await self._from_centre("SELECT call_sid FROM call")
        return None if rows is None else {row["call_sid"] for row in rows}

    async def account(self) -> Account:
        """What the three sides hold now."""
        with LocalCalls.of(self.settings) as calls:
            captured = [_known(row) for row in calls.all_briefly(Filter())]
        rows = await self._from_centre(
            "SELECT call_sid, tenant.name AS tenant, direction, status, disposition "
            "FROM call JOIN tenant ON tenant.id = call.tenant_id"
        )
        placed = tuple(_placed(call) for call in self.simulator.ended)
        return Account(
            placed=placed,
            captured=tuple(captured),
            central=tuple(_known(row) for row in rows or ()),
            never_ended=self.simulator.live_calls,
        )

    async def _from_centre(self, query: str) -> Sequence[Mapping[str, Any]] | None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                connection = await asyncpg.connect(self.postgres.dsn())
                try:
                    return [dict(row) for row in await connection.fetch(query)]
                finally:
                    connection.terminate()
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return None


def _placed(call: SimulatedCall) -> KnownCall:
    outcome = f"{call.status}/{call.disposition}"
    return KnownCall(call.call_sid(SITE, PBX), call.tenant, str(call.direction), outcome)


def _known(row: Mapping[str, Any]) -> KnownCall:
    return KnownCall(row["call_sid"], row["tenant"], row["direction"], f"{row['status']}/{row['disposition']}")


@asynccontextmanager
async def running_parts(*, pace: float, keep: Path | None) -> AsyncIterator[Parts]:
    """Start everything, and take everything away in the end, whatever happens between."""
    async with AsyncExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="edge-demo-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        try:
            postgres = EmbeddedPostgres()
            stack.callback(postgres.remove)
            await asyncio.to_thread(postgres.create)
            await asyncio.to_thread(postgres.start)
        except EmbeddedPostgresError as exc:
            raise CommandFailed(f"PostgreSQL cannot be started: {exc}") from None
        if keep is not None:
            stack.callback(_keep, keep, directory, postgres.directory)
        way_in, code = await make_centre(postgres, tenants=[tenant.name for tenant in TENANTS], site=SITE)
        hub = await stack.enter_async_context(_serving(way_in, log=directory / "hub.log"))

        account = ManagerAccount("sentiric", secrets.token_urlsafe(12))
        simulator = await stack.enter_async_context(Simulator(account=account, pace=pace))
        file = _write_settings(directory, simulator, account, hub)
        settings = load_settings(file, {})
        await _enroll(file, settings, hub, code)
        agent = await stack.enter_async_context(AgentProcess.started(file, settings, log=directory / "agent.log"))
        await agent.until_it_hears(simulator)
        yield Parts(postgres, simulator, agent, settings)


@asynccontextmanager
async def _serving(way_in: CentralAddress, *, log: Path) -> AsyncIterator[str]:
    """A hub that answers while the block runs; its URL."""
    handler = logging.FileHandler(log)
    logging.getLogger("sync").addHandler(handler)
    limits = Limits(stop_seconds=_HUB_STOP_SECONDS)
    settings = ServeSettings(listen=[Endpoint("127.0.0.1", 0)], connections=4, limits=limits)
    serving = await prepare(way_in, settings, Notifier({}))
    task = asyncio.create_task(serving.run(), name="hub")
    try:
        await serving.started.wait()
        yield f"http://{serving.endpoints[0]}"
    finally:
        serving.stop()
        await task
        logging.getLogger("sync").removeHandler(handler)
        handler.close()


async def _enroll(file: Path, settings: Settings, hub: str, code: str) -> None:
    """As a technician would; the code is not for other users' eyes."""
    settings.state_directory.mkdir(mode=0o700)
    process = await asyncio.create_subprocess_exec(
        *_program(), "enroll", hub, "--config", str(file),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env=_environment(), start_new_session=True,
    )  # fmt: skip
    try:
        async with asyncio.timeout(_READY_SECONDS):
            said, _ = await process.communicate(f"{code}\n".encode())
    finally:
        await _ended(process)
    if process.returncode:
        raise CommandFailed(f"the agent cannot be enrolled: {said.decode(errors='replace').strip()}")


class AgentProcess:
    """The real agent, as its unit would run it."""

    def __init__(self, process: asyncio.subprocess.Process, settings: Settings, log: Path) -> None:
        self._process = process
        self._log = log
        self._api = RunningAgent(settings.socket_file, timeout=_ANSWER_SECONDS)

    @classmethod
    @asynccontextmanager
    async def started(cls, file: Path, settings: Settings, *, log: Path) -> AsyncIterator["AgentProcess"]:
        """Run it while the block does."""
        with log.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                *_program(),
                "run",
                "--config",
                str(file),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=file.parent,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C in the terminal is the demonstration's to handle
            )
        try:
            yield cls(process, settings, log)
        finally:
            await _ended(process)

    async def status(self) -> dict[str, Any] | None:
        """What it says of itself; None while it does not answer."""
        with suppress(NotRunning, CommandFailed):
            told: dict[str, Any] = await asyncio.to_thread(self._api.get, "/v1/status")
            return told
        return None

    def check(self) -> None:
        """Raise CommandFailed if it has ended."""
        if self._process.returncode is not None:
            raise CommandFailed(
                f"the agent ended with {self._process.returncode}; its last words:\n{self._last_words()}"
            )

    async def until_it_hears(self, simulator: Simulator) -> None:
        """Return once it is logged in at the PBX and says that it is connected."""
        try:
            async with asyncio.timeout(_READY_SECONDS):
                while not (simulator.clients and await self._is_connected()):
                    self.check()
                    await asyncio.sleep(_LOOK_SECONDS)
        except TimeoutError:
            raise CommandFailed(f"the agent was not ready in time; its last words:\n{self._last_words()}") from None

    async def _is_connected(self) -> bool:
        status = await self.status()
        return status is not None and all(pbx["state"] == "connected" for pbx in status["pbx"])

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LAST_LINES:]) or "(none)"


async def _ended(process: asyncio.subprocess.Process) -> None:
    """SIGTERM and, if that is not enough, SIGKILL."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _program() -> tuple[str, ...]:
    """This very program, whichever way it was started."""
    script = Path(sys.executable).with_name("edge-agent")
    if os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-c", "from agent.cli.main import main; main()")


def _environment() -> dict[str, str]:
    """Nothing of a real agent's surroundings."""
    names = {"CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"}
    return {
        name: value for name, value in os.environ.items() if name not in names and not name.startswith("SENTIRIC_EDGE_")
    }


def _write_settings(directory: Path, simulator: Simulator, account: ManagerAccount, hub: str) -> Path:
    """A settings file as an installer would write it for this site."""
    _write_secret(directory / "pbx.secret", account.secret)
    rules = "".join(
        f'[[tenancy.rules]]\ntenant = "{tenant.name}"\ndid_prefix = "{tenant.did_prefix}"\n\n'
        f'[[tenancy.rules]]\ntenant = "{tenant.name}"\nendpoint = "PJSIP/{tenant.phones[0].number[0]}??"\n\n'
        for tenant in TENANTS
    )
    file = directory / "agent.toml"
    file.write_text(
        f"""# Written by edge-agent demo.
site = "{SITE}"
state_directory = "state"
runtime_directory = "run"

[log]
format = "text"

[[pbx]]
name = "{PBX}"
host = "{simulator.host}"
port = {simulator.port}
username = "{account.username}"
secret_file = "pbx.secret"

[central]
url = "{hub}"
interval_seconds = 2
retry_max_seconds = 2

{rules}""",
        encoding="utf-8",
    )
    return file


def _write_secret(file: Path, secret: str) -> None:
    file.touch(mode=0o600)
    file.write_text(secret)


def _keep(to: Path, directory: Path, postgres: Path) -> None:
    """Copy what helps to understand a run; no secret."""
    found = [
        directory / "agent.toml",
        directory / "agent.log",
        directory / "hub.log",
        postgres / "postgres.log",
        *directory.glob("state/edge.db*"),
    ]
    for file in found:
        with suppress(OSError):
            shutil.copy(file, to / file.name)  # with its mode
