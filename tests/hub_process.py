"""The real hub as a process of its own, for tests that break it from outside or weigh it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

EDGE_HUB = str(Path(sys.executable).with_name("edge-hub"))
_START_SECONDS = 60
_STOP_SECONDS = 30


class HubProcess:
    """`edge-hub serve` on a free port of 127.0.0.1."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._told = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(), name="what the hub logs")
        self._next = 0
        self._ended = False
        self.lines: list[dict[str, Any]] = []  # Any: what was logged, as JSON
        self.port = 0

    @classmethod
    async def start(cls, dsn: str, *options: str, environ: dict[str, str] | None = None) -> Self:
        """Start it and wait until it answers."""
        process = await asyncio.create_subprocess_exec(
            *(EDGE_HUB, "serve", "--listen", "127.0.0.1:0", "--log-format", "json", *options),
            env={**os.environ, "SENTIRIC_HUB_DSN": dsn, **(environ or {})},
            stderr=asyncio.subprocess.PIPE,
        )
        hub = cls(process)
        async with asyncio.timeout(_START_SECONDS):
            began = await hub.wait_for_line("the hub serves")
        hub.port = int(began["listen"].rpartition(":")[2])
        return hub

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def peak_bytes(self) -> int:
        """The most memory it ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024

    async def wait_for_line(self, message: str) -> dict[str, Any]:
        """The next line with this message."""
        async with self._told:
            while True:
                for at in range(self._next, len(self.lines)):
                    if self.lines[at]["message"] == message:
                        self._next = at + 1
                        return self.lines[at]
                assert not self._ended, f"the hub ended without {message!r}: {self.lines}"
                await self._told.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Its exit code, when it ends."""
        async with asyncio.timeout(_STOP_SECONDS):
            await self._reading
            return await self._process.wait()

    async def kill(self) -> None:
        """Let it end at once."""
        if self._process.returncode is None:
            self._process.kill()
        await self.wait()

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            async with self._told:
                self.lines.append(json.loads(line))
                self._told.notify_all()
        async with self._told:
            self._ended = True
            self._told.notify_all()


@asynccontextmanager
async def hub_process(dsn: str, *options: str, environ: dict[str, str] | None = None) -> AsyncIterator[HubProcess]:
    """A hub that is gone in the end."""
    hub = await HubProcess.start(dsn, *options, environ=environ)
    try:
        yield hub
    finally:
        await hub.kill()
