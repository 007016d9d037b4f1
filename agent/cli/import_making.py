"""CDRs become calls: here, and for large files in a process of its own too, so that two processors have work."""

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Final

from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.cdr_calls import call_of
from agent.sources.cdr_scratch import StagedCall
from agent.store.merge import ToldCall, told_text
from config.settings import TenancySettings

_WORTHWHILE_LINES: Final = 20_000  # a process of its own takes a second to start
_AHEAD: Final = 2  # slices the other process has, so that it need not wait while this one writes


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes calls of one PBX."""

    site: str
    pbx: str
    rules: CallRules
    tenancy: TenancySettings

    def told(self, staged: Iterable[StagedCall]) -> bytes:
        """Calls as the store reads them."""
        return told_text(self._call(one) for one in staged)

    def _call(self, staged: StagedCall) -> ToldCall:
        call = call_of(staged.rows(), site=self.site, pbx=self.pbx, rules=self.rules, native_id=staged.native_id)
        # Without rules there is nothing to look at.
        tenant = assign(self.tenancy, call.facts(self.rules)).tenant if self.tenancy.rules else self.tenancy.default
        return ToldCall.of(call.row, tenant)


def slices(maker: Maker, staged: Iterator[StagedCall], *, lines: int, at_once: int) -> Iterator[tuple[bytes, int]]:
    """Calls, so many at once, each slice with how many lines told it; `lines`: how many there are in all."""
    gc.freeze()  # thousands of values come and go now: what is loaded need not be looked through each time
    parts = iter(lambda: list(islice(staged, at_once)), [])
    if lines < _WORTHWHILE_LINES or len(os.sched_getaffinity(0)) == 1:
        for part in parts:
            yield maker.told(part), _lines(part)
        return
    # A thread speaks with the other process: both sides would wait for ever if both wrote more than a pipe holds.
    with _process(maker) as worker, ThreadPoolExecutor(1, "courier") as courier:
        asked = deque[tuple[Future[bytes], int]]()
        for part in parts:
            if asked and asked[0][0].done():
                made, count = asked.popleft()
                yield made.result(), count
            if len(asked) < _AHEAD:
                asked.append((courier.submit(_ask, worker, part), _lines(part)))
            else:
                yield maker.told(part), _lines(part)  # rather than wait
        for made, count in asked:
            yield made.result(), count


def _ask(worker: Connection, part: list[StagedCall]) -> bytes:
    worker.send(part)
    return worker.recv_bytes()


def _lines(part: Iterable[StagedCall]) -> int:
    return sum(one.lines for one in part)


@contextmanager
def _process(maker: Maker) -> Iterator[Connection]:
    # Spawned, not forked: the database and its lease are open in this process.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, maker), name="making", daemon=True)
    process.start()
    there.close()  # so that it ends with this process, however that ends
    try:
        yield here
    finally:
        here.close()
        process.join(timeout=5)
        process.kill()


def _work(connection: Connection, maker: Maker) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asked is told, and ends both
    gc.freeze()
    while True:
        try:
            part = connection.recv()
            connection.send_bytes(maker.told(part))
        except (EOFError, OSError):
            return
