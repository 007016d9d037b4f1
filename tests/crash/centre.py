"""The centre of the laboratory: a real PostgreSQL and hub that are killed and come back, behind lines of ours."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from typing import Final, Self

from tests.crash.line import TroubledLine
from tests.hub_process import HubProcess
from tests.hub_server import make_credential, make_hub_login
from tests.postgres import PostgresDatabase

TENANTS: Final = ("acme", "globex")
_CALM_SECONDS: Final = (0.3, 2.0)  # between two faults
_FAULT_SECONDS: Final = (0.05, 1.2)
_TIMEOUT_SECONDS: Final = 2  # that agents wait for an answer; a stall may be longer or shorter


class Door(StrEnum):
    """By which way a site sends."""

    DIRECT = "direct"
    HUB = "hub"


class Centre:
    """`troubles` disturbs until it is cancelled; afterwards everything is there and quiet."""

    def __init__(self, database: PostgresDatabase, dice: random.Random) -> None:
        self.database = database
        self.faults: Counter[str] = Counter()
        self.undisturbed = asyncio.Lock()  # held during a fault, and by whoever wants none
        self._dice = dice
        self._hub: HubProcess | None = None
        self._hub_dsn = ""
        self._to_database: TroubledLine
        self._to_hub: TroubledLine

    @classmethod
    @asynccontextmanager
    async def open(cls, database: PostgresDatabase, *, seed: int, hub: bool = True) -> AsyncIterator[Self]:
        """A centre over a database that has its tables; without a hub only for the direct door."""
        dice = random.Random(seed)
        centre = cls(database, dice)
        async with AsyncExitStack() as stack:
            server = database.server
            centre._to_database = await stack.enter_async_context(TroubledLine.open(lambda: server.port, dice))
            centre._to_hub = await stack.enter_async_context(TroubledLine.open(centre._hub_port, dice))
            stack.push_async_callback(centre._stop_hub)
            if hub:
                address = await make_hub_login(database)
                centre._hub_dsn = address.dsn.replace(f":{server.port}/", f":{centre._to_database.port}/")
                await centre._start_hub()
            yield centre

    async def add_site(self, site: str, door: Door) -> str:
        """Let a site send; returns its [central] section."""
        async with self.undisturbed:
            await self.database.add_site(site, *TENANTS)
            credential = await make_credential(self.database, site)
        common = f"timeout_seconds = {_TIMEOUT_SECONDS}\nretry_max_seconds = 1\n"
        if door is Door.HUB:
            return f'[central]\nurl = "http://127.0.0.1:{self._to_hub.port}"\ncredential = "{credential}"\n{common}'
        server, name = self.database.server, self.database.name
        url = server.url(name).replace(f":{server.port}/", f":{self._to_database.port}/")
        return f'[central]\nurl = "{url}"\npassword = "{server.password}"\n{common}'

    async def forget_receipts(self, site: str, receipts: int) -> None:
        """As after a restore from a backup: the last so many receipts were never given, their calls are not there."""
        query = "UPDATE site SET receipts = greatest(receipts - $2, 0) WHERE name = $1"
        async with self.undisturbed, self.database.connection() as connection:
            await connection.execute(query, site, receipts)

    async def trouble(self) -> None:
        """One fault after the other, until cancelled."""
        faults: list[Callable[[], Awaitable[None]]] = [
            self._cut, self._reset, self._cut_within, self._stall, self._refuse, self._answer_late,
            self._kill_database, self._stop_database, self._freeze_database,
        ]  # fmt: skip
        if self._hub is not None:
            faults.append(self._kill_hub)
        try:
            while True:
                await asyncio.sleep(self._dice.uniform(*_CALM_SECONDS))
                fault = self._dice.choice(faults)
                self.faults[fault.__name__.strip("_")] += 1
                async with self.undisturbed:
                    await fault()
        finally:
            self._to_database.calm()
            self._to_hub.calm()
            server = self.database.server
            await asyncio.shield(asyncio.to_thread(_thaw_and_start, server.thaw, server.start))
            if self._hub is None and self._hub_dsn:
                await self._start_hub()

    def _line(self) -> TroubledLine:
        return self._dice.choice((self._to_database, self._to_hub))

    async def _cut(self) -> None:
        self._line().cut()

    async def _reset(self) -> None:
        self._line().reset()

    async def _cut_within(self) -> None:
        line = self._line()
        line.cut_in(self._dice.randrange(1, 20_000))
        await self._for_a_while()
        line.calm()

    async def _stall(self) -> None:
        line = self._line()
        line.stall()
        await asyncio.sleep(self._dice.choice((0.2, 1.0, _TIMEOUT_SECONDS + 0.5)))
        line.go_on()

    async def _refuse(self) -> None:
        line = self._line()
        line.refuses = True
        line.reset()
        await self._for_a_while()
        line.refuses = False

    async def _answer_late(self) -> None:
        line = self._line()
        line.late_seconds = 0.3
        await self._for_a_while()
        await self._for_a_while()
        line.late_seconds = 0.0

    async def _kill_database(self) -> None:
        await asyncio.to_thread(self.database.server.kill)
        await self._for_a_while()
        await asyncio.to_thread(self.database.server.start)

    async def _stop_database(self) -> None:
        await asyncio.to_thread(self.database.server.stop_hard)
        await self._for_a_while()
        await asyncio.to_thread(self.database.server.start)

    async def _freeze_database(self) -> None:
        self.database.server.freeze()
        await self._for_a_while()
        self.database.server.thaw()

    async def _kill_hub(self) -> None:
        await self._stop_hub()
        await self._for_a_while()
        await self._start_hub()

    async def _for_a_while(self) -> None:
        await asyncio.sleep(self._dice.uniform(*_FAULT_SECONDS))

    def _hub_port(self) -> int:
        if self._hub is None:
            raise ConnectionRefusedError("the hub is down")
        return self._hub.port

    async def _start_hub(self) -> None:
        self._hub = await HubProcess.start(self._hub_dsn, "--connections", "4")

    async def _stop_hub(self) -> None:
        hub, self._hub = self._hub, None
        if hub is not None:
            await hub.kill()


def _thaw_and_start(thaw: Callable[[], None], start: Callable[[], None]) -> None:
    thaw()
    start()
