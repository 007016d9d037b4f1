"""Two sites, one centre, and all that can go wrong between them: in the end the centre holds what the sites hold.

Hypothesis finds the order of events; outbox, syncer, client, hub and PostgreSQL are real.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import date
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from agent.store.engine import open_store
from sync.central.embedded import EmbeddedPostgres
from sync.errors import SyncError, UplinkUnavailable
from sync.hub_client import HubUplink
from sync.records import Batch, DayDigest, Greeting, HeldCall, Receipt, Welcome
from tests.hub_server import make_credential, running_hub
from tests.integration.sync.site import Site, a_site, to_hub
from tests.postgres import _TEMPLATE, PostgresDatabase, _administer, _create

T = TypeVar("T")

SITES = ("ankara", "istanbul")
TENANTS = ("acme", "globex")
_numbers = count(1)


class BadLine:
    """A hub's uplink over a line that does to each batch what comes next in `faults`, and remembers what was said."""

    def __init__(self, uplink: HubUplink) -> None:
        self._uplink = uplink
        self.lanes = uplink.lanes
        self.faults: list[str] = []
        self.said: list[Batch] = []

    async def greet(self, greeting: Greeting) -> Welcome:
        """See `sync.uplink.Uplink`."""
        return await self._uplink.greet(greeting)

    async def send(self, batch: Batch) -> Receipt:
        """See `sync.uplink.Uplink`."""
        fault = self.faults.pop(0) if self.faults else "none"
        if fault == "lost":
            raise UplinkUnavailable("the batch was lost")
        self.said.append(batch)
        receipt = await self._uplink.send(batch)
        if fault == "twice":
            receipt = await self._uplink.send(batch)
        if fault == "unanswered":
            raise UplinkUnavailable("the hub was killed between commit and answer")
        return receipt

    async def days(self, first: date, last: date) -> Sequence[DayDigest]:
        """See `sync.uplink.Uplink`."""
        return await self._uplink.days(first, last)

    async def calls(self, tenant: str, day: date, *, after: str, limit: int) -> Sequence[HeldCall]:
        """See `sync.uplink.Uplink`."""
        return await self._uplink.calls(tenant, day, after=after, limit=limit)

    async def close(self) -> None:
        """Let go of connections."""
        await self._uplink.close()


