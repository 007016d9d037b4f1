"""Starts agents by fork from a process that has imported all of them, so that a start costs a tenth of a second.

What runs afterwards is `edge-agent run` itself, in a process of its own; only the imports are shared. Failpoints and
the shim of `powercut.c` are armed in the child, as its environment would arm them.

python -m tests.crash.nursery: one JSON request a line on stdin, one answer a line on stdout.
"""

import asyncio
import ctypes
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

_READY_SECONDS: Final = 60
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>
_IMPORTED: Final = (
    "agent.cli.main", "agent.daemon", "sync.hub_client", "sync.central.uplink", "alembic.command", "alembic.config",
    "sqlalchemy.dialects.sqlite", "aiosqlite", "fakeredis", "agent.sources.opening",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended; the code is negative for a signal."""

    code: int


class Child:
    """One forked agent."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self._nursery = nursery
        self.pid = pid
        self._handle: int | None = os.pidfd_open(pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; nothing if it is gone."""
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    async def kill(self) -> Ended:
        """SIGKILL, and wait until it is gone."""
        self.signal(signal.SIGKILL)
        return await self.wait()

    async def wait(self) -> Ended:
        """Until it has ended."""
        assert self._handle is not None, "its end is told once"
        loop, gone = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._handle, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(self._handle)
        told = await self._nursery.ask({"reap": self.pid})
        os.close(self._handle)
        self._handle = None
        return Ended(told["code"])


class Nursery:
    """The process that forks. `environ` is its own environment, for what has to be there when it is executed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(cls, environ: Mapping[str, str] | None = None) -> AsyncIterator[Self]:
        """A nursery that is gone in the end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crash.nursery"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **(environ or {})},
        )
        nursery = cls(process)
        try:
            async with asyncio.timeout(_READY_SECONDS):
                await nursery.ask({})
            yield nursery
        finally:
            assert process.stdin is not None
            process.stdin.close()
            await process.wait()

    async def run(
        self, *arguments: str, log: Path, environ: Mapping[str, str] | None = None, powercut: str = ""
    ) -> Child:
        """`edge-agent` with these arguments, its words appended to `log`."""
        request = {"arguments": arguments, "log": str(log), "environ": dict(environ or {}), "powercut": powercut}
        told = await self.ask(request)
        return Child(self, told["pid"])

    async def ask(self, request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
        """One request and its answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        async with self._one_at_a_time:
            stdin.write(json.dumps(request).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await stdout.readline())  # Any: JSON
            return answer


def _serve() -> None:
    for module in _IMPORTED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "reap" in request:
            _, status = os.waitpid(request["reap"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        elif "arguments" in request:
            answer = {"pid": _fork(request)}
        else:
            answer = {}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def _fork(request: dict[str, Any]) -> int:  # Any: JSON
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        code = _be_the_agent(request)
    except BaseException:  # noqa: BLE001 - the child must never go on as a nursery
        traceback.print_exc()
    finally:
        os._exit(code)


def _be_the_agent(request: dict[str, Any]) -> int:  # Any: JSON
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for theirs, ours in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(theirs, ours)
    _die_with_the_nursery()
    os.environ.update(request["environ"])
    if request["environ"]:
        importlib.reload(importlib.import_module("config.failpoints"))
    if request["powercut"]:
        ctypes.CDLL(None).powercut_arm(request["powercut"].encode())
    from agent.cli.main import main

    sys.argv = ["edge-agent", *request["arguments"]]
    try:
        main()
    except SystemExit as exc:
        if isinstance(exc.code, str):
            sys.stderr.write(exc.code + "\n")
        return exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _die_with_the_nursery() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    _serve()
