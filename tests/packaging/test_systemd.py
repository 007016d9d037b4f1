"""The agent as a unit of a booted Debian 12: installed by the README's own words, killed, hung, stopped."""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.packaging.conftest import CHECKOUT, RELEASE
from tests.packaging.machine import Machine

# The first test waits for the wheels and, once ever, for the Debian root.
pytestmark = pytest.mark.timeout(900)

UNIT = "sentiric-edge-agent.service"
PBX_UNIT = "simulated-pbx.service"
VENV = "/opt/sentiric-edge-agent/venv"
CONFIG = "/etc/sentiric-edge/agent.toml"
CREDENTIALS = "/etc/sentiric-edge/credentials"
SECRET = "a secret of the test"
TRUTH = "/root/truth.jsonl"

SETTINGS = """
site = "ist-01"

[[pbx]]
name = "main"
kind = "asterisk"
host = "127.0.0.1"
port = 5038
username = "sentiric"

[tenancy]
default = "acme"
"""

SIMULATED_PBX = f"""
[Service]
ExecStart={VENV}/bin/edge-agent simulate ami --port 5038 --rate 2 --seed 7 \
    --pace 0.2 --username sentiric --secret-file /etc/simulated-pbx.secret --truth {TRUTH} --quiet
"""

# Imported when Python starts. The handler runs in the main thread, between two steps of the event loop.
HANG_ON_SIGUSR2 = """
import signal, time

def hang_for_ever(*_):
    while True:
        time.sleep(3600)

signal.signal(signal.SIGUSR2, hang_for_ever)
"""


class InstalledAgent:
    """The agent on the machine, with the simulated PBX beside it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def calls(self) -> list[dict[str, Any]]:  # Any: the columns' values
        """The ended calls in the agent's database, as a technician lists them."""
        listed = self.machine.run("edge-agent", "calls", "list", "--json", "--limit", "100000")
        calls: list[dict[str, Any]] = json.loads(listed)["calls"]
        return calls

    def call_sids(self) -> list[str]:
        return [call["call_sid"] for call in self.calls()]

    def true_call_sids(self, begun_from: datetime, begun_before: datetime) -> set[str]:
        """The calls of that time that have ended, as the PBX itself knows."""
        calls = (json.loads(line) for line in self.machine.run("cat", TRUTH).splitlines())
        return {
            f"ist-01:main:{call['native_id']}"
            for call in calls
            if begun_from <= datetime.fromisoformat(call["start_time"]) < begun_before
        }

    def main_pid(self) -> int:
        return int(self.machine.unit_property(UNIT, "MainPID"))

    def restarts(self) -> int:
        return int(self.machine.unit_property(UNIT, "NRestarts"))

    def systemctl(self, *arguments: str) -> None:
        self.machine.run("systemctl", *arguments)

    def wait_until_capturing(self, calls: int = 3, *, within: float = 60) -> None:
        """Wait until there are so many calls that were not there before."""
        before = set(self.call_sids())
        self.machine.wait_until(
            lambda: len(set(self.call_sids()) - before) >= calls, f"{calls} new calls", within=within, unit=UNIT
        )

    def wait_until_restarted(self, *, after: int, within: float) -> None:
        self.machine.wait_until(
            lambda: self.restarts() > after, "systemd restarted the agent", within=within, unit=UNIT
        )
        self.machine.wait_for_unit(UNIT, within=within)

    @contextmanager
    def settings(self, text: str) -> Iterator[None]:
        """Other settings, for the length of the block."""
        self.machine.write(CONFIG, text, mode="0640", owner="root:sentiric-edge")
        try:
            yield
        finally:
            self.machine.write(CONFIG, SETTINGS, mode="0640", owner="root:sentiric-edge")

    @contextmanager
    def drop_in(self, text: str) -> Iterator[None]:
        """The unit changed as `systemctl edit` would, for the length of the block."""
        path = f"/etc/systemd/system/{UNIT}.d/override.conf"
        self.machine.write(path, text)
        self.systemctl("daemon-reload")
        try:
            yield
        finally:
            self.machine.run("rm", path)
            self.systemctl("daemon-reload")


@pytest.fixture(scope="module")
def installed(machine: Machine) -> InstalledAgent:
    machine.run("sh", "-exc", f"cd {RELEASE}\n{readme_blocks('sh')[0]}", timeout=300)
    machine.write(CONFIG, SETTINGS, mode="0640", owner="root:sentiric-edge")
    machine.write(f"{CREDENTIALS}/pbx-main-secret", SECRET, mode="0600")
    machine.write("/etc/simulated-pbx.secret", SECRET, mode="0600")
    machine.write(f"/etc/systemd/system/{PBX_UNIT}", SIMULATED_PBX)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", PBX_UNIT)
    return InstalledAgent(machine)


