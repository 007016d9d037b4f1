"""A centre restored from a real pg_dump: what was acknowledged after the dump is sent again without a hand."""

import os
import subprocess
from pathlib import Path

from sync.central.embedded import EmbeddedPostgres
from tests.hub_server import RunningHub
from tests.integration.sync.site import a_site, running, to_hub, until
from tests.postgres import PostgresDatabase, _administer, _create


def _run(server: EmbeddedPostgres, program: str, *arguments: str) -> None:
    """One of PostgreSQL's own programs, beside the server's."""
    options = ["-h", server.host, "-p", str(server.port), "-U", server.user]
    subprocess.run(
        [str(server._programs / program), *options, *arguments],
        env={**os.environ, "PGPASSWORD": server.password},
        check=True,
        timeout=60,
    )


def dump(database: PostgresDatabase, file: Path) -> None:
    """Back it up, as a nightly job would."""
    _run(database.server, "pg_dump", "-Fc", "-f", str(file), database.name)


async def restore(database: PostgresDatabase, file: Path) -> None:
    """Put what was backed up in its place."""
    await _administer(database.server, f'DROP DATABASE "{database.name}" WITH (FORCE)')
    await _create(database.server, database.name)
    _run(database.server, "pg_restore", "-d", database.name, str(file))


async def _revisions(database: PostgresDatabase) -> set[tuple[str, int]]:
    return {tuple(row) for row in await database.fetch("SELECT call_sid, revision FROM call")}


async def test_a_thousand_calls_acknowledged_after_the_dump_come_back(hub: RunningHub, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    uplink = to_hub(hub.port, hub.credential)
    async with a_site(tmp_path, uplink, lease_seconds=10) as site, running(site.syncer):
        await site.keep(*range(500))
        await until(site.sent)
        dump(hub.database, backup)
        await site.keep(*range(10), caller_name="Learned after the dump")
        await site.keep(*range(500, 1500))
        await until(site.sent)

        await restore(hub.database, backup)
        assert len(await _revisions(hub.database)) == 500
        await until(lambda: site.syncer.status.refilled == 1010)  # when it renews its lease
        await until(site.sent)

        assert await _revisions(hub.database) == {(sid, revision) for _, sid, revision in await site.held()}
        assert (await site.reconcile())[1].differing == 0
        assert len(await _revisions(hub.database)) == 1500


async def test_a_running_agent_notices_with_its_next_call(hub: RunningHub, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with a_site(tmp_path, to_hub(hub.port, hub.credential)) as site, running(site.syncer):
        await site.keep(*range(10))
        await until(site.sent)
        dump(hub.database, backup)
        await site.keep(*range(10, 20))
        await until(site.sent)
        await restore(hub.database, backup)

        await site.keep(20)
        await until(lambda: site.syncer.status.refilled)
        await until(site.sent)

        assert await _revisions(hub.database) == {(sid, revision) for _, sid, revision in await site.held()}
