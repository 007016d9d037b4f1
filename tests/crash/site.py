"""One site of the laboratory: a simulated PBX, an agent that is killed again and again, and services that write.

A run ends in calm: everything is drained, the agent stops in good order, and all that was placed is compared with what
SQLite and PostgreSQL hold.
"""

import asyncio
import contextlib
import random
import shutil
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from agent.client.asynchronous import AsyncEdgeClient
from agent.client.errors import EdgeError
from agent.simulator.manager import Account
from agent.simulator.scenarios import plan_call
from agent.simulator.server import Simulator
from agent.simulator.truth import SimulatedCall
from tests.crash.blindness import PROMISED_SECONDS, Blind, Blindness
from tests.crash.centre import Centre, Door
from tests.crash.comparing import Finding, Row, central_calls, differing, local_calls, unequal, unknown
from tests.crash.nursery import Child, Nursery
from tests.crash.starving import Starving

PBX: Final = "main"
_SECRET: Final = "nur für das Labor"
_PACE: Final = 0.004  # a call of a minute lasts a quarter of a second
_RATE: Final = 25.0  # calls a second
_SOURCE: Final = """[[pbx.sources]]
kind = "cdr-csv"
path = "{file}"
time_zone = "UTC"
settle_seconds = 0
history_days = 1
"""
_TENANCY: Final = """[tenancy]
rules = [{ tenant = "acme", context = "*-acme" }, { tenant = "globex", context = "*-globex" }]
"""
_BUSY: Final = "SELECT (SELECT count(*) FROM live_call) + (SELECT count(*) FROM outbox)"
_API: Final = '[api]\ngroup = "no-such-group"\nsocket_access = "write"\n'
_START_SECONDS: Final = 30.0
_CALM_SECONDS: Final = 45.0
_LOOK_SECONDS: Final = 0.03
_POLL_SECONDS: Final = 0.1
_WRITE_EVERY_SECONDS: Final = 0.04
_DURING_START: Final = 0.3  # the part of the kills that come before the agent hears its PBX
_START_LASTS_SECONDS: Final = 0.45
_CAPTURE_SECONDS: Final = 0.9


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen at a site."""

    seed: int
    kills: int
    door: Door
    second_source: bool

    @property
    def site(self) -> str:
        """The site's name."""
        return f"crash-{self.seed}"


@dataclass
class Outcome:
    """What came of it."""

    plan: Plan
    kills: int = 0
    calls: int = 0
    cdr_calls: int = 0  # told by the second source alone
    written: int = 0  # by services, and answered
    unsaved: list[float] = field(default_factory=list)  # seconds, of each kill: what was said so late might be lost
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0