@pytest.fixture
def agent(installed: InstalledAgent) -> Iterator[InstalledAgent]:
    """The agent, freshly started by its unit, and capturing."""
    installed.systemctl("restart", UNIT)
    installed.wait_until_capturing()
    yield installed
    installed.systemctl("stop", UNIT)


def readme_blocks(language: str) -> list[str]:
    """What the technician's page says to type, block by block."""
    text = (CHECKOUT / "systemd" / "README.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def test_systemd_finds_nothing_wrong_with_the_unit(installed: InstalledAgent) -> None:
    installed.machine.run("systemd-analyze", "verify", UNIT)


@pytest.mark.parametrize("unit", [UNIT, "sentiric-edge-hub.service"])
def test_the_units_expose_little(installed: InstalledAgent, unit: str) -> None:
    path = f"{RELEASE}/systemd/{unit}"

    installed.machine.run("systemd-analyze", "security", "--offline=true", "--threshold=15", path)


def test_the_agents_own_directories_are_closed_to_others(installed: InstalledAgent) -> None:
    listed = installed.machine.run(
        "stat", "--format=%a %U:%G %n", "/etc/sentiric-edge", CREDENTIALS, "/var/lib/sentiric-edge"
    )

    assert listed.splitlines() == [
        "750 root:sentiric-edge /etc/sentiric-edge",
        f"700 root:root {CREDENTIALS}",
        "700 sentiric-edge:sentiric-edge /var/lib/sentiric-edge",
    ]


def test_the_started_unit_is_ready_and_captures_calls(agent: InstalledAgent) -> None:
    status = json.loads(agent.machine.run("edge-agent", "status", "--json"))

    assert agent.machine.unit_property(UNIT, "ActiveState") == "active"
    assert agent.machine.unit_property(UNIT, "StatusText")
    assert agent.restarts() == 0
    assert status["verdict"] == "ok"


def test_who_is_in_the_group_of_services_reaches_their_socket_and_not_the_operators(agent: InstalledAgent) -> None:
    run, directory = agent.machine.run, "/run/sentiric-edge"
    run("sh", "-c", "printf 'u crm -\\nu stranger -\\nm crm sentiric-edge-services\\n' | systemd-sysusers -")

    def reached_by(user: str) -> list[str]:
        connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
        tried = f"{VENV}/bin/python -c '{connect}' {directory}/$name 2>/dev/null"
        loop = f"for name in api.sock services.sock; do {tried} && echo $name; done; ls {directory} 2>/dev/null; true"
        return run("runuser", "-u", user, "--", "sh", "-c", loop).split()

    assert run("stat", "--format=%a %U:%G", f"{directory}/services.sock").split() == [
        "660", "sentiric-edge:sentiric-edge-services"
    ]  # fmt: skip
    assert reached_by("crm") == ["services.sock"]
    assert reached_by("stranger") == []


def test_a_killed_agent_is_back_and_has_every_call_of_before_once(agent: InstalledAgent) -> None:
    # What comes in the very last moment before a kill may not have been committed yet.
    last_moment = timedelta(seconds=1)
    begun_from, killed = datetime.now(UTC), agent.main_pid()
    agent.machine.wait_until(
        lambda: len(agent.true_call_sids(begun_from, datetime.now(UTC) - last_moment)) >= 5,
        "the PBX has ended five calls",
        within=60,
    )

    killed_at = datetime.now(UTC)
    agent.systemctl("kill", "--kill-whom=main", "--signal=SIGKILL", UNIT)
    agent.wait_until_restarted(after=0, within=30)
    agent.wait_until_capturing()

    true = agent.true_call_sids(begun_from, killed_at - last_moment)
    agent.machine.wait_until(lambda: true <= set(agent.call_sids()), f"all of {true}", within=30, unit=UNIT)
    assert agent.main_pid() != killed
    assert max(Counter(agent.call_sids()).values()) == 1


def test_an_agent_whose_loop_hangs_is_killed_and_captures_again(agent: InstalledAgent) -> None:
    site_packages = agent.machine.run("sh", "-c", f"echo {VENV}/lib/python3*/site-packages").strip()
    agent.machine.write(f"{site_packages}/hang_on_sigusr2.py", HANG_ON_SIGUSR2)
    agent.machine.write(f"{site_packages}/hang_on_sigusr2.pth", "import hang_on_sigusr2\n")
    with agent.drop_in("[Service]\nWatchdogSec=5\n"):
        agent.systemctl("restart", UNIT)
        agent.wait_until_capturing()
        before, hung = set(agent.call_sids()), agent.main_pid()

        agent.systemctl("kill", "--kill-whom=main", "--signal=SIGUSR2", UNIT)
        agent.wait_until_restarted(after=0, within=40)
        agent.wait_until_capturing()

    journal = agent.machine.journal(UNIT)
    assert f"killing process {hung}" in journal.lower()
    assert "watchdog timeout" in journal.lower()
    assert "in hang_for_ever" in journal  # the journal says where it hung
    assert before <= set(agent.call_sids())


def test_a_living_agent_pings_the_watchdog_in_time(agent: InstalledAgent) -> None:
    def last_ping_seconds() -> float:
        return int(agent.machine.unit_property(UNIT, "WatchdogTimestampMonotonic")) / 1e6

    with agent.drop_in("[Service]\nWatchdogSec=2\n"):
        agent.systemctl("restart", UNIT)
        first = last_ping_seconds()

        agent.machine.wait_until(
            lambda: last_ping_seconds() > first + 6, "pings for three periods", within=20, unit=UNIT
        )

        assert agent.restarts() == 0


def test_a_stopped_agent_ends_cleanly_within_ten_seconds(agent: InstalledAgent) -> None:
    asked = time.monotonic()
    agent.systemctl("stop", UNIT)
    took = time.monotonic() - asked

    assert took < 10
    assert agent.machine.unit_property(UNIT, "Result") == "success"
    assert agent.machine.unit_property(UNIT, "ExecMainStatus") == "0"


def test_a_reload_takes_up_new_rules_and_keeps_the_agent_running(agent: InstalledAgent) -> None:
    running = agent.main_pid()

    with agent.settings(SETTINGS.replace("acme", "another-tenant")):
        agent.systemctl("reload", UNIT)
        agent.machine.wait_until(
            lambda: "another-tenant" in {call["tenant"] for call in agent.calls()},
            "calls of the other tenant",
            within=60,
            unit=UNIT,
        )

    assert agent.main_pid() == running
    assert agent.restarts() == 0


def test_wrong_settings_are_told_in_one_sentence_and_used_once_they_are_right(agent: InstalledAgent) -> None:
    with agent.settings(SETTINGS.replace("username", "user_name")):
        agent.machine.run("systemctl", "restart", UNIT, expect=1)
        agent.machine.wait_until(lambda: agent.restarts() >= 2, "it tries again", within=30, unit=UNIT)
    agent.machine.wait_for_unit(UNIT, within=30)
    agent.wait_until_capturing()

    journal = agent.machine.journal(UNIT)
    assert "user_name" in journal
    assert "Traceback" not in journal


def test_missing_credentials_do_not_stop_the_unit(agent: InstalledAgent) -> None:
    secret_file = "/etc/sentiric-edge/pbx-secret"
    agent.machine.write(secret_file, SECRET, mode="0640", owner="root:sentiric-edge")
    agent.machine.run("mv", CREDENTIALS, "/root/credentials")
    try:
        with agent.settings(SETTINGS.replace("username =", f'secret_file = "{secret_file}"\nusername =')):
            agent.systemctl("restart", UNIT)
            agent.wait_until_capturing()
    finally:
        agent.machine.run("mv", "/root/credentials", CREDENTIALS)


@pytest.mark.parametrize("drop_in", readme_blocks("ini"), ids=lambda block: block.split()[1].partition("=")[0])
def test_systemd_accepts_what_the_technicians_page_says_to_add(drop_in: str, installed: InstalledAgent) -> None:
    with installed.drop_in(drop_in):
        installed.machine.run("systemd-analyze", "verify", UNIT)
        installed.machine.run("systemd-analyze", "security", "--threshold=17", UNIT)


def test_the_drop_in_for_cdr_files_lets_the_agent_read_them(agent: InstalledAgent) -> None:
    cdr_file = "/var/log/asterisk/cdr-csv/Master.csv"
    (drop_in,) = (block for block in readme_blocks("ini") if "SupplementaryGroups=asterisk" in block)
    agent.machine.run("groupadd", "--system", "--force", "asterisk")
    agent.machine.write(cdr_file, "a call\n", mode="0640", owner="root:asterisk")
    agent.machine.run("chmod", "0750", "/var/log/asterisk", "/var/log/asterisk/cdr-csv")
    agent.machine.run("chgrp", "-R", "asterisk", "/var/log/asterisk")

    with agent.drop_in(f"{drop_in}ExecStartPre=/usr/bin/head --bytes=1 {cdr_file}\n"):
        agent.systemctl("restart", UNIT)

        assert agent.machine.unit_property(UNIT, "ActiveState") == "active"
