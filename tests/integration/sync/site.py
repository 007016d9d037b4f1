"""A site for tests of the whole way: a real SQLite store, its outbox, the syncer and the hub's client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from agent.store.engine import Store, open_store
from agent.store.outbox import SqliteOutbox
from agent.store.outbox_rows import ENCODED
from agent.store.tally import SqliteTally
from agent.store.writer import FinishedCall, Group, Writer
from config.settings import CentralSettings
from sync.backoff import Backoff
from sync.hub_client import HubAddress, HubUplink
from sync.reconciler import DayFound, Reconciled, Reconciler
from sync.syncer import Identity, Syncer
from sync.uplink import Uplink
from tests.integration.store.facts import START, row


@dataclass
class Site:
    """One installation: what it holds, and its way to the centre."""

    name: str
    store: Store
    writer: Writer
    outbox: SqliteOutbox
    uplink: Uplink
    syncer: Syncer
    settings: CentralSettings
    identity: Identity

    def restart(self) -> None:
        """The agent forgets what it did not write down."""
        self.syncer = _a_syncer(self.outbox, self.uplink, self.settings, self.identity)

    def reboot(self) -> None:
        """The machine was down, so another installation speaks for the site now."""
        self.identity = replace(self.identity, holder=f"{self.identity.holder}+")
        self.restart()

    def sid(self, number: int) -> str:
        """The call_sid of the call of this number."""
        return f"{self.name}:main:{number}"

    async def keep(self, *numbers: int, tenant: str = "acme", **changes: Any) -> None:
        """Calls ended, or something was learned about them."""
        calls = [
            FinishedCall(row(number, call_sid=self.sid(number), site=self.name, **changes), tenant)
            for number in numbers
        ]
        await self.writer.commit(Group(finished=calls))
        self.syncer.wake()

    async def held(self) -> set[tuple[str, str, int]]:
        """Every call with tenant and revision."""
        query = "SELECT tenant.name, call_sid, revision FROM call JOIN tenant ON tenant.id = tenant_id"
        return set(await self.store.reader.run(lambda connection: connection.execute(query).fetchall()))

    async def sent(self) -> bool:
        """Whether nothing waits."""
        return not (await self.outbox.backlog()).records

    async def reconcile(self, *, heal: bool = False) -> tuple[list[DayFound], Reconciled]:
        """Compare the day of the calls with the centre."""
        reconciler = Reconciler(SqliteTally(self.store.path, self.writer), self.uplink)
        *days, total = [step async for step in reconciler.run(START.date(), START.date(), heal=heal)]
        assert isinstance(total, Reconciled)
        return [day for day in days if isinstance(day, DayFound)], total


@asynccontextmanager
async def a_site(
    directory: Path, uplink: Uplink, *, name: str = "istanbul", holder: str = "a-holder", **changes: Any
) -> AsyncIterator[Site]:
    """A site whose syncer is not running yet; `changes` are of its [central] section."""
    settings = CentralSettings.model_validate({"url": "http://127.0.0.1", "interval_seconds": 3600} | changes)
    identity = Identity(name, "1.2.3", holder=holder, host=f"{holder}.example")
    async with open_store(directory / "state" / "edge.db") as store:
        writer = await Writer.over(store.connection)
        outbox = SqliteOutbox(store, writer, site=name, form=ENCODED)
        syncer = _a_syncer(outbox, uplink, settings, identity)
        yield Site(name, store, writer, outbox, uplink, syncer, settings, identity)
        await uplink.close()


def _a_syncer(outbox: SqliteOutbox, uplink: Uplink, settings: CentralSettings, identity: Identity) -> Syncer:
    backoff = Backoff(maximum=0.1, initial=0.02, stable_seconds=0)
    return Syncer(outbox, uplink, settings, identity=identity, backoff=backoff)


def to_hub(port: int, credential: str | None = None, **changes: Any) -> HubUplink:
    """The way to a hub on this machine; `changes` are of its address."""
    address = HubAddress(
        f"http://127.0.0.1:{port}", credential=SecretStr(credential) if credential else None, timeout_seconds=20
    )
    return HubUplink(replace(address, **changes), lanes=4)


@asynccontextmanager
async def running(syncer: Syncer) -> AsyncIterator[None]:
    """The syncer works while the block runs."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(syncer.run())
        try:
            yield
        except TimeoutError as exc:
            exc.add_note(str(syncer.status))
            raise
        task.cancel()


async def until(condition: Callable[[], Any], *, seconds: float = 20) -> None:
    """Return once it holds; it may be a coroutine's."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.005)
