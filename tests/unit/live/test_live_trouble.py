"""What an operator reads when the live store cannot be used."""

import socket
import ssl

import pytest
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from agent.live.home import trouble


def because(inner: BaseException) -> RedisConnectionError:
    outer = RedisConnectionError("outer")
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            AuthenticationError("x"),
            "refuses the user name or password; mend live.username and live.password_file",
        ),
        (
            because(AuthenticationError("x")),
            "refuses the user name or password; mend live.username and live.password_file",
        ),
        (
            ResponseError("NOAUTH Authentication required."),
            "refuses the user name or password; mend live.username and live.password_file",
        ),
        (
            NoPermissionError("x"),
            "does not let the user do what is needed; give it the rights in agent.example.toml",
        ),
        (BusyLoadingError("x"), "is still loading its data"),
        (ReadOnlyError("x"), "is a read-only copy; name the primary one in live.url"),
        (OutOfMemoryError("x"), "has no memory left (maxmemory)"),
        (ResponseError("MISCONF x"), "cannot save its data to disk and takes no writes"),
        (RedisTimeoutError("x"), "does not answer in time"),
        (because(ConnectionRefusedError(111, "x")), "cannot be reached: connection refused"),
        (because(socket.gaierror(-2, "x")), "cannot be reached: the host's name is not known"),
        (
            because(ssl.SSLCertVerificationError(1, "x")),
            "has a certificate that is not accepted (self-signed); see live.tls_ca_file",
        ),
        (RedisError("SET smcp:acme:call:1 of Ayşe"), "cannot be used (RedisError)"),
    ],
)
def test_each_trouble_has_its_sentence_and_none_shows_a_calls_data(error: Exception, sentence: str) -> None:
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        error.__cause__.verify_message = "self-signed"
    assert trouble(error) == sentence
