"""`edge-agent reconcile` while no agent runs, against a real hub; a running agent's is in test_enroll."""

import asyncio
import json
import subprocess
from pathlib import Path

from tests.agent_process import RUN
from tests.hub_server import RunningHub, hub, hub_address
from tests.integration.store.facts import START
from tests.integration.sync.site import a_site, running, to_hub, until

__all__ = ["hub", "hub_address"]


async def test_what_the_centre_lost_is_told_and_healed_without_an_agent(hub: RunningHub, tmp_path: Path) -> None:
    async with a_site(tmp_path, to_hub(hub.port, hub.credential)) as site, running(site.syncer):
        await site.keep(*range(30))
        await until(site.sent)
    await hub.database.execute("DELETE FROM call WHERE call_sid LIKE '%7'")
    (tmp_path / "state" / "hub.credential").write_text(hub.credential)
    settings = tmp_path / "agent.toml"
    settings.write_text(
        f'site = "istanbul"\nstate_directory = "state"\nruntime_directory = "run"\n'
        f'[central]\nurl = "http://127.0.0.1:{hub.port}"\n'
    )

    async def reconcile(*options: str) -> subprocess.CompletedProcess[str]:
        command = [*RUN, "reconcile", "--day", START.date().isoformat(), "--config", str(settings), *options]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)

    told = await reconcile()
    assert told.returncode == 1, told.stderr
    assert "3 not at the centre" in told.stdout
    assert "not at the centre: istanbul:main:17" in told.stdout
    assert "--heal sends them again" in told.stdout

    healed = await reconcile("--heal")
    assert healed.returncode == 0, healed.stderr
    assert "3 calls will be sent again" in healed.stdout

    waiting = json.loads((await reconcile("--json")).stdout)  # they wait, so nothing differs
    assert (waiting["calls"], waiting["differing"], waiting["days"]) == (27, 0, [])
    async with a_site(tmp_path, to_hub(hub.port, hub.credential)) as site, running(site.syncer):
        await until(site.sent)
    again = await reconcile()
    assert (again.returncode, again.stdout) == (0, f"The same on both sides: 30 calls, {START.date()}.\n")
    wrong = await reconcile("--from", "2026-01-01")
    assert wrong.returncode == 2
