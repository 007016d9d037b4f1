"""What goes wrong with a service's request, and how it is told: problem+json (RFC 9457) with a code for programs."""

from http import HTTPStatus
from typing import Any, Final

import orjson
from starlette.responses import Response

from agent.errors import (
    AgentError,
    CallUnknown,
    OperationRefused,
    RevisionChanged,
    StoreUnavailable,
    TaskUnknown,
    TooLarge,
)

MEDIA_TYPE: Final = "application/problem+json"
_AGAIN_SECONDS: Final = "1"
Json = dict[str, Any]  # Any: JSON


class Refusal(AgentError):
    """A request is answered with `status` and `code`; `field` names the member, parameter or header at fault."""

    def __init__(self, status: HTTPStatus, code: str, detail: str, *, field: str | None = None, **headers: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.field = field
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def malformed(detail: str) -> Refusal:
    """The body is no JSON."""
    return Refusal(HTTPStatus.BAD_REQUEST, "malformed", detail)


def invalid(field: str, detail: str) -> Refusal:
    """A parameter or header is not what it has to be."""
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", detail, field=field)


def unauthorized(detail: str) -> Refusal:
    """Nobody showed who asks."""
    return Refusal(HTTPStatus.UNAUTHORIZED, "token_unknown", detail, WWW_Authenticate="Bearer")


def forbidden(code: str, detail: str, *, field: str | None = None) -> Refusal:
    """The service may not do this, whatever call it is about."""
    return Refusal(HTTPStatus.FORBIDDEN, code, detail, field=field)


def too_large(detail: str) -> Refusal:
    """The body is larger than anything that could be kept."""
    return Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", detail)


def too_slow(seconds: float) -> Refusal:
    """The body did not come."""
    return Refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", f"the body took longer than {seconds:g} s")


def unsupported(detail: str) -> Refusal:
    """The body is written in a way that is not read."""
    return Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media", detail, field="Content-Type")


def too_many(detail: str) -> Refusal:
    """One service does too much at once."""
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests", detail, Retry_After=_AGAIN_SECONDS)


def busy(detail: str) -> Refusal:
    """The agent has all hands full."""
    return Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "busy", detail, Retry_After=_AGAIN_SECONDS)


def answer(exc: AgentError) -> Response:  # noqa: PLR0911 - one table of cases
    """An error as an answer. What the database's trouble is, its operator reads in the log."""
    match exc:
        case Refusal():
            return _problem(exc.status, exc.code, str(exc), field=exc.field, headers=exc.headers)
        case TaskUnknown():
            return _problem(HTTPStatus.NOT_FOUND, "task_unknown", "there is no such task on the stack", field=exc.field)
        case TooLarge():
            more = {"bound": exc.bound, "limit": exc.limit}
            return _problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too_large", str(exc), field=exc.field, more=more)
        case OperationRefused():
            return _problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", str(exc), field=exc.field)
        case CallUnknown():
            return _problem(HTTPStatus.NOT_FOUND, "call_unknown", "there is no such call")
        case RevisionChanged():
            headers = {"ETag": f'"{exc.revision}"'}
            return _problem(
                HTTPStatus.PRECONDITION_FAILED, "revision_changed", str(exc), field="If-Match", headers=headers
            )
        case StoreUnavailable():
            headers = {"Retry-After": _AGAIN_SECONDS}
            detail = "the local database takes nothing now: nothing was kept, send it again"
            return _problem(HTTPStatus.SERVICE_UNAVAILABLE, "store_unavailable", detail, headers=headers)
    raise exc


def of_http(status: int, headers: dict[str, str] | None) -> Response:
    """What the router says of a path or a method."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "refused")
    return _problem(HTTPStatus(status), code, "see /openapi.json", headers=headers)


def internal() -> Response:
    """A bug."""
    return _problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the agent has a fault; its log says which")


def _problem(
    status: HTTPStatus,
    code: str,
    detail: str,
    *,
    field: str | None = None,
    headers: dict[str, str] | None = None,
    more: Json | None = None,
) -> Response:
    told: Json = {"type": "about:blank", "title": status.phrase, "status": int(status), "code": code, "detail": detail}
    if field is not None:
        told["field"] = field
    return Response(orjson.dumps(told | (more or {})), status_code=status, media_type=MEDIA_TYPE, headers=headers)
