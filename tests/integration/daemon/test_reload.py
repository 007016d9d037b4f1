"""The agent told to read its settings again, by SIGHUP as from systemd or by `tenants reassign`; no PBX is needed."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent.calls.rules import CallRules
from agent.cli.client import RunningAgent
from agent.cli.faults import CommandFailed
from agent.store.engine import open_store
from agent.store.writer import FinishedCall, Group, Writer
from tests.agent_process import AgentProcess
from tests.pbx.waiting import wait_until

SETTINGS = 'site = "istanbul-1"\n[[pbx]]\nname = "main"\nport = 1\nusername = "sentiric"\nsecret = "kirk-yedi"\n'
NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


class Systemd:
    """The notification socket, and what was said there."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self._heard: list[str] = []
        self.environ = {"NOTIFY_SOCKET": str(path)}

    def states(self) -> list[str]:
        """READY and RELOADING, as they came."""
        while True:
            try:
                self._heard += self._socket.recv(4096).decode().splitlines()
            except BlockingIOError:
                return [word.partition("=")[0] for word in self._heard if word in {"READY=1", "RELOADING=1"}]

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    manager = Systemd(tmp_path / "notify")
    yield manager
    manager.close()


@pytest.fixture
def agent(tmp_path: Path, systemd: Systemd) -> Iterator[AgentProcess]:
    with_a_call = tmp_path / "agent"
    asyncio.run(_keep_a_call(with_a_call / "state" / "edge.db"))
    process = AgentProcess(with_a_call, SETTINGS, environ=systemd.environ)
    process.start(connected=False)
    wait_until(lambda: systemd.states() == ["READY"], what="READY", seconds=10)
    yield process
    assert process.stop() == 0


async def _keep_a_call(database: Path) -> None:
    database.parent.mkdir(parents=True)
    row = {
        "call_sid": "istanbul-1:main:1", "trace_id": "0" * 32, "site": "istanbul-1", "pbx": "main",
        "direction": "inbound", "status": "completed", "start_time": NOON, "end_time": NOON,
        "legs": [{"channel": "1", "name": "PJSIP/telco-1", "endpoint": "PJSIP/telco", "caller": True}],
    }  # fmt: skip
    async with open_store(database) as store:
        await (await Writer.over(store.connection)).commit(Group(finished=[FinishedCall(row, None)]))


def reassign(agent: AgentProcess) -> Any:  # Any: JSON
    return RunningAgent(agent.directory / "run" / "api.sock").post("/v1/tenants/reassign")


def reload(agent: AgentProcess, systemd: Systemd) -> None:
    agent.reload()
    wait_until(lambda: systemd.states()[1:] == ["RELOADING", "READY"], what="the end of the reload", seconds=10)


def test_mended_trunks_count_for_a_rule_by_trunk_and_need_no_restart(agent: AgentProcess) -> None:
    assert not CallRules().is_trunk("PJSIP/telco")
    rule = '[[tenancy.rules]]\ntenant = "acme"\ntrunk = "PJSIP/telco"\n'
    agent.write_settings(f'{SETTINGS}trunks = ["PJSIP/telco"]\ninbound_contexts = ["pstn"]\n{rule}')

    assert reassign(agent)["assigned"] == {"acme": 1}
    assert "need a restart" not in agent.log()


def test_other_changes_of_a_pbx_are_told_to_need_a_restart(agent: AgentProcess, systemd: Systemd) -> None:
    agent.write_settings(SETTINGS.replace("port = 1", "port = 2") + 'trunks = ["PJSIP/telco"]\n')

    reload(agent, systemd)

    assert "need a restart: pbx" in agent.log()


def test_another_country_and_outside_line_need_no_restart(agent: AgentProcess, systemd: Systemd) -> None:
    agent.write_settings(f'country = "TR"\n{SETTINGS}outside_line_prefixes = ["9"]\n')

    reload(agent, systemd)

    assert "rules were read again" in agent.log()
    assert "need a restart" not in agent.log()


def test_with_the_settings_file_gone_the_old_settings_stay(agent: AgentProcess, systemd: Systemd) -> None:
    agent.settings_file.unlink()

    reload(agent, systemd)

    assert "the old ones stay: there is no settings file" in agent.log()
    assert "Traceback" not in agent.log()
    with pytest.raises(CommandFailed, match=r"^there is no settings file"):
        reassign(agent)


def test_a_reload_while_the_agent_starts_does_not_end_it(tmp_path: Path) -> None:
    process = AgentProcess(tmp_path, SETTINGS)
    process.launch()
    wait_until(lambda: _ignores_hangups(process.pid), what="the command", seconds=10, pause=0.001)

    process.reload()

    wait_until(lambda: "the agent captures" in process.log(), what="the agent", seconds=10)
    assert process.stop() == 0


def _ignores_hangups(pid: int) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) & 1 << signal.SIGHUP - 1)
