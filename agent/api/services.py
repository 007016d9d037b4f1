"""The API for services on the machine, version 1: docs/live-context.md is its contract."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from agent.api import events, problems
from agent.api.access import Access, Places, Room
from agent.api.bodies import read_json
from agent.api.connections import patient_protocol
from agent.api.listening import Spawn, local_port, serving, unix_socket
from agent.api.problems import forbidden, invalid
from agent.calls.context import TRACKER_FIELDS, CallContext, CallState
from agent.calls.operations import (
    AppendInteractions,
    Operation,
    Patch,
    PopTask,
    PushTask,
    SetTranscript,
    UpdateTask,
)
from agent.calls.wishes import Limits
from agent.errors import AgentError
from agent.live.changes import Change
from agent.live.desk import Desk, Written
from agent.store.services import Service
from config.settings import ApiSettings

log = logging.getLogger(__name__)

T = TypeVar("T")
Json = Any  # JSON

_WAITING_PER_SERVICE: Final = 32  # long polls and event streams
_BODIES_BYTES: Final = 32 * 1024 * 1024
_LONGEST_WAIT_SECONDS: Final = 60.0
_USUAL_WAIT_SECONDS: Final = 30.0
_MAX_TEXT: Final = 255
# JSON may write a letter in six bytes that is kept in two.
_ESCAPED: Final = 3
_ETAG: Final = re.compile(r'"(\d{1,18})"')
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_FACTS: Final = TRACKER_FIELDS | {"revision", "last_interaction_time"}


class ServicesApi:
    """What requests share."""

    def __init__(self, desk: Desk, access: Access, *, limits: Limits) -> None:
        self._desk = desk
        self._access = access
        self._limits = limits
        self._places = Places(_WAITING_PER_SERVICE)
        largest = max(limits.max_value_bytes, limits.max_context_bytes, limits.max_transcript_bytes)
        self._room = Room(max(_BODIES_BYTES, largest * _ESCAPED))
        self._stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._openapi: bytes | None = None

    def stop(self) -> None:
        """Let those go who wait for something to happen."""
        if not self._stopping.done():
            self._stopping.set_result(None)

    def app(self) -> Starlette:
        """The ASGI application."""
        call = "/v1/calls/{sid:path}"
        return Starlette(
            routes=[
                Route("/openapi.json", self.openapi),
                Route("/v1/calls", self.live_calls),
                Route("/v1/calls/next", self.next_call),
                Route("/v1/events", self.events),
                Route(f"{call}/context", self.context),
                Route(f"{call}/context", self.patch_context, methods=["PATCH"]),
                Route(f"{call}/tasks", self.push_task, methods=["POST"]),
                Route(f"{call}/tasks/{{task:path}}", self.update_task, methods=["PATCH"]),
                Route(f"{call}/tasks/{{task:path}}", self.pop_task, methods=["DELETE"]),
                Route(f"{call}/interactions", self.append_interactions, methods=["POST"]),
                Route(f"{call}/transcript", self.set_transcript, methods=["PUT"]),
            ],
            exception_handlers=_HANDLERS,
        )

    # Reading

    async def openapi(self, _: Request) -> Response:
        """The document for machines, which tells nothing of calls."""
        if self._openapi is None:
            from agent.api.openapi import document

            self._openapi = orjson.dumps(document())
        return Response(self._openapi, media_type="application/json")

    async def live_calls(self, request: Request) -> Response:
        """What the PBX says of the live calls."""
        allowed = self._allowed(request, self._access.service_of(request.scope))
        state = _one_of(request, "state", CallState)
        found = [
            context
            for context in self._desk.live()
            if allowed(context.tenant_id) and (state is None or context.state is state)
        ]
        return _json({"calls": [context.model_dump(mode="json", include=set(_FACTS)) for context in found]})

    async def next_call(self, request: Request) -> Response:
        """The next call that begins; none if the time is over."""
        service = self._access.service_of(request.scope)
        allowed = self._allowed(request, service)
        seconds = _seconds(request)
        after = _text(request, "after") or self._desk.changes.latest
        self._places.check(service.name)
        with self._places.taken(service.name):
            found = await self._unless_gone(request, self._desk.next_call(allowed, after, seconds))
        if found is None:
            return _json({"call": None, "after": after})
        context, after = found
        return _json({"call": context.model_dump(mode="json"), "after": after}, headers=_trace(context))

    async def context(self, request: Request) -> Response:
        """A call's context."""
        context = await self._context_of(request, self._access.service_of(request.scope))
        headers = {"ETag": _etag(context), **_trace(context)}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(context.model_dump_json(), media_type="application/json", headers=headers)

    async def events(self, request: Request) -> Response:
        """Server-sent events."""
        service = self._access.service_of(request.scope)
        tenant_allowed = self._allowed(request, service)
        call_sid = _text(request, "call")
        if call_sid is not None:
            await self._desk.read(call_sid, sees=service.sees)
        self._places.check(service.name)
        if request.method == "HEAD":
            return Response(media_type=events.MEDIA_TYPE)

        def allowed(change: Change) -> bool:
            return tenant_allowed(change.tenant) and call_sid in {None, change.call_sid}

        async def stream() -> AsyncIterator[bytes]:
            with self._places.taken(service.name):
                async for event in events.told(
                    self._desk.changes,
                    after=request.headers.get("last-event-id") or None,
                    allowed=allowed,
                    goes_on=lambda: self._access.still_holds(service),
                    stopping=self._stopping,
                ):
                    yield event

        return StreamingResponse(stream(), media_type=events.MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    # Writing

    async def patch_context(self, request: Request) -> Response:
        """Merge a patch into what services own."""
        return await self._write(request, Patch)

    async def push_task(self, request: Request) -> Response:
        """Put a task on the stack."""
        return await self._write(request, PushTask, status=HTTPStatus.CREATED)

    async def update_task(self, request: Request) -> Response:
        """Change a task."""
        return await self._write(request, lambda body: UpdateTask(request.path_params["task"], body))

    async def pop_task(self, request: Request) -> Response:
        """Take a task from the stack."""
        return await self._write(request, lambda _: PopTask(request.path_params["task"]), has_body=False)

    async def append_interactions(self, request: Request) -> Response:
        """Note what was said or done."""

        def wish(body: Json) -> Operation:
            entries = body if isinstance(body, list) else [body]
            if not entries:
                raise invalid("interactions", "an empty list says nothing")
            return AppendInteractions(entries)

        return await self._write(request, wish, status=HTTPStatus.CREATED, most=self._limits.max_context_bytes)

    async def set_transcript(self, request: Request) -> Response:
        """Say what the transcript is."""

        def wish(body: Json) -> Operation:
            if body is not None and not isinstance(body, list):
                raise invalid("transcript", "a list is wanted, or null for what was said")
            return SetTranscript(body)

        return await self._write(request, wish, most=self._limits.max_transcript_bytes)

    async def _write(
        self,
        request: Request,
        wish: Callable[[Json], Operation],
        *,
        has_body: bool = True,
        status: HTTPStatus = HTTPStatus.OK,
        most: int | None = None,
    ) -> Response:
        """Write what is wished, by the body if there is one, and tell what came of it."""
        service = self._access.service_of(request.scope)
        if not service.may_write:
            raise forbidden("read_only", "this service may read only")
        if_revision, key = _if_match(request), _idempotency_key(request)
        call = await self._context_of(request, service)
        limit = (most or self._limits.max_value_bytes) * _ESCAPED
        with self._room.held() as take:
            body = await read_json(request, most=limit, take=take) if has_body else None
            written = await self._desk.write(
                call.call_sid, [wish(body)], service=service.name, if_revision=if_revision, idempotency_key=key
            )
        return _receipt(written, status)

    # Who may

    def _allowed(self, request: Request, service: Service) -> Callable[[str | None], bool]:
        """Whose calls are asked for: the service's, or one of its tenants'."""
        tenant = _text(request, "tenant")
        if tenant is None:
            return service.sees
        if not service.sees(tenant):
            raise forbidden("tenant_forbidden", "this tenant is none of the service's", field="tenant")
        return lambda found: found == tenant

    async def _context_of(self, request: Request, service: Service) -> CallContext:
        """A call of others is as one that nobody knows."""
        return await self._desk.read(request.path_params["sid"], sees=service.sees)

    async def _unless_gone(self, request: Request, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work comes to; None if the client leaves before, or the agent stops."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
        try:
            everything: set[asyncio.Future[Any]] = {task, gone, self._stopping}  # Any: what each comes to
            await asyncio.wait(everything, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _receipt(written: Written, status: HTTPStatus) -> Response:
    told = {
        "call_sid": written.context.call_sid,
        "revision": written.context.revision,
        "ids": [written_id for operation in written.operations for written_id in _ids(operation)],
        "repeated": written.is_repeated,
    }
    return _json(told, status=status, headers={"ETag": _etag(written.context), **_trace(written.context)})


def _ids(operation: Operation) -> Sequence[str]:
    """What the tasks or interactions that were written are known by."""
    match operation:
        case PushTask():
            return [operation.task["id"]]
        case UpdateTask() | PopTask():
            return [operation.id]
        case AppendInteractions():
            return [entry["id"] for entry in operation.interactions]
    return []


def _json(value: Json, *, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(value), status_code=status, media_type="application/json", headers=headers)


def _etag(context: CallContext) -> str:
    return f'"{context.revision}"'


def _trace(context: CallContext) -> dict[str, str]:
    """W3C trace context: the call's own span, which is the parent of the spans of services."""
    return {"traceparent": context.traceparent} if context.traceparent is not None else {}


def _text(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if not values:
        return None
    if len(values) > 1 or not 0 < len(values[0]) <= _MAX_TEXT:
        raise invalid(name, f"one of 1 to {_MAX_TEXT} letters is wanted")
    return values[0]


def _one_of(request: Request, name: str, kind: type[CallState]) -> CallState | None:
    given = _text(request, name)
    try:
        return None if given is None else kind(given)
    except ValueError:
        raise invalid(name, f"one of {', '.join(kind)} is wanted") from None


def _seconds(request: Request) -> float:
    given = _text(request, "wait")
    if given is None:
        return _USUAL_WAIT_SECONDS
    if not re.fullmatch(r"\d{1,2}(\.\d{1,6})?", given, re.ASCII) or float(given) > _LONGEST_WAIT_SECONDS:
        raise invalid("wait", f"seconds from 0 to {_LONGEST_WAIT_SECONDS:g} are wanted")
    return float(given)


def _if_match(request: Request) -> int | None:
    given = request.headers.get("if-match")
    if given is None or given == "*":
        return None
    found = _ETAG.fullmatch(given)
    if found is None:
        raise invalid("If-Match", "one ETag is wanted, as the context's answer told it")
    return int(found[1])


def _idempotency_key(request: Request) -> str | None:
    given = request.headers.get("idempotency-key")
    if given is not None and not _KEY.fullmatch(given):
        raise invalid("Idempotency-Key", "1 to 255 visible ASCII letters are wanted")
    return given


async def _unable(_: Request, exc: AgentError) -> Response:
    return problems.answer(exc)


async def _unrouted(_: Request, exc: HTTPException) -> Response:
    return problems.of_http(exc.status_code, dict(exc.headers or {}))


async def _left(_: Request, __: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody is there to hear it


async def _bug(_: Request, __: Exception) -> Response:
    return problems.internal()  # Starlette raises it again, so that the server logs it


_HANDLERS: Final[dict[Any, Any]] = {  # Any: Starlette has one type for all handlers
    AgentError: _unable,
    HTTPException: _unrouted,
    ClientDisconnect: _left,
    Exception: _bug,
}


@asynccontextmanager
async def serving_services(
    desk: Desk, access: Access, *, limits: Limits, settings: ApiSettings, socket_file: Path, spawn: Spawn
) -> AsyncIterator[None]:
    """Answer services while the block runs. Raises AgentError if a socket cannot be made."""
    with ExitStack() as sockets:
        doors = [sockets.enter_context(unix_socket(socket_file, group=settings.group))]
        if settings.port is not None:
            doors.append(sockets.enter_context(local_port(*settings.port)))
        api = ServicesApi(desk, access, limits=limits)
        protocol = patient_protocol(connections=settings.connections)
        async with serving(api.app(), doors, spawn=spawn, http=protocol, server_header=False):
            try:
                yield
            finally:
                api.stop()