class Site:
    """`open` it, then `kill_at_random` or drive it step by step, then `finish`."""

    def __init__(self, plan: Plan, directory: Path, *, nursery: Nursery, centre: Centre, central: str) -> None:
        self.plan = plan
        self.outcome = Outcome(plan)
        self.directory = directory
        self.log = directory / "agent.log"
        self.powercut = ""  # what the shim of a nursery under it is armed with
        self._central = central
        self._nursery = nursery
        self._centre = centre
        self._dice = random.Random(plan.seed)
        self._records = directory / "Master.csv"
        self._blindness = Blindness()
        self._kept: dict[str, int] = {}  # call_sid to the revision that SQLite was seen to hold
        self._answered: dict[str, set[str]] = {}  # what services were told is kept, by call
        self._asked: set[str] = set()
        self.simulator = Simulator(
            account=Account("lab", _SECRET),
            rate=_RATE,
            seed=plan.seed,
            pace=_PACE,
            cdr_file=self._records if plan.second_source else None,
        )
        self._writing: asyncio.Task[None]
        self._agent: Child | None = None
        self._died_at_us = 0
        self._ended: asyncio.Task[int] | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, plan: Plan, directory: Path, *, nursery: Nursery, centre: Centre) -> AsyncIterator["Site"]:
        """A site whose PBX has calls already, and whose agent is not yet started."""
        directory.mkdir(parents=True)
        site = cls(plan, directory, nursery=nursery, centre=centre, central=await centre.add_site(plan.site, plan.door))
        async with site.simulator:
            site._write_settings()
            site._writing = asyncio.create_task(site._write(), name=f"services of {plan.site}")
            try:
                yield site
            finally:
                await _cancelled(site._writing)
                if site._agent is not None:
                    await site._end_by_kill()

    @property
    def database(self) -> Path:
        return self.directory / "state" / "edge.db"

    @property
    def pid(self) -> int:
        """Of the agent that runs."""
        assert self._agent is not None
        return self._agent.pid

    @property
    def ended_with(self) -> int | None:
        """The exit code, if the agent has ended by itself."""
        return self._ended.result() if self._ended is not None and self._ended.done() else None

    @property
    def log_text(self) -> str:
        """All that its agents logged."""
        return self._words()

    async def kill_at_random(self) -> None:
        """As often as planned: start the agent, kill it while it starts or while it captures."""
        for _ in range(self.plan.kills):
            await self.start()
            if self._dice.random() < _DURING_START:
                await asyncio.sleep(self._dice.uniform(0, _START_LASTS_SECONDS))
            else:
                await self.hear()
                await asyncio.sleep(self._dice.uniform(0, _CAPTURE_SECONDS))
            await self.kill()

    async def start(self, **environ: str) -> None:
        """Start the agent and wait for nothing."""
        await self.simulator.wait_nobody()  # what was asked when the last agent was killed is not this one's
        listings = self.simulator.listings
        self._agent = await self._nursery.run(
            *("run", "--config", str(self.directory / "agent.toml")),
            log=self.log,
            environ=environ,
            powercut=self.powercut,
        )
        self._ended = asyncio.create_task(self._code(self._agent), name=f"end of {self.plan.site}")
        self._starving = Starving(self._agent.pid)
        self._watching = asyncio.create_task(self._watch(), name=f"watch over {self.plan.site}")
        self._heard = asyncio.create_task(self._note_hearing(listings), name=f"hearing of {self.plan.site}")

    async def hear(self) -> None:
        """Until the agent hears its PBX or has ended."""
        assert self._ended is not None
        async with asyncio.timeout(_START_SECONDS):
            await asyncio.wait({self._heard, self._ended}, return_when=asyncio.FIRST_COMPLETED)

    async def kill(self, *, promised_seconds: float = PROMISED_SECONDS) -> None:
        """Note what SQLite holds, and SIGKILL. What it heard before the last `promised_seconds` has to be there."""
        assert self._agent is not None
        kept = await asyncio.to_thread(_kept, self.database)
        self._forgets(kept)
        self._kept |= kept
        if self._ended is not None and self._ended.done():
            self._find("crashed", f"exit code {self._ended.result()}: {self._last_words()}")
        at = self.simulator.now_us()
        self._starving.look()
        unsaved = self._starving.stretched(promised_seconds)
        await self._end_by_kill()
        self._note_kill(at, unsaved)

    async def killed_by_itself(self, seconds: float, *, promised_seconds: float = PROMISED_SECONDS) -> bool:
        """Wait until the agent has been ended by a failpoint; False, and it goes on, if it comes to none in time.

        What it heard before the last `promised_seconds` has to be there.
        """
        assert self._ended is not None
        await asyncio.wait({self._ended}, timeout=seconds)
        if not self._ended.done():
            return False
        if self._ended.result() != -signal.SIGKILL:
            self._find("crashed", f"exit code {self._ended.result()}: {self._last_words()}")
        await self._forget_agent()
        self._note_kill(self._died_at_us, self._starving.stretched(promised_seconds))
        return True

    async def finish(self) -> Outcome:
        """Start the agent once more, let it come to rest, stop it in good order and compare."""
        began = time.monotonic()
        await self.start()
        await self.hear()
        simulator = self.simulator
        simulator.stop_placing()
        await simulator.wait_finished()
        simulator.place(plan_call("internal_busy", 1))  # once it is kept, all before it has been
        await simulator.wait_finished()
        await _cancelled(self._writing)
        truths = {truth.call_sid(self.plan.site, PBX): truth for truth in simulator.ended}
        may_be_lost = self._may_be_lost(truths)
        expected = truths.keys() - may_be_lost
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CALM_SECONDS):
                while not await self._is_calm(expected):  # noqa: ASYNC110 - another process writes it
                    await asyncio.sleep(_POLL_SECONDS)
        await self._stop()
        await self._compare(truths, expected)
        self.outcome.calls = len(truths)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    def discard(self) -> None:
        """Take its files away."""
        shutil.rmtree(self.directory, ignore_errors=True)

    # What was said when

    async def _code(self, child: Child) -> int:
        ended = await child.wait()
        self._died_at_us = self.simulator.now_us()
        return ended.code

    async def _note_hearing(self, listings: int) -> None:
        await self.simulator.wait_listings(listings + 1)
        self._blindness.heard_again(self.simulator.now_us())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self._starving.look()

    def _note_kill(self, at_us: int, unsaved: float) -> None:
        self._blindness.killed(at_us, unsaved_seconds=unsaved)
        self.outcome.kills += 1
        self.outcome.unsaved.append(unsaved)

    def _may_be_lost(self, truths: Mapping[str, SimulatedCall]) -> set[str]:
        """Calls of which nothing needs to be known: without a second source, those that were never told in time."""
        if self.plan.second_source:
            return set()
        return {sid for sid, truth in truths.items() if self._blindness.of(truth) is Blind.WHOLLY}

    async def _is_calm(self, expected: set[str]) -> bool:
        answered = set().union(*self._answered.values())
        return await asyncio.to_thread(_is_calm, self.database, expected, answered)

    async def _compare(self, truths: Mapping[str, SimulatedCall], expected: set[str]) -> None:
        findings, plan = self.outcome.findings, self.plan
        local = await asyncio.to_thread(local_calls, self.database)
        async with self._centre.undisturbed:
            central, doubled = await central_calls(self._centre.database, plan.site)
        findings += doubled
        findings += unknown(local, truths)
        waiting = await asyncio.to_thread(_waiting, self.database)  # amended after it was calm, with the centre away
        findings += [each for each in unequal(local, central) if each.call_sid not in waiting]
        findings += [
            Finding("lost", sid, self._blindness.about(truths[sid])) for sid in sorted(expected - local.keys())
        ]
        heard = [sid for sid, truth in truths.items() if self._blindness.of(truth) is Blind.NOT]
        wrong = differing(truths, local, of=heard)
        findings += [
            Finding(f.what, f.call_sid, f"{f.detail}; {self._blindness.about(truths[f.call_sid])}") for f in wrong
        ]
        self._forgets({sid: row["revision"] for sid, row in local.items()})
        self._compare_writes(local)
        self.outcome.cdr_calls = sum(row["source"] == "cdr" for row in local.values())

    def _forgets(self, now: Mapping[str, int]) -> None:
        for sid, revision in self._kept.items():
            if now.get(sid, 0) < revision:
                self._find("lost", f"SQLite held revision {revision}, and now {now.get(sid)}", sid)

    def _compare_writes(self, local: Mapping[str, Row]) -> None:
        for sid, row in local.items():
            said = [each["data"].get("text") for each in row["interactions"]]
            answered = self._answered.pop(sid, set())
            self.outcome.written += len(answered)
            for text in sorted(answered - set(said)):
                self._find("lost", f"a service was told that {text!r} is kept", sid)
            if len(said) != len(set(said)) or not self._asked.issuperset(said):
                self._find("doubled", f"services said {said}", sid)
        for sid, texts in self._answered.items():
            self._find("lost", f"a service was told that {sorted(texts)} is kept, and the call is not there", sid)

    def _find(self, what: str, detail: str, sid: str = "") -> None:
        self.outcome.findings.append(Finding(what, sid or self.plan.site, detail))

    # The agent

    async def _stop(self) -> None:
        assert self._agent is not None
        assert self._ended is not None
        self._agent.signal(signal.SIGTERM)
        await asyncio.wait({self._ended}, timeout=_START_SECONDS)
        if not self._ended.done():
            self._find("crashed", "it does not stop")
            await self._end_by_kill()
            return
        if code := self._ended.result():
            self._find("crashed", f"exit code {code} at its stop: {self._last_words()}")
        await self._forget_agent()
        if "Traceback" in self._words():
            self._find("crashed", f"a traceback in the log: {self._last_words()}")

    async def _end_by_kill(self) -> None:
        assert self._agent is not None
        assert self._ended is not None
        self._agent.signal(signal.SIGKILL)
        await self._ended
        await self._forget_agent()

    async def _forget_agent(self) -> None:
        self._agent, self._ended = None, None
        await _cancelled(self._heard)
        await _cancelled(self._watching)

    def _words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _last_words(self) -> str:
        return self._words()[-1500:]

    def _write_settings(self) -> None:
        plan, simulator = self.plan, self.simulator
        parts = [
            f'state_directory = "{self.directory / "state"}"\nruntime_directory = "{self.directory / "run"}"',
            f'site = "{plan.site}"',
            f'[[pbx]]\nname = "{PBX}"\nport = {simulator.port}\nusername = "lab"\nsecret = "{_SECRET}"\n'
            "reconnect_max_seconds = 1",
        ]
        if plan.second_source:
            parts.append(_SOURCE.format(file=self._records))
        file = self.directory / "agent.toml"
        file.write_text("\n".join([*parts, _TENANCY, _API, self._central]), encoding="utf-8")
        file.chmod(0o600)

    # Services

    async def _write(self) -> None:
        """Say something of live calls and of some that have just ended, for ever; keep what was answered."""
        dice, number, known = random.Random(self.plan.seed), 0, list[str]()
        async with AsyncEdgeClient(self.directory / "run" / "services.sock", patience_seconds=0.5) as client:
            while True:
                await asyncio.sleep(_WRITE_EVERY_SECONDS)
                live = [each.linkedid for each in self.simulator.exchange.channels.values()]
                known = [*known, *live][-40:]
                if not known:
                    continue
                sid, text = f"{self.plan.site}:{PBX}:{dice.choice(known)}", str(number)
                number += 1
                self._asked.add(text)
                with contextlib.suppress(EdgeError):
                    await client.say(sid, "lab", text)
                    self._answered.setdefault(sid, set()).add(text)


def _kept(database: Path) -> dict[str, int]:
    """What a reader sees is durable: it is shown after it was synced."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
            return dict(connection.execute("SELECT call_sid, revision FROM call").fetchall())
    except sqlite3.Error:  # there is no database or no table yet
        return {}


def _is_calm(database: Path, expected: set[str], answered: set[str]) -> bool:
    """Nothing is live, nothing waits, and every call and what services said is there."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        (busy,) = connection.execute(_BUSY).fetchone()
        if busy:
            return False
        there = {sid for (sid,) in connection.execute("SELECT call_sid FROM call")}
        said = {text for (text,) in connection.execute("SELECT json_extract(data, '$.text') FROM interaction")}
        return expected <= there and answered <= said


def _waiting(database: Path) -> set[str]:
    """Calls that wait to be sent."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        query = "SELECT call_sid FROM call JOIN outbox ON call_id = call.id"
        return {sid for (sid,) in connection.execute(query)}


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
