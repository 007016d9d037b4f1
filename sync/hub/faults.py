"""Which answer an error becomes: what a site is told, and what the hub's own operator."""

import logging
import time
from collections import OrderedDict
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from sync.errors import CentreBehind, Fenced, LeaseHeld, LeaseLost, SiteRefused, SyncError, UplinkRefused
from sync.hub.problems import Busy, Conflict, Forbidden, Invalid, NotAuthorized, Refusal, answer, problem
from sync.wire import PREFIX, VERSION

log = logging.getLogger(__name__)

_AGAIN_SECONDS: Final = 600.0  # the same complaint is logged once in that time
_MOST_COMPLAINTS: Final = 1000
_UNAVAILABLE_SECONDS: Final = 5.0
_CODES: Final = {
    HTTPStatus.NOT_FOUND: "not_found",
    HTTPStatus.METHOD_NOT_ALLOWED: "method_not_allowed",
}


def install_handlers(app: FastAPI) -> None:
    """Make every error a problem+json."""
    complaints = _Complaints()

    async def refused(request: Request, exc: SyncError) -> Response:
        refusal = _refusal(exc)
        request.scope["edge_hub_code"] = refusal.code
        if isinstance(exc, UplinkRefused) and not isinstance(exc, Fenced | SiteRefused):
            complaints.tell(logging.ERROR, "the central database refuses the hub", reason=str(exc))
        elif refusal.code == "centre_unavailable":
            complaints.tell(logging.WARNING, "the central database cannot be used", reason=str(exc))
        elif refusal.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.CONFLICT}:
            complaints.tell(
                logging.WARNING, "a site is refused", reason=str(exc), code=refusal.code, client=_client(request)
            )
        return answer(refusal)

    async def invalid(request: Request, exc: RequestValidationError) -> Response:
        first = exc.errors()[0]
        request.scope["edge_hub_code"] = Invalid.code
        where = ".".join(str(step) for step in first["loc"][1:]) or "the request"
        return answer(Invalid(f"{where}: {first['msg']}"))

    async def http(request: Request, exc: HTTPException) -> Response:
        status = HTTPStatus(exc.status_code)
        request.scope["edge_hub_code"] = code = _CODES.get(status, "refused")
        told = f"this hub speaks wire version {VERSION}, at {PREFIX}" if status is HTTPStatus.NOT_FOUND else ""
        return problem(status, code, told, headers=exc.headers)

    async def gone(request: Request, exc: ClientDisconnect) -> Response:
        request.scope["edge_hub_code"] = "cut"
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to hear it

    async def bug(request: Request, exc: Exception) -> Response:
        request.scope["edge_hub_code"] = "internal"
        return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "the hub has a fault; its log says which")

    handlers: dict[Any, Any] = {  # Any: Starlette has one type for all handlers
        SyncError: refused,
        RequestValidationError: invalid,
        HTTPException: http,
        ClientDisconnect: gone,
        Exception: bug,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _refusal(exc: SyncError) -> Refusal:  # noqa: PLR0911 - one table of cases
    match exc:
        case Refusal():
            return exc
        case SiteRefused():
            kind = NotAuthorized if exc.code.startswith(("credential_", "code_")) else Forbidden
            return kind(str(exc), code=exc.code)
        case Fenced():
            return Conflict(str(exc), code="fenced")
        case LeaseHeld():
            return Conflict(str(exc), code="lease_held", retry_after_seconds=exc.retry_after_seconds or 1)
        case LeaseLost():
            return Conflict(str(exc), code="lease_lost")
        case CentreBehind():
            return Conflict(str(exc), code="centre_behind")
        case _:
            # What is wrong between hub and database is none of a site's business, nor are their names.
            return Busy(
                "the centre's database takes nothing now",
                code="centre_unavailable",
                retry_after_seconds=_UNAVAILABLE_SECONDS,
            )


class _Complaints:
    """Logs the same thing once in a while, not each time."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[object, ...], float] = OrderedDict()

    def tell(self, level: int, message: str, **facts: object) -> None:
        """Log it, unless it was lately."""
        key = (message, *facts.values())
        now = time.monotonic()
        if now - self._told.get(key, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return
        self._told[key] = now
        self._told.move_to_end(key)
        if len(self._told) > _MOST_COMPLAINTS:
            self._told.popitem(last=False)
        log.log(level, message, extra=facts)


def _client(request: Request) -> str:
    return request.client.host if request.client else ""
