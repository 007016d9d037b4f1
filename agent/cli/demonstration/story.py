"""The course of the demonstration: calls come in, PostgreSQL goes away and comes back, all calls arrive."""

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.cli.demonstration.account import Account
from agent.cli.demonstration.parts import Parts, running_parts
from agent.cli.demonstration.view import Picture, View
from agent.cli.faults import CommandFailed
from agent.cli.output import Colour, is_terminal, painted, say
from agent.simulator.scenarios import plan_calls
from agent.simulator.server import Simulator

_PACE: Final = 0.08  # calls twelve times as fast as in real life: more of them end while somebody looks on
_LONGEST_TALK_SECONDS: Final = 60.0  # before the pace; some people talk for half an hour
_LAST_CALLS_SECONDS: Final = 8.0  # before the end no more calls come in, so that those under way can end
_ROUND_SECONDS: Final = 60.0  # without an end PostgreSQL goes away in the middle of every minute
_DRAIN_SECONDS: Final = 60.0
_SHOW_SECONDS: Final = 0.5
_NEWEST: Final = 12


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the person asked for."""

    seconds: float
    rate: float
    seed: int
    keep: Path | None

    @property
    def placing_seconds(self) -> float:
        """How long calls come in; without end if `seconds` is 0."""
        if not self.seconds:
            return float("inf")
        return self.seconds - min(_LAST_CALLS_SECONDS, self.seconds / 4)

    def centre_is_wanted(self, elapsed: float) -> bool:
        """Not in the middle third."""
        round_seconds = self.seconds or _ROUND_SECONDS
        return not round_seconds / 3 <= elapsed % round_seconds < round_seconds * 2 / 3


async def tell(wishes: Wishes) -> bool:
    """Show it all; whether in the end all sides hold the same calls."""
    say("Starting a PostgreSQL, a hub, a simulated PBX and the agent, all in temporary directories …")
    async with _interruptible() as interrupted, running_parts(pace=_PACE, keep=wishes.keep) as parts:
        show = _Show(wishes, parts)
        await show.run(interrupted)
        account = await show.drained()
        status = await parts.agent.status()
    if is_terminal():
        say()
    for line in account.lines():
        say(line)
    if status is not None and status.get("resident_bytes"):
        say(f"The agent used {status['resident_bytes'] / 2**20:.0f} MiB of memory.")
    if wishes.keep is not None:
        say(f"Logs, settings and the local database are in {wishes.keep}.")
    say(painted("The demo is fine.", Colour.GOOD) if account.is_equal else painted("The demo FAILED.", Colour.BAD))
    return account.is_equal


class _Show:
    """Runs the story and looks at it."""

    def __init__(self, wishes: Wishes, parts: Parts) -> None:
        self._wishes = wishes
        self._parts = parts
        self._view = View()
        self._started = time.monotonic()
        self._placing = True
        self._centre_is_up = True
        self._arrived: set[str] = set()

    async def run(self, interrupted: asyncio.Event) -> None:
        """Until the time is over or Ctrl-C."""
        self._started = time.monotonic()
        placing = asyncio.create_task(_place_calls(self._parts.simulator, self._wishes), name="calls")
        try:
            while not interrupted.is_set() and self._more_time():
                if self._placing and self._elapsed() >= self._wishes.placing_seconds:
                    placing.cancel()
                    self._placing = False
                    self._view.tell("No more calls come in; those under way end.")
                await self._keep_centre(self._wishes.centre_is_wanted(self._elapsed()))
                await self._look()
                await _wait(interrupted, _SHOW_SECONDS)
        finally:
            placing.cancel()
            self._placing = False
        if placing.done() and not placing.cancelled():
            placing.result()

    async def drained(self) -> Account:
        """Wait until every call has ended and arrived, then compare."""
        self._view.tell("Waiting until every call has ended and arrived …")
        await self._keep_centre(wanted=True)
        deadline = time.monotonic() + _DRAIN_SECONDS
        simulator = self._parts.simulator
        while True:
            await self._look()
            is_over = simulator.live_calls == 0 and len(self._arrived) >= len(simulator.ended)
            if (is_over and await self._outbox_is_empty()) or time.monotonic() > deadline:
                return await self._parts.account()
            await asyncio.sleep(_SHOW_SECONDS)

    async def _outbox_is_empty(self) -> bool:
        status = await self._parts.agent.status()
        return status is not None and not status["backlog"]["waiting"]

    async def _keep_centre(self, wanted: bool) -> None:
        if wanted == self._centre_is_up:
            return
        self._centre_is_up = wanted
        if wanted:
            await self._parts.start_centre()
            self._view.tell("PostgreSQL is back.")
        else:
            await self._parts.stop_centre()
            self._view.tell("PostgreSQL is taken away.")

    async def _look(self) -> None:
        parts = self._parts
        parts.agent.check()
        captured, newest = parts.newest_captured(_NEWEST)
        if self._centre_is_up:
            self._arrived = await parts.arrived() or self._arrived
        self._view.show(
            Picture(
                elapsed_seconds=self._elapsed(),
                total_seconds=self._wishes.seconds,
                placing=self._placing,
                centre_is_up=self._centre_is_up,
                placed=parts.simulator.placed,
                live=parts.simulator.live_calls,
                captured=captured,
                arrived=len(self._arrived),
                waiting=max(0, captured - len(self._arrived)),
                newest=newest,
                arrived_sids=frozenset(row["call_sid"] for row in newest if row["call_sid"] in self._arrived),
            )
        )

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _more_time(self) -> bool:
        return not self._wishes.seconds or self._elapsed() < self._wishes.seconds


async def _place_calls(simulator: Simulator, wishes: Wishes) -> None:
    """Calls at random moments, as people make them, yet the same ones for the same seed."""
    dice = random.Random(wishes.seed)  # noqa: S311 - nothing secret
    for plan in plan_calls(wishes.seed):
        simulator.place(replace(plan, talk_seconds=min(plan.talk_seconds, _LONGEST_TALK_SECONDS)))
        await asyncio.sleep(dice.expovariate(wishes.rate))


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


@asynccontextmanager
async def _interruptible() -> AsyncIterator[asyncio.Event]:
    """Set by Ctrl-C, which then ends the story in good order; a second one, or a lost terminal, ends it at once."""
    loop, event, task = asyncio.get_running_loop(), asyncio.Event(), asyncio.current_task()
    was_asked_to_leave = False

    def leave() -> None:
        nonlocal was_asked_to_leave
        was_asked_to_leave = True
        if task is not None:
            task.cancel()

    def interrupt() -> None:
        if event.is_set():
            leave()
        event.set()

    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGINT: interrupt,
        signal.SIGTERM: interrupt,
        signal.SIGHUP: leave,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield event
    except asyncio.CancelledError:
        if not was_asked_to_leave:
            raise
        raise CommandFailed("the demo was broken off; everything it started is gone") from None
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
