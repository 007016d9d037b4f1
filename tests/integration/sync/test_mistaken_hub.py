"""A hub that is wrong for a while: what it refuses waits, and goes when the hub is mended."""

from pathlib import Path

import pytest

from agent.store.quarantine import Chosen
from sync.syncer import SyncState
from tests.hub_server import RunningHub
from tests.integration.sync.site import Site, a_site, running, to_hub, until

_CALLS = 200
_BOUND = 20  # calls that are set aside before the hub is doubted


async def _paused(site: Site) -> int:
    """How many were set aside until the site doubted its hub."""
    await until(lambda: site.syncer.status.state is SyncState.PAUSED)
    backlog = await site.outbox.backlog()
    sent = site.syncer.status.sent
    assert backlog.quarantined <= _BOUND + sent / 4
    assert backlog.records + backlog.quarantined + sent == _CALLS
    assert "edge-agent sync now" in (site.syncer.status.last_error or "")
    return backlog.quarantined


async def _tried_again(site: Site) -> None:
    tried = site.syncer.status.next_try_at
    site.syncer.wake_now()
    await until(lambda: site.syncer.status.next_try_at != tried)


async def _everything_arrives(site: Site, hub: RunningHub) -> None:
    site.syncer.wake_now()
    await until(site.sent)
    await site.outbox.retry(Chosen())
    site.syncer.wake_now()
    await until(site.sent)
    assert len(await hub.database.fetch("SELECT 1 FROM call")) == _CALLS


@pytest.mark.parametrize("refused", ["true", "right(call_sid, 1) <> '7'"])
async def test_a_database_that_refuses_calls_fills_no_quarantine(hub: RunningHub, tmp_path: Path, refused: str) -> None:
    await hub.database.execute(f"ALTER TABLE call ADD CONSTRAINT mistaken CHECK (NOT ({refused})) NOT VALID")
    async with a_site(tmp_path, to_hub(hub.port, hub.credential), batch_records=40) as site:
        await site.keep(*range(_CALLS))
        async with running(site.syncer):
            await _paused(site)
            for _ in range(3):  # an operator who is impatient, or time that passes
                await _tried_again(site)
                await _paused(site)

            await hub.database.execute("ALTER TABLE call DROP CONSTRAINT mistaken")
            await _everything_arrives(site, hub)


async def test_neither_does_a_registry_that_lost_the_site_s_tenants(hub: RunningHub, tmp_path: Path) -> None:
    await hub.database.execute("DELETE FROM site_tenant")
    async with a_site(tmp_path, to_hub(hub.port, hub.credential), batch_records=7) as site:
        await site.keep(*range(_CALLS))
        async with running(site.syncer):
            await _paused(site)

            await hub.database.grant("istanbul", "acme")
            site.syncer.wake_now()
            await until(site.sent)  # what was set aside goes by itself
            assert (await site.outbox.backlog()).quarantined == 0
            assert len(await hub.database.fetch("SELECT 1 FROM call")) == _CALLS
