"""Enrolment as a technician does it: on a running agent, against a real hub."""

import asyncio
import json
import os
import stat
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sync.central import sites
from sync.hub.serve import TlsFiles
from tests.agent_process import RUN, AgentProcess
from tests.hub_server import RunningHub, hub, hub_address, running_hub
from tests.integration.pbx.authority import Authority
from tests.integration.sync.site import until
from tests.postgres import PostgresDatabase

__all__ = ["hub", "hub_address"]

SETTINGS = 'site = "istanbul"\n[tenancy]\ndefault = "acme"\n[log]\nlevel = "info"\n'


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[AgentProcess]:
    """One that runs and has no centre."""
    process = AgentProcess(tmp_path / "agent", SETTINGS)
    await asyncio.to_thread(process.start)
    yield process
    await asyncio.to_thread(process.kill)


async def enroll(
    agent: AgentProcess, hub: RunningHub, code: str, *options: str, url: str = ""
) -> subprocess.CompletedProcess[str]:
    """`edge-agent enroll`, the code on its standard input."""
    return await asyncio.to_thread(
        subprocess.run,
        [*RUN, "enroll", url or f"http://127.0.0.1:{hub.port}", "--config", str(agent.settings_file), *options],
        input=f"{code}\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def new_code(hub: RunningHub, site: str = "istanbul") -> str:
    async with hub.database.connection() as connection:
        return await sites.new_code(connection, site, who="test")


async def command(agent: AgentProcess, *arguments: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(agent.command, *arguments)


async def state_of(agent: AgentProcess) -> str:
    status = await asyncio.to_thread(agent.status)
    return str(status["central"]["state"])


async def test_a_site_is_enrolled_revoked_enrolled_again_and_its_credential_rotated(
    hub: RunningHub, agent: AgentProcess
) -> None:
    code = await new_code(hub)
    done = await enroll(agent, hub, code.lower().replace("-", " "))

    assert done.returncode == 0, done.stderr
    credential = agent.directory / "state" / "hub.credential"
    assert stat.S_IMODE(credential.stat().st_mode) == 0o600
    secret = credential.read_text().strip()
    assert secret not in done.stdout + done.stderr
    assert "it may send calls of: acme" in done.stdout
    assert "systemctl restart sentiric-edge-agent" in done.stdout
    assert agent.settings_file.read_text().endswith(f'[central]\nurl = "http://127.0.0.1:{hub.port}"\n')
    await asyncio.to_thread(agent.stop)
    await asyncio.to_thread(agent.start)

    async def is_idle() -> bool:
        return await state_of(agent) == "idle"

    await until(is_idle)
    reconciled = await command(agent, "reconcile", "--json")
    assert (reconciled.returncode, json.loads(reconciled.stdout)["differing"]) == (0, 0)

    rotated = await command(agent, "credential", "rotate")
    assert rotated.returncode == 0, rotated.stderr
    assert "the running agent has greeted the hub with it" in rotated.stdout
    assert credential.read_text().strip() != secret

    await hub.database.execute("UPDATE credential SET revoked_at = now()")
    now = await command(agent, "sync", "now")
    assert now.returncode == 2
    assert "edge-agent enroll" in now.stdout
    assert await state_of(agent) == "paused"

    again = await enroll(agent, hub, await new_code(hub), "--replace")
    assert again.returncode == 0, again.stderr
    assert "the running agent has greeted the hub with it" in again.stdout
    assert await state_of(agent) == "idle"
    assert secret not in agent.log()


async def test_what_is_wrong_is_told_and_changes_nothing(hub: RunningHub, agent: AgentProcess) -> None:
    before = agent.settings_file.read_text()
    code = await new_code(hub)
    await hub.database.add_site("ankara", "acme")
    for given, options, told in (
        ("ABCD", (), "this is no enrolment code"),
        ("0000-0000-0000-0000", (), "does not know this enrolment code"),
        (await new_code(hub, "ankara"), (), "ankara"),
        (code, ("--site", "ankara"), "the settings say that this is site 'istanbul'"),
        (code, ("--ca", "/nowhere.pem"), "cannot use the CA file /nowhere.pem"),
    ):
        done = await enroll(agent, hub, given, *options)
        assert done.returncode == 2
        assert told in done.stderr

    assert agent.settings_file.read_text() == before
    assert list((agent.directory / "state").glob("*hub.credential*")) == []
    assert (await enroll(agent, hub, code)).returncode == 0  # none of it used the code up
    used = await enroll(agent, hub, code, "--replace")
    assert used.returncode == 2
    assert "was used already" in used.stderr
    twice = await enroll(agent, hub, await new_code(hub))
    assert "enrolled already" in twice.stderr


async def test_another_centre_is_replaced_only_when_asked_and_stays_as_a_comment(
    hub: RunningHub, agent: AgentProcess
) -> None:
    agent.write_settings(
        f'{SETTINGS}[central]\nurl = "postgresql://edge@old/calls"  # theirs\nbatch_records = 10\n\n[store]\n'
    )
    refused = await enroll(agent, hub, await new_code(hub))
    assert refused.returncode == 2
    assert "names another centre, old:5432/calls; --replace" in refused.stderr

    done = await enroll(agent, hub, await new_code(hub), "--replace")
    assert done.returncode == 0, done.stderr
    text = agent.settings_file.read_text()
    assert '# url = "postgresql://edge@old/calls"  # theirs\n# batch_records = 10\n' in text
    assert "\n[store]\n" in text
    checked = await command(agent, "config", "check")
    assert checked.returncode == 0, checked.stderr


async def test_the_authority_and_the_proxy_that_the_settings_name_for_this_hub_are_used(
    central_database: PostgresDatabase, agent: AgentProcess, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.server("localhost")
    files = TlsFiles(authority.ca_file.with_name("localhost.pem"), authority.ca_file.with_name("localhost.key"))
    async with running_hub(central_database, tls=files) as hub:
        url = f"https://localhost:{hub.port}"
        for nth in (f'tls_ca_file = "{authority.ca_file}"\nbatch_records = 10\n', ""):
            if nth:
                agent.write_settings(f'{SETTINGS}[central]\nurl = "{url}"\n{nth}')
            before = agent.settings_file.read_text()
            done = await enroll(agent, hub, await new_code(hub), *([] if nth else ["--replace"]), url=url)
            assert done.returncode == 0, done.stderr
            assert agent.settings_file.read_text() == before

        agent.write_settings(f'{SETTINGS}[central]\nurl = "https://hub.example"\nproxy = "http://127.0.0.1:9"\n')
        done = await enroll(agent, hub, await new_code(hub), "--replace", url="https://hub.example")
        assert "Connection refused" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give the state directory to another user")
async def test_an_authority_that_the_service_could_not_read_is_refused_before_the_code_is_used(
    hub: RunningHub, agent: AgentProcess, tmp_path: Path
) -> None:
    authority, before = Authority(tmp_path), agent.settings_file.read_text()
    os.chown(agent.directory / "state", 65534, 65534)
    code = await new_code(hub)

    done = await enroll(agent, hub, code, "--ca", str(authority.ca_file))

    assert done.returncode == 2
    assert f"the agent's user cannot read {authority.ca_file}; put it into /etc/sentiric-edge" in done.stderr
    assert agent.settings_file.read_text() == before
    assert (await enroll(agent, hub, code)).returncode == 0
