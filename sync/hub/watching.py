"""Counts and times every request, and ends those that take too long, whoever is to blame."""

import asyncio
import time
from http import HTTPStatus
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sync.hub.metrics import Metrics
from sync.hub.problems import Busy, answer

_ELSEWHERE: Final = "other"  # paths that are none of ours would be as many labels as somebody likes


class Watch:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, answer_seconds: float) -> None:
        self._app = app
        self._metrics = metrics
        self._answer_seconds = answer_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            async with asyncio.timeout(self._answer_seconds):
                await self._app(scope, receive, noting)
        except TimeoutError:
            # Somebody who does not read an answer that has begun is cut off by the server when we return.
            if not status:
                scope["edge_hub_code"] = "busy"
                await answer(Busy("the hub did not get to it in time"))(scope, receive, noting)
        finally:
            self._count(scope, status or HTTPStatus.INTERNAL_SERVER_ERROR, time.perf_counter() - started)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        endpoint: Any = getattr(scope.get("route"), "path", _ELSEWHERE)  # Any: Starlette's routes have it, or not
        self._metrics.requests.labels(endpoint, str(int(status)), scope.get("edge_hub_code", "")).inc()
        self._metrics.seconds.labels(endpoint).observe(seconds)
