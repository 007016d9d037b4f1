"""A real Asterisk in a Debian root of its own, on free ports of 127.0.0.1, with everything it writes in one place."""

import atexit
import contextlib
import os
import random
import shutil
import socket
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

import pytest

from tests.pbx import town
from tests.pbx.ami import Ami
from tests.pbx.configuration import (
    DRIVER_SECRET,
    DRIVER_USER,
    PRODUCT_SECRET,
    PRODUCT_USER,
    Options,
    Ports,
    configuration,
)
from tests.pbx.leftovers import end_children, identity, is_alive, note_child
from tests.pbx.sipp import AnsweringSide
from tests.pbx.waiting import wait_until

VERSIONS = (22, 16)  # the newest, which most tests run on, and the oldest we promise to understand
INSTANCES = "rig"  # directory inside the root, one child per instance
BOOT_SECONDS = 60.0
STOP_SECONDS = 20.0

on_every_version = pytest.mark.parametrize("asterisk", VERSIONS, indirect=True)


class RigUnavailable(Exception):
    """This machine cannot run the real part; the message says in one sentence why."""


def root_of_asterisk(version: int = VERSIONS[0]) -> Path:
    """Where the Debian root with that Asterisk is, or RigUnavailable."""
    if os.geteuid() != 0:
        raise RigUnavailable("a real Asterisk needs root (it runs in a chroot)")
    named = os.environ.get(f"SENTIRIC_ASTERISK_{version}_ROOT")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = Path(named) if named else cache / "sentiric-edge" / f"asterisk-{version}"
    if not (root / "etc/sentiric-asterisk-root").exists():
        suite = "" if version == VERSIONS[0] else " --suite bullseye"
        raise RigUnavailable(f"no Asterisk {version} in {root}; build it with scripts/asterisk-root{suite}")
    return root


