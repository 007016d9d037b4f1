"""CDRs become calls: here, or for large files in a process of its own while this one writes the calls made before."""

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
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
    if lines < _WORTHWHILE_LINES:
        while part := list(islice(staged, at_once)):
            yield maker.told(part), _lines(part)
        return
    with _process(maker) as worker:
        # One slice is there at a time: both sides would wait for ever if both wrote more than a pipe holds.
        made, count = b"", 0
        while part := list(islice(staged, at_once)):
            if count:
                made = worker.recv_bytes()
            worker.send(part)
            if count:
                yield made, count
            count = _lines(part)
        if count:
            yield worker.recv_bytes(), count


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
    while True:
        try:
            part = connection.recv()
            connection.send_bytes(maker.told(part))
        except (EOFError, OSError):
            return
