"""What goes wrong with a request, and how it is told: problem+json (RFC 9457) with a code for programs."""

import math
from collections.abc import Mapping
from http import HTTPStatus

import orjson
from starlette.responses import Response

from sync.errors import SyncError

MEDIA_TYPE = "application/problem+json"


class Refusal(SyncError):
    """A request is answered with `status` and `code`; the text is for the site's operator and quotes nothing secret."""

    status = HTTPStatus.BAD_REQUEST
    code = "malformed"

    def __init__(self, detail: str, *, code: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.code = code or self.code
        self.retry_after_seconds = retry_after_seconds


class Malformed(Refusal):
    """The body as a whole is not what the wire says."""


class NotAuthorized(Refusal):
    """Nobody showed who they are."""

    status = HTTPStatus.UNAUTHORIZED
    code = "credential_unknown"


class Forbidden(Refusal):
    """The site may not do this."""

    status = HTTPStatus.FORBIDDEN
    code = "wrong_site"


class TooSlow(Refusal):
    """The body did not come in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "timeout"


class Conflict(Refusal):
    """Another installation speaks for the site, or the centre is not the one the site knew."""

    status = HTTPStatus.CONFLICT
    code = "fenced"


class TooLarge(Refusal):
    """The body is larger than the hub takes."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "batch_too_large"


class Unsupported(Refusal):
    """The body is packed or written in a way the hub does not read."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    code = "unsupported_encoding"


class Invalid(Refusal):
    """A member or a parameter is missing or not what the wire says."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "invalid"


class RateLimited(Refusal):
    """Too many tries from one address."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "rate_limited"


class TooManyRequests(Refusal):
    """One site does too much at once."""

    status = HTTPStatus.TOO_MANY_REQUESTS
    code = "too_many_requests"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, retry_after_seconds=2)


class Busy(Refusal):
    """The hub has all hands full."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "busy"

    def __init__(self, detail: str, *, code: str | None = None, retry_after_seconds: float = 2) -> None:
        super().__init__(detail, code=code, retry_after_seconds=retry_after_seconds)


def problem(status: HTTPStatus, code: str, detail: str = "", *, headers: Mapping[str, str] | None = None) -> Response:
    """An error as an answer."""
    told = {"type": "about:blank", "title": status.phrase, "status": int(status), "code": code, "detail": detail}
    return Response(orjson.dumps(told), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def answer(refusal: Refusal) -> Response:
    """A refusal as an answer."""
    headers = {}
    if refusal.retry_after_seconds is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry_after_seconds)))
    if refusal.status is HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    return problem(refusal.status, refusal.code, str(refusal), headers=headers)
