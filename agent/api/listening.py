"""The sockets on which the agent answers, and the server behind them."""

import contextlib
import grp
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from agent.errors import AgentError

log = logging.getLogger(__name__)

# Who may connect is decided by the directory and the socket's group.
_SOCKET_MODE: Final = 0o660
_DIRECTORY_MODE: Final = 0o751
_BACKLOG: Final = 128

Spawn = Callable[[Awaitable[None]], Awaitable[None]]


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: stopping is the daemon's business."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


@contextlib.asynccontextmanager
async def serving(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    spawn: Spawn,
    **options: Any,  # Any: uvicorn's
) -> AsyncIterator[None]:
    """Answer on the sockets while the block runs; `spawn` starts the server's task."""
    # What clients do wrong is theirs: they are told, and the log is not theirs to fill.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    server = _Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=1,
            **options,
        )
    )
    done = spawn(server.serve(sockets=list(sockets)))
    yield
    server.should_exit = True
    await done  # the sockets must outlive their server


@contextlib.contextmanager
def unix_socket(socket_file: Path, *, group: str | None = None) -> Generator[socket.socket, None, None]:
    """A socket for the agent's own user and group, or for another group. Raises AgentError if it cannot be made.

    The daemon alone holds the database, so a socket found here is left from a dead one.
    """
    try:
        socket_file.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        if socket_file.exists() and stat.S_ISSOCK(socket_file.stat().st_mode):
            socket_file.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Nobody may connect before it is clear who may.
            mask = os.umask(0o177)
            try:
                sock.bind(str(socket_file))
            finally:
                os.umask(mask)
            if group is not None:
                _give_to(socket_file, group)
            socket_file.chmod(_SOCKET_MODE)
            sock.listen(_BACKLOG)  # who comes before the server is ready waits
        except OSError:
            sock.close()
            raise
    except OSError as exc:
        raise AgentError(
            f"no socket can be made at {socket_file}: {exc.strerror or exc}; mend runtime_directory or its rights"
        ) from exc
    try:
        yield sock
    finally:
        sock.close()
        with contextlib.suppress(OSError):
            socket_file.unlink()


@contextlib.contextmanager
def local_port(host: str, port: int) -> Generator[socket.socket, None, None]:
    """A TCP socket on this machine; port 0 is a free one. Raises AgentError if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.create_server((host, port), family=family)
    except OSError as exc:
        raise AgentError(f"api.listen: nobody can listen on {host}, port {port}: {exc.strerror or exc}") from exc
    with sock:
        yield sock


def _give_to(socket_file: Path, group: str) -> None:
    """A machine without the group, or an agent that is not in it, serves its own group's members."""
    try:
        os.chown(socket_file, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.info("this machine has no group for services; the socket is for the agent's own", extra={"group": group})
    except PermissionError:
        log.warning(
            "the agent is no member of the services' group; their socket is for its own", extra={"group": group}
        )
