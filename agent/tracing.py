"""Sends a span of each ended call to a collector of OpenTelemetry, by OTLP over HTTP in JSON.

Beside everything else: capture never waits for it, what waits is bounded, and what a collector does not take is dropped
and counted. A repeated span bears the same ids.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import httpx
import orjson

from agent.calls.span import Json, is_sampled, request_of, span_of
from config.settings import TracingSettings
from sync.backoff import Backoff

log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000  # spans, some 15 MB
_BATCH: Final = 512
_COLLECT_SECONDS: Final = 1.0  # what ends within goes together
_LONGEST_RETRY_SECONDS: Final = 60.0
_AGAIN: Final = frozenset({429, 502, 503, 504})  # as OTLP says; any other refusal is for good


class SpanExporter:
    """One collector. `add` only notes; `run` sends."""

    def __init__(
        self, settings: TracingSettings, *, site: str, version: str, collect_seconds: float = _COLLECT_SECONDS
    ) -> None:
        self.dropped = 0
        self._url = settings.traces_url or ""
        self._timeout = settings.timeout_seconds
        self._site = site
        self._version = version
        self._collect_seconds = collect_seconds
        self._waiting: deque[Json] = deque()
        self._news = asyncio.Event()
        self._backoff = Backoff(maximum=_LONGEST_RETRY_SECONDS)
        self._is_away = False

    def add(self, row: Mapping[str, Any], tenant: str | None) -> None:  # Any: the columns' own types
        """A call has ended; its columns."""
        if not is_sampled(row):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(span_of(row, tenant))
        self._news.set()

    async def run(self) -> None:
        """Send what comes until cancelled."""
        async with httpx.AsyncClient(timeout=self._timeout) as client:
            while True:
                await self._news.wait()
                await asyncio.sleep(self._collect_seconds)
                self._news.clear()
                while self._waiting:
                    batch = list(islice(self._waiting, _BATCH))
                    dropped = self.dropped
                    problem, is_final = await self._send(client, batch)
                    if problem is not None and not is_final:
                        self._note(problem)
                        await asyncio.sleep(self._backoff.next_delay())
                        continue
                    # Of the batch, those are gone already that newer ones have pushed out meanwhile.
                    for _ in range(max(0, len(batch) - (self.dropped - dropped))):
                        self._waiting.popleft()
                    if problem is not None:
                        self.dropped += len(batch)
                        self._note(problem)
                    else:
                        self._backoff.succeeded()
                        self._note(None)

    async def _send(self, client: httpx.AsyncClient, batch: list[Json]) -> tuple[str | None, bool]:
        """What went wrong, and whether to give these spans up."""
        body = orjson.dumps(request_of(batch, site=self._site, version=self._version))
        try:
            async with client.stream(
                "POST", self._url, content=body, headers={"Content-Type": "application/json"}
            ) as response:
                if response.is_success:
                    return None, True
                return f"it answers {response.status_code}", response.status_code not in _AGAIN
        except httpx.HTTPError as exc:
            return str(exc) or type(exc).__name__, False

    def _note(self, problem: str | None) -> None:
        if problem is not None and not self._is_away:
            log.warning("spans cannot be sent to %s: %s", self._url, problem)
        elif problem is None and self._is_away:
            log.info("spans are sent again", extra={"dropped": self.dropped})
        self._is_away = problem is not None
