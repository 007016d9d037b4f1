"""Captures without a database: what PBXes say goes into the spill as it comes, and is heard once there is one again."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from agent.api.listening import serving, unix_socket
from agent.calls.events import CallEvent, ClockStepped
from agent.errors import StoreUnavailable
from agent.health import AgentStatus, DatabaseHealth, PbxHealth, Verdict
from agent.pbx.asterisk.connector import AsteriskConnector
from agent.pbx.clock import mark_of
from agent.pbx.feed import Blind
from agent.store.segment import Frame, Segment
from agent.store.spill import Spill
from agent.tracking.tracker import read_boot_id
from config.describe import fingerprint
from config.notify import Notifier
from config.settings import AsteriskSettings, Settings

log = logging.getLogger(__name__)

_PROGRAM: Final = "sentiric-edge-agent"
_INTERVAL_SECONDS: Final = 0.1
_RETRY_SECONDS: Final = 1.0
_STATUS_SECONDS: Final = 2.0
_MAX_WAITING_BYTES: Final = 24 * 1024 * 1024
_FRAME_OVERHEAD_BYTES: Final = 200

Connect = Callable[[AsteriskSettings, "RawFeed"], AsteriskConnector]


class RawFeed:
    """One PBX's frames until they are spilled; implements `agent.pbx.feed.Feed`."""

    def __init__(self, pbx: str, *, boot_id: str) -> None:
        self._pbx = pbx
        self._boot_id = boot_id
        self._connection = 0
        self._frames: list[Frame] = []
        self._first_at = datetime.now(UTC)
        self._first_monotonic_ns = 0
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()
        self._closed: list[Segment] = []

    def heard(self, frame: bytes, event: CallEvent | None, at: datetime, *, blind: Blind | None = None) -> None:
        """One frame, as it came."""
        self._append(frame, at)
        if blind is not None:
            self._close()
            self._connection += 1

    def clock_set(self, at: datetime, seconds: float) -> None:
        """Kept as a mark; what comes next is timed by the clock as it is now."""
        self._close()  # the moments of a segment's frames are told from its first one
        self._append(mark_of(ClockStepped(at, seconds, is_trusted=False)), at)

    def has_room(self) -> bool:
        """Whether reading may go on."""
        return self._room.is_set()

    async def wait_for_room(self) -> None:
        """Return when it may."""
        await self._room.wait()

    def take(self) -> list[Segment]:
        """What was heard since the last time."""
        self._close()
        taken, self._closed, self._bytes = self._closed, [], 0
        return taken

    def written(self) -> None:
        """What was taken is durable."""
        self._room.set()

    def _append(self, frame: bytes, at: datetime) -> None:
        now = time.monotonic_ns()
        if not self._frames:
            self._first_at, self._first_monotonic_ns = at, now
        self._frames.append(Frame((now - self._first_monotonic_ns) // 1000, frame))
        self._bytes += len(frame) + _FRAME_OVERHEAD_BYTES
        if self._bytes > _MAX_WAITING_BYTES:
            self._room.clear()

    def _close(self) -> None:
        if self._frames:
            self._closed.append(
                Segment(
                    id=0,
                    pbx=self._pbx,
                    boot_id=self._boot_id,
                    connection=self._connection,
                    first_at=self._first_at,
                    monotonic_ns=self._first_monotonic_ns,
                    frames=self._frames,
                )
            )
            self._frames = []


class RawCapture:
    """Connectors, the spill and `status`, and nothing else. The caller holds the database's lease."""

    def __init__(self, settings: Settings, *, spill: Spill, why: str, connect: Connect, notifier: Notifier) -> None:
        self._settings = settings
        self._spill = spill
        self._why = why
        self._notifier = notifier
        self._stopping = asyncio.Event()
        self._trouble: str | None = None
        self._started_at = datetime.now(UTC)
        boot_id = read_boot_id()
        self._feeds = [RawFeed(pbx.name, boot_id=boot_id) for pbx in settings.pbx]
        self._lines = [connect(pbx, feed) for pbx, feed in zip(settings.pbx, self._feeds, strict=True)]

    async def run(self, until: Awaitable[None]) -> None:
        """Capture until `until` is done; then everything that was heard is in the spill."""
        log.error("raw capture: %s", self._why)
        async with asyncio.TaskGroup() as tasks:

            def spawn(work: Awaitable[None]) -> asyncio.Task[None]:
                return tasks.create_task(_run(work), name="api")

            app = Starlette(routes=[Route("/v1/status", self._answer_status)])
            with unix_socket(self._settings.socket_file) as operators:
                async with serving(app, [operators], spawn=spawn):
                    lines = [tasks.create_task(line.run(), name=f"pbx-{line.status.pbx}") for line in self._lines]
                    keeping = tasks.create_task(self._keep(), name="spilling")
                    telling = tasks.create_task(self._tell_systemd(), name="notify")
                    try:
                        await until
                    finally:
                        await _cancelled(*lines)
                        self._stopping.set()
                        await keeping
                        await _cancelled(telling)

    def status(self) -> AgentStatus:
        """How the agent is, without a database."""
        spill = f"calls are captured as they come, into {self._spill.path}, and taken up by itself later"
        problems = [f"raw capture: {self._why}; {spill}"]
        if self._trouble is not None:
            problems.insert(0, f"nothing can be kept: {self._trouble}")
        file = self._settings.database_file
        return AgentStatus(
            verdict=Verdict.DEGRADED,
            problems=tuple(problems),
            site=self._settings.site,
            version=version(_PROGRAM),
            settings_hash=fingerprint(self._settings),
            pid=os.getpid(),
            started_at=self._started_at,
            pbx=tuple(
                PbxHealth(name=line.status.pbx, address=line.status.address, state=line.status.state)
                for line in self._lines
            ),
            database=DatabaseHealth(
                file=str(file),
                error=self._why,
                is_readable=False,
                spill_size=self._spill.size,
                spill_error=self._trouble,
            ),
        )

    async def _answer_status(self, _: Request) -> Response:
        return Response(self.status().model_dump_json(), media_type="application/json")

    async def _keep(self) -> None:
        """Spill what is heard, until told to stop; never cancelled in the middle of a write."""
        waiting: list[Segment] = []
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL_SECONDS if self._trouble is None else _RETRY_SECONDS):
                    await self._stopping.wait()
            waiting = await self._kept(waiting)

    async def _kept(self, waiting: list[Segment]) -> list[Segment]:
        """What could still not be spilled. While that is so, what comes waits in the feeds, which are bounded."""
        if not waiting or self._stopping.is_set():
            waiting = waiting + [segment for feed in self._feeds for segment in feed.take()]
        return [] if not waiting or await self._try_to_spill(waiting) else waiting

    async def _try_to_spill(self, segments: list[Segment]) -> bool:
        try:
            await self._spill.append_raw(segments)
        except StoreUnavailable as exc:
            if self._trouble is None:
                log.error("what is heard cannot be kept: %s", exc)
            self._trouble = str(exc)
            return False
        self._trouble = None
        for feed in self._feeds:
            feed.written()
        return True

    async def _tell_systemd(self) -> None:
        self._notifier.ready()
        watched = self._notifier.watchdog_seconds()
        pause = min(watched / 3, _STATUS_SECONDS) if watched else _STATUS_SECONDS
        while True:
            self._notifier.watchdog()
            self._notifier.status(f"raw capture: {self._why}")
            await asyncio.sleep(pause)


async def _run(work: Awaitable[None]) -> None:
    await work


async def _cancelled(*tasks: asyncio.Task[Any]) -> None:  # Any: whatever they return
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
