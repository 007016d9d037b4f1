"""Asking the running agent over its Unix socket.

The standard library's HTTP client does, since it is here in 20 ms; httpx would take longer than most answers.
"""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from agent.cli.faults import CommandFailed, NotRunning

_ANSWER_SECONDS: Final = 10.0


class RunningAgent:
    """The agent behind a socket. Every question is a connection of its own."""

    def __init__(self, socket_file: Path, *, timeout: float = _ANSWER_SECONDS) -> None:
        self._socket_file = socket_file
        self._timeout = timeout

    def get(self, path: str) -> Any:  # Any: JSON
        """What the agent knows. Raises NotRunning without an agent, CommandFailed if it cannot answer."""
        return self._ask("GET", path)

    def post(self, path: str, **query: str) -> Any:  # Any: JSON
        """Have the agent do something; raises as `get` does."""
        return self._ask("POST", f"{path}?{urlencode(query)}" if query else path)

    def tell(self, path: str, body: bytes) -> Any:  # Any: JSON
        """Have the agent take something; raises as `get` does."""
        with self._asked("POST", path, body) as response:
            return _told(response.status, response.read())

    def follow(self, path: str, **query: str) -> Iterator[Any]:  # Any: JSON
        """Have the agent do something that takes long, and what it tells meanwhile; raises as `get` does."""
        return self.follow_told(f"{path}?{urlencode(query)}", b"")

    def follow_told(self, path: str, body: bytes) -> Iterator[Any]:  # Any: JSON
        """The same with what the agent needs to know for it."""
        with self._asked("POST", path, body) as response:
            if response.status >= 400:
                _told(response.status, response.read())
            for line in response:
                yield json.loads(line)

    def _ask(self, method: str, path: str) -> Any:
        with self._asked(method, path) as response:
            body = response.read()
        return _told(response.status, body)

    @contextmanager
    def _asked(self, method: str, path: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        connection = _UnixConnection(self._socket_file, timeout=self._timeout)
        try:
            connection.request(method, path, body)
            yield connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NotRunning(f"no agent is running (nobody answers on {self._socket_file})") from None
        except PermissionError:
            raise CommandFailed(
                f"this user may not talk to the agent on {self._socket_file}; use root or the agent's own group"
            ) from None
        except TimeoutError:
            raise CommandFailed(f"the agent did not answer within {self._timeout:g} s; see its log") from None
        except (OSError, http.client.HTTPException) as exc:
            raise CommandFailed(
                f"the agent on {self._socket_file} broke off: {str(exc) or type(exc).__name__}"
            ) from exc
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, socket_file: Path, *, timeout: float) -> None:
        super().__init__("edge-agent", timeout=timeout)
        self._socket_file = socket_file

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket_file))


def _told(status: int, body: bytes) -> Any:
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if status < 400 and told is not None:
        return told
    detail = told.get("detail") if isinstance(told, dict) else None
    raise CommandFailed(str(detail) if detail else f"the agent cannot answer this (HTTP {status}); see its log")