class World(RuleBasedStateMachine):
    """Sites at work."""

    server: ClassVar[EmbeddedPostgres]
    empty_store: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="exactly-once-"))
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._has_backup = False
        self._is_behind = dict.fromkeys(SITES, False)  # restored, and not heard of since
        self._cloned: set[str] = set()
        self.sites: dict[str, Site] = {}
        self.lines: dict[str, BadLine] = {}

    def do(self, work: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine is sent and yields
        """Run it on this world's loop."""
        return self._runner.run(work)

    @initialize()
    def begin(self) -> None:
        self.do(self._begin())

    async def _begin(self) -> None:
        self.database = PostgresDatabase(self.server, f"world_{next(_numbers)}")
        await _create(self.server, self.database.name, template=_TEMPLATE)
        self.hub = await self._stack.enter_async_context(running_hub(self.database, site="", connections=2))
        self.credentials = {}
        for name in SITES:
            await self.database.add_site(name, *TENANTS)
            self.credentials[name] = await make_credential(self.database, name)
            await self._install(name, holder=f"{name}-1")

    async def _install(self, name: str, *, holder: str, key: str | None = None) -> Site:
        """A site with a store of its own, or the copy of one."""
        key = key or name
        directory = self._directory / key
        if not directory.exists():
            (directory / "state").mkdir(parents=True)
            shutil.copy(self.empty_store, directory / "state" / "edge.db")
        line = self.lines[key] = BadLine(to_hub(self.hub.port, self.credentials[name]))
        site = self.sites[key] = await self._stack.enter_async_context(
            a_site(directory, line, name=name, holder=holder, batch_records=3)
        )
        return site

    @rule(
        name=st.sampled_from(SITES),
        numbers=st.sets(st.integers(0, 9), min_size=1, max_size=6),
        tenant=st.sampled_from(TENANTS),
        caller=st.text("abc", max_size=2),
    )
    def calls_end_or_are_amended(self, name: str, numbers: set[int], tenant: str, caller: str) -> None:
        self.do(self.sites[name].keep(*sorted(numbers), tenant=tenant, caller_name=caller))

    @rule(
        name=st.sampled_from(SITES),
        faults=st.lists(st.sampled_from(["none", "lost", "unanswered", "twice"]), max_size=3),
    )
    def the_agent_syncs(self, name: str, faults: list[str]) -> None:
        self.lines[name].faults = faults
        if self.do(_synced(self.sites[name])):
            self._is_behind[name] = False

    @rule(name=st.sampled_from(SITES), which=st.integers(0, 50))
    def an_old_batch_arrives_late(self, name: str, which: int) -> None:
        said = self.lines[name].said
        if said:
            self.do(self._sent_again(name, said[which % len(said)]))

    async def _sent_again(self, name: str, batch: Batch) -> None:
        uplink = to_hub(self.hub.port, self.credentials[name])
        with suppress(SyncError):
            await uplink.send(batch)
        await uplink.close()

    @rule(name=st.sampled_from(SITES))
    def the_machine_is_rebooted(self, name: str) -> None:
        self.sites[name].reboot()
        self.do(self.database.execute("UPDATE site SET lease_until = now() - interval '1 s'"))  # time goes by

    @rule()
    def the_centre_is_backed_up(self) -> None:
        self.do(self._copy(self.database.name, f"{self.database.name}_backup"))
        self._has_backup = True

    @precondition(lambda self: self._has_backup)
    @rule()
    def the_centre_is_restored(self) -> None:
        self.do(self._copy(f"{self.database.name}_backup", self.database.name))
        self._is_behind = dict.fromkeys(SITES, True)

    async def _copy(self, origin: str, copy: str) -> None:
        """As a dump and its restore would, while nobody is connected."""
        await _administer(self.server, f'DROP DATABASE IF EXISTS "{copy}" WITH (FORCE)')
        await _administer(
            self.server, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{origin}'"
        )
        await _create(self.server, copy, template=origin)

    @rule(name=st.sampled_from(SITES))
    def a_clone_appears(self, name: str) -> None:
        if not self._is_behind[name] and name not in self._cloned and self.do(_synced(self.sites[name])):
            self._cloned.add(name)
            self.do(self._cloned_and_refused(name))

    async def _cloned_and_refused(self, name: str) -> None:
        clone = await self._install(name, holder=f"{name}-clone", key=f"{name}-clone")
        await clone.outbox.keep_standing(await self.sites[name].outbox.standing())
        await clone.keep(90, 91)
        assert not await _synced(clone)
        assert not await clone.sent()

    def teardown(self) -> None:
        """All is well again, and both sides are compared."""
        try:
            if self.sites:
                self.do(self._all_is_the_same())
        finally:
            self.do(self._end())
            self._runner.close()
            shutil.rmtree(self._directory)

    async def _all_is_the_same(self) -> None:
        held: set[tuple[str, str, int]] = set()
        for name in SITES:
            self.lines[name].faults = []
            site = self.sites[name]
            for _ in range(5):
                if await _synced(site):
                    break
            assert await site.sent(), site.syncer.status
            assert (await site.outbox.backlog()).quarantined == 0
            assert (await site.reconcile())[1].differing == 0
            held |= await site.held()
        rows = await self.database.fetch(
            "SELECT tenant.name, call_sid, revision FROM call JOIN tenant ON tenant.id = call.tenant_id"
        )
        assert sorted(tuple(row) for row in rows) == sorted(held)

    async def _end(self) -> None:
        await self._stack.aclose()
        if self.sites:
            for name in (self.database.name, f"{self.database.name}_backup"):
                await _administer(self.server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


async def _synced(site: Site) -> bool:
    """What an agent that was just started does; whether all went through."""
    site.restart()
    return await site.syncer.drain(timeout=20)


@pytest.mark.filterwarnings("ignore:The recursion limit")  # the hub raises it
def test_in_the_end_the_centre_holds_what_the_sites_hold(postgres_server: EmbeddedPostgres, tmp_path: Path) -> None:
    asyncio.run(_made(tmp_path / "edge.db"))

    class Here(World):
        server = postgres_server
        empty_store = tmp_path / "edge.db"

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=10, stateful_step_count=14, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


async def _made(database: Path) -> None:
    async with open_store(database):
        pass
