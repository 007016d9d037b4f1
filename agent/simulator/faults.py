"""What goes wrong by itself while the simulator runs, again and again, at moments that a seed decides."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from agent.simulator.server import Simulator

_SHORTEST: Final = 0.5
_LONGEST: Final = 1.5


@dataclass(frozen=True, slots=True)
class Faults:
    """Each fault comes about every so many seconds; None: never."""

    drop_every_seconds: float | None = None
    stall_every_seconds: float | None = None
    stall_seconds: float = 5.0
    half_open_every_seconds: float | None = None
    restart_every_seconds: float | None = None
    kill_every_seconds: float | None = None


async def disturb(simulator: Simulator, faults: Faults, *, seed: int) -> None:
    """Until cancelled."""

    async def drop() -> None:
        simulator.drop_lines()

    async def stall() -> None:
        simulator.stall(faults.stall_seconds)

    async def half_open() -> None:
        simulator.half_open()

    kinds: tuple[tuple[str, float | None, Callable[[], Awaitable[None]]], ...] = (
        ("drop", faults.drop_every_seconds, drop),
        ("stall", faults.stall_every_seconds, stall),
        ("half-open", faults.half_open_every_seconds, half_open),
        ("restart", faults.restart_every_seconds, simulator.restart),
        ("kill", faults.kill_every_seconds, simulator.kill),
    )
    away = asyncio.Lock()  # a PBX that is being restarted is not killed at the same time
    async with asyncio.TaskGroup() as tasks:
        for number, (name, every, act) in enumerate(kinds):
            if every is not None:
                dice = random.Random(seed * len(kinds) + number)
                tasks.create_task(_again_and_again(dice, every, act, away), name=f"fault-{name}")
        await asyncio.get_running_loop().create_future()


async def _again_and_again(
    dice: random.Random, every_seconds: float, act: Callable[[], Awaitable[None]], away: asyncio.Lock
) -> None:
    while True:
        await asyncio.sleep(every_seconds * dice.uniform(_SHORTEST, _LONGEST))
        async with away:
            await act()
