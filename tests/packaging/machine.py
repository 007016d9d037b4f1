"""A throwaway Debian 12 machine with systemd as its first process, for what only a booted system shows."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

BOOT_SECONDS = 60.0
COMMAND_SECONDS = 60.0
POLL_SECONDS = 0.1
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_PREFIX = "sentiric-edge-machine-"
# Arguments: control groups, then --, then the command that shall run in them.
ENTER_CGROUPS = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
}

_numbers = itertools.count(1)


class MachineError(AssertionError):
    """The machine, or a command in it, did not do what was asked; the text shows what it said."""


def why_machines_cannot_boot() -> str | None:
    """One line on what this computer lacks, None if machines can boot here."""
    if os.geteuid() != 0:
        return "booting a machine needs root"
    for tool, package in [
        ("systemd-nspawn", "systemd-container"),
        ("nsenter", "util-linux"),
        ("setpriv", "util-linux"),
    ]:
        if shutil.which(tool) is None:
            return f"{tool} is missing (Debian package {package})"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        return "this container may not mount anything, so no machine can boot in it"
    return None


class Machine:
    """Boots a root directory with all changes kept in memory, so the root stays as it is and can be shared.

    Its network is its own loopback interface and nothing else. It ends with the block, and also when this
    process is killed: the kernel then signals systemd-nspawn, which kills the machine.
    """

    def __init__(self, root: Path, *, console: Path, read_only: Mapping[str, Path] | None = None) -> None:
        self._root = root
        self._console = console
        self._read_only = dict(read_only or {})
        self._name = f"{CGROUP_PREFIX}{os.getpid()}-{next(_numbers)}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def __enter__(self) -> Self:
        try:
            self._boot()
        except BaseException:
            self.switch_off()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.switch_off()

    def run(self, *command: str, stdin: str = "", timeout: float = COMMAND_SECONDS, expect: int | None = 0) -> str:
        """The standard output of a command run as root; a status other than `expect` raises, None allows any."""
        done = subprocess.run(
            # Not the cgroup namespace: the command stays outside of the machine's units.
            ["nsenter", f"--target={self._leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--", *command],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            env=ENVIRONMENT,
            check=False,
        )
        if expect is not None and done.returncode != expect:
            raise MachineError(
                f"{' '.join(command)}: status {done.returncode}, not {expect}\n{done.stdout}\n{done.stderr}"
            )
        return done.stdout

    def write(self, path: str, text: str, *, mode: str = "0644", owner: str = "root:root") -> None:
        """Write a file of the machine, its directory made if need be."""
        self.run("install", "-D", "-m", mode, "/dev/null", path)
        self.run("tee", path, stdin=text)
        self.run("chown", owner, path)

    def unit_property(self, unit: str, name: str) -> str:
        """What systemd says of a unit, e.g. ActiveState, MainPID, NRestarts."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        """All a unit has said so far, and what systemd said of it."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--quiet", "--no-pager", "--output=short-precise", f"--unit={unit}")

    def wait_until(self, condition: Callable[[], bool], what: str, *, within: float, unit: str = "") -> None:
        """Poll until the condition holds; after `within` seconds fail, showing the unit's journal."""
        deadline = time.monotonic() + within
        while not condition():
            if time.monotonic() > deadline:
                told = self.journal(unit) if unit else self._console_text()
                raise MachineError(f"not within {within:g} s: {what}\n{told[-6000:]}")
            time.sleep(POLL_SECONDS)

    def wait_for_unit(self, unit: str, state: str = "active", *, within: float) -> None:
        """Wait until systemd says that the unit is in this state."""
        self.wait_until(
            lambda: self.unit_property(unit, "ActiveState") == state, f"{unit} is {state}", within=within, unit=unit
        )

    def switch_off(self) -> None:
        """End the machine at once and take away all that it left."""
        if self._nspawn is not None and self._nspawn.poll() is None:
            self._nspawn.terminate()
            try:
                self._nspawn.wait(10)
            except subprocess.TimeoutExpired:
                # Killing the machine's first process kills all of them; nspawn then has nothing to wait for.
                if self._leader:
                    os.kill(self._leader, signal.SIGKILL)
                self._nspawn.kill()
                self._nspawn.wait(10)
        self._nspawn, self._leader = None, 0
        _remove_cgroups_of_the_dead(ours=self._name)

    def _boot(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices, self._console.open("wb") as console:
            address = f"@{self._name}"
            notices.bind("\0" + address[1:])
            self._nspawn = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "NOTIFY_SOCKET": address},
                start_new_session=True,
            )
            self._await_notices(notices)

    def _command(self) -> list[str]:
        return [
            *("sh", "-c", ENTER_CGROUPS, "sh", *map(str, self._cgroups()), "--"),
            *("setpriv", "--pdeathsig", "TERM", "--"),
            "systemd-nspawn",
            "--quiet",
            "--boot",
            "--register=no",
            *([] if _host_runs_systemd() else ["--keep-unit"]),
            "--notify-ready=yes",
            "--kill-signal=SIGKILL",  # what nspawn sends to the machine's first process when told to end
            f"--directory={self._root}",
            "--volatile=overlay",
            "--private-network",
            "--console=read-only",
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            f"--machine={self._name}",
            *(f"--bind-ro={source}:{target}" for target, source in self._read_only.items()),
        ]

    def _await_notices(self, notices: socket.socket) -> None:
        """nspawn tells its machine's first process, then passes on that systemd has finished booting."""
        assert self._nspawn is not None
        notices.settimeout(POLL_SECONDS)
        deadline = time.monotonic() + BOOT_SECONDS
        while time.monotonic() < deadline and self._nspawn.poll() is None:
            try:
                lines = notices.recv(4096).decode().splitlines()
            except TimeoutError:
                continue
            for line in lines:
                if line.startswith("X_NSPAWN_LEADER_PID="):
                    self._leader = int(line.partition("=")[2])
            if self._leader and "READY=1" in lines:
                return
        raise MachineError(f"the machine did not boot within {BOOT_SECONDS:g} s\n{self._console_text()[-6000:]}")

    def _console_text(self) -> str:
        return self._console.read_text("utf-8", errors="replace")

    def _cgroups(self) -> list[Path]:
        """Control groups for this machine alone; without them two machines would share, and kill, each other's."""
        if _host_runs_systemd():
            return []  # systemd gives nspawn a scope of its own
        made = [directory / self._name for directory in _own_cgroups()]
        for directory in made:
            directory.mkdir()
        return made


def _host_runs_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _own_cgroups() -> list[Path]:
    """This process's place in the hierarchies that systemd cares for: the second version and its own named one."""
    places = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            mounts = [CGROUPS, CGROUPS / "unified"]
        elif controllers == "name=systemd":
            mounts = [CGROUPS / "systemd"]
        else:
            continue
        places += [mount / path.lstrip("/") for mount in mounts if (mount / "cgroup.procs").exists()]
    return places


def _remove_cgroups_of_the_dead(*, ours: str) -> None:
    """Also those of earlier runs that were killed; a group with a living process in it cannot be removed."""
    for place in _own_cgroups():
        for group in place.glob(f"{CGROUP_PREFIX}*"):
            maker = group.name.removeprefix(CGROUP_PREFIX).partition("-")[0]
            if group.name == ours or not Path("/proc", maker).exists():
                for directory, _, _ in os.walk(group, topdown=False):
                    try:
                        Path(directory).rmdir()
                    except OSError:
                        break
