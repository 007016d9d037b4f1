"""`edge-hub serve`: sockets, TLS, signals and the service manager around the application."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import uvicorn

from config.notify import Notifier
from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.errors import SyncError, UplinkUnavailable
from sync.hub.app import LOCAL_NETWORKS, Hub, Network, make_app
from sync.hub.connections import BoundedListener, bounded_protocol, spare_memory_for_tls
from sync.hub.limits import Limits
from sync.hub.pool import Pool

log = logging.getLogger(__name__)

DEFAULT_CONNECTIONS: Final = 8
DEFAULT_PORT: Final = 8443
# msgspec counts nesting by Python's own limit. An agent lets pass what orjson reads, 1024 deep; with more room than
# that here, such a call gets its own verdict and does not make a whole batch unreadable.
_NESTING: Final = 3000
_TRY_AGAIN_SECONDS: Final = 2.0


class CannotServe(SyncError):
    """The hub cannot start as it was told to; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where to listen. No host means all addresses, port 0 a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A certificate with its chain, and its key, in PEM form; read again on SIGHUP."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """What a hub is told at start."""

    listen: Sequence[Endpoint]
    tls: TlsFiles | None = None
    connections: int = DEFAULT_CONNECTIONS
    limits: Limits = field(default_factory=Limits)
    trusted_proxies: Sequence[str] = ("127.0.0.1", "::1")
    metrics_from: Sequence[Network] = LOCAL_NETWORKS


def parse_endpoint(text: str) -> Endpoint:
    """`host:port`, `[v6]:port`, `:port` or `host`. Raises CannotServe."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(DEFAULT_PORT)
    if not port.isdecimal() or int(port) > 65_535 or (":" in host and not host.startswith("[")):
        raise CannotServe(f"cannot listen on {text!r}; write host:port, [address]:port or :port")
    return Endpoint(host.strip("[]"), int(port))


async def serve(
    address: CentralAddress,
    settings: ServeSettings,
    *,
    when_listening: Callable[[Sequence[Endpoint]], None] = lambda endpoints: None,
) -> None:
    """Answer until SIGTERM or SIGINT, then finish what is under way. Raises SyncErrors if it cannot start."""
    serving = await prepare(address, settings, Notifier(os.environ))
    when_listening(serving.endpoints)
    loop = asyncio.get_running_loop()
    handlers = {signal.SIGTERM: serving.stop, signal.SIGINT: serving.stop, signal.SIGHUP: serving.reload}
    for number, handle in handlers.items():
        loop.add_signal_handler(number, handle)
    try:
        await serving.run()
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


async def prepare(address: CentralAddress, settings: ServeSettings, notifier: Notifier) -> "Serving":
    """A hub that has its certificate, its database and its sockets. Raises SyncErrors if it cannot have them."""
    limits = settings.limits
    sys.setrecursionlimit(max(sys.getrecursionlimit(), _NESTING))
    tls = _tls_context(settings.tls) if settings.tls else None
    spare_memory_for_tls()
    pool = Pool(
        lambda: CentralDatabase(
            address, application_name="edge-hub", max_records=limits.batch_records, max_bytes=limits.batch_bytes
        ),
        size=settings.connections,
        waiting=limits.waiting,
        wait_seconds=limits.wait_seconds,
    )
    try:
        await _check_role(pool, notifier)
        accepted: WeakSet[socket.socket] = WeakSet()
        listening = [BoundedListener(one, limits, accepted) for one in _listen_on(settings.listen)]
    except BaseException:
        await pool.close()
        raise
    hub = Hub(pool, limits=limits, metrics_from=settings.metrics_from)
    return Serving(hub, settings, tls, listening, notifier)


