"""The two homes of live contexts: inside this process, or in a Valkey or Redis."""

import os
import socket
import ssl
from typing import Final
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from config.settings import LiveSettings

MAX_CONNECTIONS: Final = 8


def is_in_process(settings: LiveSettings) -> bool:
    """Whether this process alone can reach the home."""
    return urlsplit(settings.url).scheme == "memory"


def open_home(settings: LiveSettings) -> Redis:
    """A client for the home that the URL names; it connects when it is first used."""
    if is_in_process(settings):
        from fakeredis import FakeAsyncRedis, FakeServer

        return FakeAsyncRedis(server=FakeServer(), socket_timeout=None)
    pool = BlockingConnectionPool.from_url(
        settings.url,
        max_connections=MAX_CONNECTIONS,
        timeout=settings.timeout_seconds,
        # Whole operations have a time limit above. With one in here too, the library sends by asyncio.wait_for,
        # which before Python 3.12 can swallow a cancellation: the daemon would not stop.
        socket_timeout=None,
        socket_connect_timeout=settings.timeout_seconds,
        # Nothing is tried again in here: a write whose answer got lost must not be made twice, and who waits
        # how long is decided above.
        retry=Retry(NoBackoff(), 0, supported_errors=()),
        protocol=2,
        **({"username": settings.username} if settings.username else {}),
        **({"password": settings.password.get_secret_value()} if settings.password else {}),
        **(
            {"ssl_ca_certs": str(settings.tls_ca_file)}
            if settings.url.startswith("rediss:") and settings.tls_ca_file
            else {}
        ),
    )
    return Redis.from_pool(pool)


def trouble(exc: Exception) -> str:
    """What is wrong with the home, as the end of a sentence.

    A library's own text is not used: it repeats the command, and with it the call's data.
    """
    link: BaseException | None = exc
    while link is not None:
        if (what := _known_trouble(link)) is not None:
            return what
        link = link.__cause__ or link.__context__
    return f"cannot be used ({type(exc).__name__})"


_REFUSED: Final = "refuses the user name or password; mend live.username and live.password_file"
# Errors by their class and, where a class has many, by the server's word; the first that fits counts.
_TROUBLES: Final[tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...]] = (
    ((AuthenticationError, AuthorizationError), "", _REFUSED),
    (NoPermissionError, "", "does not let the user do what is needed; give it the rights in agent.example.toml"),
    (BusyLoadingError, "", "is still loading its data"),
    (ReadOnlyError, "", "is a read-only copy; name the primary one in live.url"),
    (OutOfMemoryError, "", "has no memory left (maxmemory)"),
    (ResponseError, "WRONGPASS", _REFUSED),
    (ResponseError, "NOAUTH", _REFUSED),
    (ResponseError, "MISCONF", "cannot save its data to disk and takes no writes"),
    ((TimeoutError, RedisTimeoutError), "", "does not answer in time"),
)


def _known_trouble(exc: BaseException) -> str | None:
    for kinds, word, what in _TROUBLES:
        if isinstance(exc, kinds) and word in str(exc):
            return what
    match exc:
        case ssl.SSLCertVerificationError():
            return f"has a certificate that is not accepted ({exc.verify_message}); see live.tls_ca_file"
        case socket.gaierror():
            return "cannot be reached: the host's name is not known"
        case OSError(errno=int(number)):
            return f"cannot be reached: {os.strerror(number).lower()}"
    return None
