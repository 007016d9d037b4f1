"""What a hub's answers, and having none, mean to a site: the table of docs/hub.md. Does no I/O."""

import io
import os
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import httpx
import zstandard

from sync import wire
from sync.errors import (
    BatchTooLarge,
    CentreBehind,
    Fenced,
    LeaseHeld,
    LeaseLost,
    NotUnderstood,
    SyncError,
    UplinkRefused,
    UplinkUnavailable,
)

_MAX_DETAIL: Final = 300
_MAX_WINDOW_BYTES: Final = 8 * 2**20
# OpenSSL's words for a certificate whose time is not now.
_NOT_YET_VALID, _EXPIRED = 9, 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a hub, or whoever stands before it, answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def read(body: bytes, decode: Callable[[bytes], T], *, label: str) -> T:
    """The body of a good answer as a value. Raises UplinkUnavailable for garbage."""
    try:
        return decode(body)
    except ValueError:
        raise UplinkUnavailable(f"{label} answers with something else than a hub does; is the address right?") from None


def unpacked(body: bytes, encoding: str | None, *, max_bytes: int) -> bytes:
    """The body without its content encoding. Raises ValueError for one that was not asked for, and for a bomb."""
    if encoding in {None, "", "identity"}:
        return body
    if encoding != "zstd":
        raise ValueError(f"its encoding is {_plain(str(encoding))[:20]!r}")
    try:
        with zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES).stream_reader(io.BytesIO(body)) as stream:
            text: bytes = stream.read(max_bytes + 1)
    except zstandard.ZstdError:
        raise ValueError("it cannot be unpacked") from None
    if len(text) > max_bytes:
        raise ValueError("it is larger than any answer can be")
    return text


def explain(answer: Answer, *, label: str, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> SyncError:  # noqa: PLR0911, PLR0912 - one table of cases
    """What an answer other than 200 means."""
    problem = _problem_of(answer)
    code = problem.code if problem else ""
    said = f"{label}: {_plain(problem.detail or problem.title or code)[:_MAX_DETAIL]}" if problem else ""
    wait = retry_after(answer.headers, now=now())
    match answer.status, code:
        case 409, "centre_behind":
            return CentreBehind(said, retry_after_seconds=wait)
        case 409, "lease_lost":
            return LeaseLost(said, retry_after_seconds=wait)
        case 409, "lease_held":
            return LeaseHeld(said, retry_after_seconds=wait)
        case 409, "fenced":
            return Fenced(said)
        case 413, _:  # also of a proxy that takes less than the hub
            return BatchTooLarge(said or f"{label} takes no batch of this size")
        case _, "code_unknown" | "code_used" | "code_expired":
            return UplinkRefused(said)
        case 401, _:
            return UplinkRefused(f"{said or f'{label} does not know this site'}; {_ENROL}")
        case 403, _:
            return UplinkRefused(said or f"{label}, or a proxy before it, forbids this site to speak (403)")
        case 407, _:
            return UplinkRefused("the proxy asks for a password; set HTTPS_PROXY=http://user:password@proxy:port")
        case 404 | 410, _:
            return UplinkRefused(
                f"{label} has no wire version in common with this agent ({answer.status}); update whichever is older, "
                "or correct the address"
            )
        case ((400 | 405 | 409 | 415 | 422), _):
            return NotUnderstood(
                f"{said or label}: the hub does not understand this agent ({answer.status}); update whichever is older"
            )
        case ((429 | 503), _):
            return UplinkUnavailable(said or f"{label} is busy ({answer.status})", retry_after_seconds=wait)
        case _:
            return UplinkUnavailable(said or f"{label} answers with {answer.status}", retry_after_seconds=wait)


_ENROL: Final = (
    "have the centre make a new enrolment code and run edge-agent enroll --replace; calls are kept meanwhile"
)


def retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds to wait, from either form of Retry-After; None without one that can be understood."""
    text = headers.get("retry-after", "").strip()[:64]
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    # By the hub's own clock, if it tells: ours may be wrong.
    with suppress(ValueError, TypeError):
        now = parsedate_to_datetime(headers.get("date", "")[:64])
    moment, now = (each if each.tzinfo else each.replace(tzinfo=UTC) for each in (moment, now))
    return max(0.0, (moment - now).total_seconds())


def explain_connecting(exc: Exception, *, label: str) -> SyncError:  # noqa: PLR0911 - one table of cases
    """What it means that there was no answer at all."""
    for cause in _causes(exc):
        match cause:
            case ssl.SSLCertVerificationError():
                return UplinkRefused(f"the certificate of {label} is not trusted: {_of_certificate(cause)}")
            case socket.gaierror():
                return UplinkUnavailable(f"{label} cannot be reached: its name is not known")
            case ssl.SSLError():
                return UplinkUnavailable(f"{label} does not speak TLS as it should")
            case OSError() if cause.errno:
                return UplinkUnavailable(f"{label} cannot be reached: {os.strerror(cause.errno)}")
            case _:
                continue
    match exc:
        case httpx.ProxyError():
            if "407" in str(exc):
                return UplinkRefused("the proxy asks for a password; set HTTPS_PROXY=http://user:password@proxy:port")
            return UplinkUnavailable(f"the proxy on the way to {label} gives no passage: {_plain(str(exc))[:80]}")
        case httpx.ConnectTimeout() | httpx.ConnectError():
            return UplinkUnavailable(f"{label} cannot be reached")
        case httpx.TimeoutException():
            return UplinkUnavailable(f"{label} does not answer")
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return UplinkRefused("the address of the hub, or of the proxy in the environment, cannot be used")
        case _:
            return UplinkUnavailable(f"the connection to {label} broke")


def _of_certificate(exc: ssl.SSLCertVerificationError) -> str:
    said = exc.verify_message or "it does not verify"
    if exc.verify_code in {_NOT_YET_VALID, _EXPIRED}:
        return f"{said}; have it renewed, unless this machine's clock is wrong ({datetime.now(UTC):%Y-%m-%d %H:%M} UTC)"
    if "Hostname mismatch" in said or "IP address mismatch" in said:
        return f"{said}; use the name it is for in the address"
    return f"{said}; if its authority is one of your own, name that one in tls_ca_file (enroll: --ca)"


def _causes(exc: BaseException) -> Iterator[BaseException]:
    """The exception and what led to it; httpx wraps httpcore's, which wraps the socket's."""
    seen: BaseException | None = exc
    for _ in range(10):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__


def _problem_of(answer: Answer) -> wire.Problem | None:
    if "json" not in answer.headers.get("content-type", ""):
        return None
    try:
        return wire.decode_problem(answer.body)
    except ValueError:
        return None


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