class Serving:
    """A hub about to answer, and answering."""

    def __init__(
        self,
        hub: Hub,
        settings: ServeSettings,
        tls: ssl.SSLContext | None,
        listening: Sequence[socket.socket],
        notifier: Notifier,
    ) -> None:
        self.hub = hub
        self.endpoints = [_endpoint_of(listener) for listener in listening]
        self.started = asyncio.Event()
        self._settings = settings
        self._tls = tls
        self._listening = list(listening)
        self._notifier = notifier
        self._server = _Server(_uvicorn_config(hub, settings, tls), self._begin)

    async def run(self) -> None:
        """Answer until `stop`, and until what was under way then is done or its time is over."""
        pings = asyncio.create_task(self._ping(), name="watchdog")
        try:
            await self._server.serve(sockets=self._listening)
        finally:
            pings.cancel()
            for listener in self._listening:
                listener.close()
            await self.hub.pool.close()
        log.info("the hub has stopped")

    async def _ping(self) -> None:
        """Show systemd that the loop goes round."""
        seconds = self._notifier.watchdog_seconds()
        while seconds is not None:
            self._notifier.watchdog()
            await asyncio.sleep(seconds / 2)

    def stop(self) -> None:
        """Take no more connections, finish what is under way; the second time, do not wait for it."""
        self._server.force_exit = self._server.should_exit
        self.hub.is_stopping = self._server.should_exit = True
        self._notifier.stopping("finishing what is under way")
        log.info("the hub stops")

    def reload(self) -> None:
        """Read the certificate again."""
        self._notifier.reloading()
        if self._settings.tls is not None and self._tls is not None:
            _load_again(self._tls, self._settings.tls)
        self._notifier.ready(self._told())

    def _begin(self) -> None:
        self.started.set()
        log.info(
            "the hub serves",
            extra={"listen": ", ".join(map(str, self.endpoints)), "tls": self._tls is not None},
        )
        self._notifier.ready(self._told())

    def _told(self) -> str:
        return f"serving {', '.join(map(str, self.endpoints))}"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, telling when it listens."""

    def __init__(self, config: uvicorn.Config, when_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = when_started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._when_started()


def _uvicorn_config(hub: Hub, settings: ServeSettings, tls: ssl.SSLContext | None) -> uvicorn.Config:
    # What clients do wrong is theirs: it is counted, not logged line by line.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    limits = settings.limits
    tls_options: dict[str, Any] = {}  # Any: keyword arguments
    if settings.tls is not None and tls is not None:
        tls_options = {"ssl_certfile": settings.tls.certificate, "ssl_context_factory": lambda *_: tls}
    return uvicorn.Config(
        make_app(hub),
        http=bounded_protocol(limits),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        h11_max_incomplete_event_size=limits.header_bytes,
        timeout_keep_alive=int(limits.idle_seconds),
        timeout_graceful_shutdown=int(limits.stop_seconds),
        **tls_options,
    )


async def _check_role(pool: Pool, notifier: Notifier) -> None:
    """A database that is away is waited for; one that must not be used so ends the start."""
    is_told = False
    while True:
        try:
            async with pool.lend() as database:
                await database.check_role()
        except UplinkUnavailable as exc:
            if not is_told:
                log.warning("the central database is waited for", extra={"reason": str(exc)})
                is_told = True
            notifier.status(f"waits for the central database: {exc}")
            await asyncio.sleep(_TRY_AGAIN_SECONDS)
        else:
            return


def _tls_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    _load(context, files)
    return context


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_passphrase)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) and not isinstance(exc, ssl.SSLError) else "they do not fit"
        raise CannotServe(f"cannot use the certificate {files.certificate} with the key {files.key}: {why}") from None


def _load_again(context: ssl.SSLContext, files: TlsFiles) -> None:
    """New connections get the new certificate; if it cannot be used, the old one stays."""
    try:
        # Tried apart first: a certificate that does not fit its key must not take the place of one that does.
        _tls_context(files)
        _load(context, files)
    except CannotServe as exc:
        log.error("the certificate stays as it was", extra={"reason": str(exc)})
    else:
        log.info("the certificate was read again", extra={"file": str(files.certificate)})


def _no_passphrase() -> str:
    raise ValueError("the key asks for a passphrase")


def _listen_on(endpoints: Sequence[Endpoint]) -> list[socket.socket]:
    made: list[socket.socket] = []
    try:
        for endpoint in endpoints:
            _listen(endpoint, made)
    except BaseException:
        for listener in made:
            listener.close()
        raise
    return made


def _listen(endpoint: Endpoint, made: list[socket.socket]) -> None:
    """Add one socket, or one of each family for a name or for all addresses."""
    try:
        found = socket.getaddrinfo(
            endpoint.host or None, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, _, _, _, where in dict.fromkeys(found):
            if family == socket.AF_INET6 and not endpoint.host and not socket.has_dualstack_ipv6():
                continue
            made.append(socket.create_server(where, family=family))
    except OSError as exc:
        raise CannotServe(f"cannot listen on {endpoint}: {exc.strerror or exc}") from None


def _endpoint_of(listener: socket.socket) -> Endpoint:
    host, port, *_ = listener.getsockname()
    return Endpoint(host, port)
