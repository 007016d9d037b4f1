"""What the running agent answers its operator's command line, on a socket of its own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Any, Protocol

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agent.calls.context import CallContext
from agent.errors import AgentError
from agent.health import AgentStatus
from agent.store.coverage import DayCounts
from agent.store.filling import Filling
from agent.store.merge import MergeResult, ToldCall, read_told
from agent.store.quarantine import Chosen
from agent.store.services import Registered
from config.errors import ConfigError
from sync.errors import SyncError


class Control(Protocol):
    """What the API can ask of the daemon."""

    async def status(self) -> AgentStatus:
        """How the agent is."""
        ...

    def live_contexts(self) -> list[CallContext]:
        """Every live call as services see it."""
        ...

    def sync_now(self) -> bool:
        """Look at the outbox at once, also out of a pause; False if there is no centre."""
        ...

    async def reassign(self) -> dict[str, Any]:
        """Read the tenant rules again and give unassigned calls to the tenants they now match."""
        ...

    def rebuild(
        self, *, since: datetime, until: datetime | None, dry_run: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Derive stored calls again from the journal, telling now and then how far it is."""
        ...

    def reconcile(self, first: date, last: date, *, heal: bool) -> AsyncGenerator[dict[str, Any], None]:
        """Compare some days with the centre, telling each that differs and at last what it comes to."""
        ...

    def erase(self, number: str, *, tenant: str | None, by: str, dry_run: bool) -> AsyncGenerator[dict[str, Any], None]:
        """Take whoever has this number out of everything that is kept, telling now and then how far it is.

        Raises ValueError for what is no number.
        """
        ...

    async def merge(self, calls: Sequence[ToldCall], *, again: bool) -> MergeResult:
        """Keep calls that another source tells, or what it knows of those that are kept already.

        `again`: also calls that may have been deleted here by retention.
        """
        ...

    async def fill(self, filling: Filling) -> int:
        """Mark gaps as filled by what was read of a PBX's sources; how many."""
        ...

    async def keep_day(self, counts: DayCounts) -> None:
        """Keep what the verification of a day found."""
        ...

    async def retry_refused(self, chosen: Chosen) -> int:
        """Send refused calls again; how many."""
        ...

    async def drop_refused(self, chosen: Chosen, *, by: str) -> int:
        """Give refused calls up, by whom; how many."""
        ...

    async def services(self) -> Sequence[Registered]:
        """Who may use the live context."""
        ...

    async def add_service(self, new: Registered) -> bool:
        """Let a service use the live context; False if there is one of that name."""
        ...

    async def remove_service(self, name: str) -> bool:
        """Let it no more, from now on; False if there is none of that name."""
        ...


def make_app(control: Control) -> Starlette:
    """The ASGI application over a running daemon."""

    async def status(_: Request) -> Response:
        return Response((await control.status()).model_dump_json(), media_type="application/json")

    async def calls(_: Request) -> Response:
        contexts = control.live_contexts()
        return JSONResponse({"calls": [context.model_dump(mode="json") for context in contexts]})

    async def sync(_: Request) -> Response:
        if not control.sync_now():
            return problem(409, "No centre", "the settings have no [central] section: calls are kept here")
        return JSONResponse({"started": True})

    async def reassign(_: Request) -> Response:
        return JSONResponse(await control.reassign())

    async def rebuild(request: Request) -> Response:
        query = request.query_params
        try:
            since = _moment(query["since"])
            until = _moment(query["until"]) if "until" in query else None
        except (KeyError, ValueError):
            return problem(422, "No time", "since and until have to be moments with a zone, in ISO 8601")
        steps = control.rebuild(since=since, until=until, dry_run=query.get("dry_run") == "true")
        first = await anext(steps)  # what cannot be done at all is told before the answer begins
        return StreamingResponse(_lines(first, steps), media_type="application/x-ndjson")

    async def reconcile(request: Request) -> Response:
        query = request.query_params
        try:
            first, last = date.fromisoformat(query["first"]), date.fromisoformat(query["last"])
        except (KeyError, ValueError):
            return problem(422, "No days", "first and last have to be days, as 2026-11-22")
        steps = control.reconcile(first, last, heal=query.get("heal") == "true")
        found = await anext(steps)
        return StreamingResponse(_lines(found, steps), media_type="application/x-ndjson")

    async def merge(request: Request) -> Response:
        try:
            calls = await asyncio.to_thread(read_told, await request.body())
            again = request.query_params.get("again") == "true"
            return JSONResponse((await control.merge(calls, again=again)).as_dict())
        except (ValueError, TypeError, AttributeError) as exc:
            return problem(422, "No calls", str(exc))

    async def fill(request: Request) -> Response:
        try:
            filling = Filling.from_dict(orjson.loads(await request.body()))
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            return problem(422, "No filling", str(exc))
        return JSONResponse({"filled": await control.fill(filling)})

    async def keep_day(request: Request) -> Response:
        try:
            counts = DayCounts.from_dict(orjson.loads(await request.body()))
        except ValueError as exc:
            return problem(422, "No coverage", str(exc))
        await control.keep_day(counts)
        return JSONResponse({"kept": True})

    return Starlette(
        routes=[
            Route("/v1/status", status),
            *_service_routes(control),
            Route("/v1/calls", calls),
            Route("/v1/sync", sync, methods=["POST"]),
            Route("/v1/tenants/reassign", reassign, methods=["POST"]),
            Route("/v1/calls/merge", merge, methods=["POST"]),
            Route("/v1/calls/rebuild", rebuild, methods=["POST"]),
            Route("/v1/gaps/fill", fill, methods=["POST"]),
            Route("/v1/erase", _eraser(control), methods=["POST"]),
            Route("/v1/coverage", keep_day, methods=["POST"]),
            Route("/v1/reconcile", reconcile, methods=["POST"]),
            *_quarantine_routes(control),
        ],
        exception_handlers={AgentError: _unable, SyncError: _unable, ConfigError: _unable},
    )


