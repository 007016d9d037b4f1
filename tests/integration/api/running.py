"""The services' API over a real desk and database, with the tracker's part played by the test."""

import asyncio
import socket as socketlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from agent.api.access import Access
from agent.api.services import serving_services
from agent.calls.wishes import Limits
from agent.store import services
from agent.store.services import Registered, Service, hash_of
from config.settings import ApiSettings
from tests.integration.live.desks import Site, site_at

NO_GROUP = "no-such-group"


@dataclass(slots=True)
class RunningApi:
    """What answers, and who asks."""

    site: Site
    socket: Path
    port: int
    access: Access
    stack: AsyncExitStack
    tokens: dict[str, str] = field(default_factory=dict)

    async def add(self, name: str, *tenants: str, read_only: bool = False) -> str:
        """A service for these tenants, or for all; its token."""
        token = self.tokens[name] = f"edge_token_of_{name}"
        service = Service(name, tenants=frozenset(tenants) or None, may_write=not read_only)
        new = Registered(service, token_hash=hash_of(token), added_at=datetime.now(UTC))
        assert await self.site.writer.transact(partial(services.add, new=new))
        await self._use()
        return token

    async def remove(self, name: str) -> None:
        """It may nothing any more."""
        assert await self.site.writer.transact(partial(services.remove, name=name))
        await self._use()

    async def client(self, name: str, *tenants: str, read_only: bool = False) -> httpx.AsyncClient:
        """A service at the socket."""
        return await self.asking(await self.add(name, *tenants, read_only=read_only))

    async def asking(self, token: str | None = None, *, by_port: bool = False) -> httpx.AsyncClient:
        """Somebody with this token, or none."""
        return await self.stack.enter_async_context(
            httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=None if by_port else str(self.socket)),
                base_url=f"http://127.0.0.1:{self.port}",
                headers={"Authorization": f"Bearer {token}"} if token else {},
                timeout=10,
            )
        )

    async def _use(self) -> None:
        self.access.use(await self.site.store.connection.run(services.read_all))


@asynccontextmanager
async def running_api(
    directory: Path,
    *,
    limits: Limits | None = None,
    seconds: float = 20,
    **settings: Any,  # Any: the settings' own types
) -> AsyncIterator[RunningApi]:
    """Everything runs inside this process, and ends with the block."""
    chosen = ApiSettings.model_validate({"group": NO_GROUP, "listen": f"127.0.0.1:{(port := free_port())}", **settings})
    access = Access(chosen.socket_access)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:

        def spawn(work: Awaitable[None]) -> asyncio.Task[None]:
            return tasks.create_task(_run(work), name="api")

        site = await stack.enter_async_context(site_at(directory, limits=limits, seconds=seconds))
        clients = await stack.enter_async_context(AsyncExitStack())
        socket = directory / "services.sock"
        async with serving_services(
            site.desk, access, limits=limits or Limits(), settings=chosen, socket_file=socket, spawn=spawn
        ):
            yield RunningApi(site, socket, port, access, clients)


def free_port() -> int:
    """Nobody listens there now."""
    with socketlib.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def _run(work: Awaitable[None]) -> None:
    await work


def events_of(text: str) -> list[tuple[str, str]]:
    """Kind and data of each event in a stream."""
    blocks = (dict(line.partition(": ")[::2] for line in block.splitlines()) for block in text.split("\n\n"))
    return [(block["event"], block["data"]) for block in blocks if "event" in block]
