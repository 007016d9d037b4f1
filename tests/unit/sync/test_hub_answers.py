"""What a hub's answers mean, row by row of docs/hub.md, and what having none means."""

import socket
import ssl
from datetime import UTC, datetime

import httpx
import orjson
import pytest
import zstandard

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
from sync.hub_answers import Answer, explain, explain_connecting, retry_after, unpacked

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LABEL = "https://hub.example"


def told(status: int, code: str | None = None, detail: str = "a sentence", **headers: str) -> SyncError:
    """What it means."""
    body = b"<html>" if code is None else orjson.dumps({"status": status, "code": code, "detail": detail})
    kind = {"content-type": "application/problem+json" if code else "text/html"}
    return explain(Answer(status, kind | headers, body), label=LABEL, now=lambda: NOW)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "credential_unknown", UplinkRefused),
        (401, "credential_revoked", UplinkRefused),
        (401, "credential_expired", UplinkRefused),
        (401, None, UplinkRefused),
        (403, "wrong_site", UplinkRefused),
        (403, "site_disabled", UplinkRefused),
        (403, "code_used", UplinkRefused),
        (409, "fenced", Fenced),
        (409, "lease_held", LeaseHeld),
        (409, "lease_lost", LeaseLost),
        (409, "centre_behind", CentreBehind),
        (429, "rate_limited", UplinkUnavailable),
        (503, None, UplinkUnavailable),
        (413, "batch_too_large", BatchTooLarge),
        (413, None, BatchTooLarge),
        (400, "malformed", NotUnderstood),
        (415, "unsupported_encoding", NotUnderstood),
        (422, "invalid", NotUnderstood),
        (404, None, UplinkRefused),
        (410, None, UplinkRefused),
        (407, None, UplinkRefused),
        (500, None, UplinkUnavailable),
        (502, None, UplinkUnavailable),
        (302, None, UplinkUnavailable),
        (204, None, UplinkUnavailable),
    ],
)
def test_every_answer_is_sorted_by_what_to_do_next(status: int, code: str | None, kind: type[SyncError]) -> None:
    assert type(told(status, code)) is kind
    assert LABEL in str(told(status, code)) or status == 407


def test_what_the_hub_says_is_told_in_one_short_harmless_line() -> None:
    said = str(told(403, "site_disabled", "off\n\x1b[31m" + "x" * 5000))

    assert said.isprintable()
    assert len(said) < 400


def test_a_wish_to_be_left_alone_is_understood_in_both_forms() -> None:
    date = "Sun, 22 Nov 2026 12:00:30 GMT"
    by_hub = {"retry-after": date, "date": "Sun, 22 Nov 2026 11:59:30 GMT"}

    assert [retry_after({"retry-after": text}, now=NOW) for text in ("7", date, "soon", "-3", "١")] == [
        7.0, 30.0, None, None, None,
    ]  # fmt: skip
    assert retry_after(by_hub, now=NOW) == 60.0
    assert retry_after({}, now=NOW) is None
    fault = told(503, "busy", **{"retry-after": "7"})
    assert isinstance(fault, UplinkUnavailable)
    assert fault.retry_after_seconds == 7.0


def test_an_answer_is_unpacked_within_bounds() -> None:
    assert unpacked(b"plain", None, max_bytes=10) == b"plain"
    assert unpacked(zstandard.compress(b"packed"), "zstd", max_bytes=10) == b"packed"
    for body, encoding in ((zstandard.compress(bytes(2**24)), "zstd"), (b"no zstd", "zstd"), (b"", "br")):
        with pytest.raises(ValueError, match="it"):
            unpacked(body, encoding, max_bytes=1000)


def caused(cause: Exception) -> Exception:
    """As httpx tells it."""
    fault = httpx.ConnectError("all connection attempts failed")
    fault.__cause__ = cause
    return fault


def test_a_certificate_that_is_not_trusted_is_for_a_person_and_everything_else_is_tried_again() -> None:
    expired = ssl.SSLCertVerificationError("no")
    expired.verify_code, expired.verify_message = 10, "certificate has expired"

    assert "unless this machine's clock is wrong" in str(explain_connecting(caused(expired), label=LABEL))
    assert isinstance(explain_connecting(caused(expired), label=LABEL), UplinkRefused)
    assert isinstance(
        explain_connecting(httpx.ProxyError("407 Proxy Authentication Required"), label=LABEL), UplinkRefused
    )
    for fault in (
        caused(ConnectionRefusedError(111, "refused")),
        caused(socket.gaierror(-2, "unknown")),
        caused(ssl.SSLError("wrong version")),
        httpx.ProxyError("502 Bad Gateway"),
        httpx.ReadTimeout(""),
        httpx.RemoteProtocolError("garbage"),
    ):
        assert type(explain_connecting(fault, label=LABEL)) is UplinkUnavailable