def _eraser(control: Control) -> Callable[[Request], Awaitable[Response]]:
    async def erase(request: Request) -> Response:
        try:
            # In the body: what is in an address may be logged somewhere.
            asked = orjson.loads(await request.body())
            steps = control.erase(
                str(asked["number"]),
                tenant=None if asked.get("tenant") is None else str(asked["tenant"]),
                by=str(asked["by"]),
                dry_run=asked["dry_run"] is not False,
            )
            first = await anext(steps)
        except (ValueError, TypeError, KeyError, AttributeError) as exc:
            return problem(422, "No person", str(exc))
        return StreamingResponse(_lines(first, steps), media_type="application/x-ndjson")

    return erase


def _quarantine_routes(control: Control) -> list[Route]:
    """Calls that the centre refused."""

    async def retry(request: Request) -> Response:
        return JSONResponse({"calls": await control.retry_refused(_chosen(request))})

    async def drop(request: Request) -> Response:
        by = request.query_params.get("by")
        if not by:
            return problem(422, "Nobody", "say by whom")
        return JSONResponse({"calls": await control.drop_refused(_chosen(request), by=by)})

    return [
        Route("/v1/quarantine/retry", retry, methods=["POST"]),
        Route("/v1/quarantine/drop", drop, methods=["POST"]),
    ]


def _chosen(request: Request) -> Chosen:
    query = request.query_params
    return Chosen(query.get("call_sid"), query.get("code"))


def _service_routes(control: Control) -> list[Route]:
    """Who may use the live context."""

    async def services(_: Request) -> Response:
        return JSONResponse({"services": [each.as_dict() for each in await control.services()]})

    async def add_service(request: Request) -> Response:
        try:
            new = Registered.from_dict(orjson.loads(await request.body()))
        except (ValueError, TypeError, KeyError) as exc:
            return problem(422, "No service", str(exc))
        if not await control.add_service(new):
            return problem(409, "Service exists", f"there is a service {new.service.name!r} already; remove it first")
        return JSONResponse(new.as_dict())

    async def remove_service(request: Request) -> Response:
        name = request.query_params.get("name", "")
        if not await control.remove_service(name):
            return problem(404, "No such service", f"there is no service {name!r}")
        return JSONResponse({"removed": name})

    return [
        Route("/v1/services", services),
        Route("/v1/services/add", add_service, methods=["POST"]),
        Route("/v1/services/remove", remove_service, methods=["POST"]),
    ]


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("a moment needs a zone")
    return moment


async def _lines(first: dict[str, Any], steps: AsyncGenerator[dict[str, Any], None]) -> AsyncIterator[str]:
    """A JSON object a line; when nobody reads any more, the work ends."""
    async with contextlib.aclosing(steps):
        yield f"{json.dumps(first)}\n"
        try:
            async for step in steps:
                yield f"{json.dumps(step)}\n"
        except (AgentError, SyncError) as exc:  # the answer has begun, so it is no status any more
            yield f"{json.dumps({'error': str(exc)})}\n"


def problem(status: int, title: str, detail: str) -> Response:
    """An error as RFC 9457 tells it."""
    return JSONResponse(
        {"title": title, "detail": detail, "status": status}, status_code=status, media_type="application/problem+json"
    )


async def _unable(_: Request, exc: Exception) -> Response:
    return problem(422 if isinstance(exc, ConfigError) else 503, "Not possible now", str(exc))