class Asterisk:
    """Start, stop, crash and ask one Asterisk. As a context manager it comes with its phones and trunks; leaving it
    removes everything it wrote.

    `secret`/`user`/`ami_port` are what the product is given. `home` is the instance's directory on this side of
    the root; `cel_path` and `cdr_path` are Asterisk's own account of the calls.
    """

    host = "127.0.0.1"
    user = PRODUCT_USER
    secret = PRODUCT_SECRET

    def __init__(self, *, version: int = VERSIONS[0], options: Options | None = None) -> None:
        self.version = version
        self.root = root_of_asterisk(version)
        self.options = options or Options()
        _sweep(self.root)
        self.name = f"{os.getpid()}-{random.getrandbits(32):08x}"
        self.home = self.root / INSTANCES / self.name
        self.ports = _free_ports()
        self._inside = PurePosixPath("/") / INSTANCES / self.name
        self._process: subprocess.Popen[bytes] | None = None
        self._closing: list[Callable[[], None]] = []
        self._lay_out()

    @property
    def ami_port(self) -> int:
        return self.ports.ami

    @property
    def cel_path(self) -> Path:
        return self.home / "log/cel-custom/Master.csv"

    @property
    def cdr_path(self) -> Path:
        return self.home / "log/cdr-custom/Master.csv"

    @property
    def queue_log_path(self) -> Path:
        return self.home / "log/queue_log"

    @property
    def log_path(self) -> Path:
        return self.home / "log/messages"

    @property
    def sipp_directory(self) -> Path:
        return self.home / "sipp"

    @property
    def pid(self) -> int:
        assert self._process is not None, "Asterisk is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.start_far_ends()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Returns when Asterisk says of itself that it is fully booted."""
        assert not self.running, "Asterisk is running already"
        with (self.home / "console").open("ab") as console:
            self._process = subprocess.Popen(
                ["chroot", str(self.root), "/usr/sbin/asterisk", "-C", self._conf, "-f"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        note_child(self.home, self._process.pid)
        self.wait_until_booted()

    def wait_until_booted(self) -> None:
        def booted() -> bool:
            if not self.running:
                raise AssertionError(f"Asterisk ended while it started:\n{self._last_words()}")
            return "fully booted" in self.cli("core waitfullybooted")

        wait_until(booted, what="Asterisk fully booted", seconds=BOOT_SECONDS)

    def start_far_ends(self) -> None:
        """The SIPp phones and the trunks' far ends; they outlive restarts of Asterisk."""
        sides = [(town.PHONES_HOST, self.ports.phones, "phones")]
        sides += [(tenant.trunk_host, self.ports.trunks[tenant.name], tenant.trunk) for tenant in town.TENANTS]
        for host, port, name in sides:
            side = AnsweringSide(host=host, port=port, directory=self.sipp_directory, name=name)
            self.on_close(side.stop)
            side.start()

    def on_close(self, action: Callable[[], None]) -> None:
        """Something to end together with this Asterisk."""
        self._closing.append(action)

    def stop(self) -> None:
        """`core stop now`: calls are hung up, CDR and CEL are complete."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            self.cli("core stop now")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """kill -9: nothing more is written, the AMI connection just closes."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            (self.home / "killed").touch()
            process.kill()
        process.wait(STOP_SECONDS)
        self._process = None

    def restart_now(self, *, wait: bool = True) -> None:
        """`core restart now`: the same process begins anew, calls are hung up first."""
        self.cli("core restart now")
        wait_until(lambda: not self._accepts_cli(), what="Asterisk going down for its restart", seconds=STOP_SECONDS)
        if wait:
            self.wait_until_booted()

    def close(self) -> None:
        atexit.unregister(self.close)
        while self._closing:
            self._closing.pop()()
        with contextlib.suppress(Exception):
            self.stop()
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def cli(self, command: str) -> str:
        """What `asterisk -rx` prints; empty or a complaint when Asterisk is not there."""
        done = subprocess.run(
            ["chroot", str(self.root), "/usr/sbin/asterisk", "-C", self._conf, "-rx", command],
            capture_output=True,
            timeout=30,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return (done.stdout + done.stderr).decode(errors="replace")

    def driver(self) -> Ami:
        """A logged-in AMI session of the rig's own user, which may originate and command."""
        return Ami.login(self.host, self.ami_port, DRIVER_USER, DRIVER_SECRET)

    def originate(
        self,
        *,
        channel: str,
        context: str = "",
        exten: str = "",
        application: str = "",
        data: str = "",
        caller_id: str = "",
        timeout: float = 30,
    ) -> None:
        """Rings `channel` and, once it answers, lets it dial `exten` (click to call) or hear `application`."""
        then = {"Context": context, "Exten": exten, "Priority": "1"}
        if application:
            then = {"Application": application, "Data": data}
        with self.driver() as ami:
            answer = ami.ask(
                "Originate",
                Channel=channel,
                CallerID=caller_id,
                Timeout=str(int(timeout * 1000)),
                Async="true",
                **then,
            )
        assert answer["Response"] == "Success", answer

    def active_channels(self) -> int:
        for line in self.cli("core show channels count").splitlines():
            if "active channel" in line:
                return int(line.split()[0])
        return 0

    def wait_until_quiet(self, *, seconds: float = 60) -> None:
        """Until no channel is left and the account of the calls has stopped growing."""
        wait_until(lambda: self.active_channels() == 0, what="no channel left", seconds=seconds, pause=0.1)
        wait_until(self._account_is_complete, what="CEL complete", seconds=10)

    def truncate_account(self) -> None:
        """Forgets the calls so far, for a capture of one scenario alone."""
        for path in (self.cel_path, self.cdr_path, self.queue_log_path):
            if path.exists():
                os.truncate(path, 0)

    @property
    def _conf(self) -> str:
        return f"{self._inside}/etc/asterisk.conf"

    def _account_is_complete(self) -> bool:
        """Every linkedid that began has ended; those of an Asterisk that was killed never will."""
        if not self.cel_path.exists():
            return True
        before = self.cel_path.stat().st_size, self.cdr_path.stat().st_size if self.cdr_path.exists() else 0
        text = self.cel_path.read_text(errors="replace")
        starts = text.count('"CHAN_START"')
        ends = text.count('"CHAN_END"')
        after = self.cel_path.stat().st_size, self.cdr_path.stat().st_size if self.cdr_path.exists() else 0
        return before == after and (starts == ends or self._was_killed)

    @property
    def _was_killed(self) -> bool:
        return (self.home / "killed").exists()

    def _accepts_cli(self) -> bool:
        return "Unable to connect" not in self.cli("core show version")

    def _last_words(self) -> str:
        words = [(self.home / "console").read_text(errors="replace")]
        if self.log_path.exists():
            words.append(self.log_path.read_text(errors="replace"))
        return "\n".join(words)[-4000:]

    def _lay_out(self) -> None:
        for part in (
            "etc",
            "lib/documentation",
            "lib/moh",
            "spool",
            "run",
            "log/cel-custom",
            "log/cdr-custom",
            "moh",
            "sipp",
        ):
            (self.home / part).mkdir(parents=True)
        (self.home / "owner").write_text(identity(os.getpid()))
        for name, text in configuration(home=self._inside, ports=self.ports, options=self.options).items():
            (self.home / "etc" / name).write_text(text)
        _write_music(self.home / "moh" / "quiet.wav")
        atexit.register(self.close)


def _write_music(path: Path) -> None:
    with wave.open(str(path), "wb") as music:
        music.setnchannels(1)
        music.setsampwidth(2)
        music.setframerate(8000)
        music.writeframes(bytes(2 * 8000 * 10))


def _free_ports() -> Ports:
    rtp_start = 20000 + 4000 * random.randrange(8)
    return Ports(
        ami=free_port(socket.SOCK_STREAM, "127.0.0.1"),
        sip=free_port(socket.SOCK_DGRAM, "127.0.0.1"),
        phones=free_port(socket.SOCK_DGRAM, town.PHONES_HOST),
        trunks={tenant.name: free_port(socket.SOCK_DGRAM, tenant.trunk_host) for tenant in town.TENANTS},
        rtp_start=rtp_start,
        rtp_end=rtp_start + 3999,
    )


def free_port(kind: socket.SocketKind, host: str) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind((host, 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


def _sweep(root: Path) -> None:
    """Ends and removes what a test run that was itself killed has left behind."""
    for home in (root / INSTANCES).glob("*"):
        try:
            owner = (home / "owner").read_text()
        except FileNotFoundError:
            continue  # being laid out at this moment, by another run
        if not is_alive(owner):
            end_children(home)
            shutil.rmtree(home, ignore_errors=True)
