"""Where calls that were read go: through the running agent, or into the database that no agent holds."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import orjson

from agent.cli.client import RunningAgent
from agent.cli.faults import NotRunning

if TYPE_CHECKING:
    from agent.coverage.account import SourceCall
    from agent.store.coverage import DayCounts
    from agent.store.engine import Store
    from agent.store.filling import Filling
    from agent.store.merge import MergeResult
    from agent.store.writer import Writer
    from config.settings import Settings

_ANSWER_SECONDS: Final = 60.0


class Target(Protocol):
    """Takes calls and says what became of them; `at_once`: how many it wants."""

    at_once: int

    def tell(self, calls: bytes) -> "MergeResult":
        """Keep them, as `agent.store.merge.told_text` writes them.

        Raises CommandFailed or StoreUnavailable; what was kept before stays.
        """
        ...

    def fill(self, filling: "Filling") -> int:
        """Mark gaps as filled; how many. Raises as `tell` does."""
        ...

    def keep_day(self, counts: "DayCounts") -> None:
        """Keep what a day's verification found. Raises as `tell` does."""
        ...


def told_text_of(calls: "Sequence[SourceCall]") -> bytes:
    """Calls as `Target.tell` takes them."""
    from agent.store.merge import ToldCall, told_text

    return told_text([ToldCall.of(call.row, call.tenant) for call in calls])


@contextmanager
def target(settings: "Settings", *, dry_run: bool, again: bool = False) -> Iterator[Target]:
    """The way that is open now. `again`: also for calls that may have been deleted here by retention."""
    if dry_run:
        yield _Nowhere(settings, again=again)
        return
    agent = RunningAgent(settings.socket_file, timeout=_ANSWER_SECONDS)
    try:
        agent.get("/v1/status")
    except NotRunning:
        from agent.cli.local import database_of

        database_of(settings)
        with asyncio.Runner() as runner:
            stack = AsyncExitStack()
            try:
                yield runner.run(_Database.opened(settings, runner, stack, again=again))
            finally:
                runner.run(stack.aclose())
    else:
        yield _Agent(agent, again=again)


class _Agent:
    at_once = 250  # some 20 ms in one transaction, so that capture never waits long

    def __init__(self, agent: RunningAgent, *, again: bool) -> None:
        self._agent = agent
        self._merge = "/v1/calls/merge?again=true" if again else "/v1/calls/merge"

    def tell(self, calls: bytes) -> "MergeResult":
        from agent.store.merge import MergeResult

        return MergeResult(**self._agent.tell(self._merge, calls))

    def fill(self, filling: "Filling") -> int:
        return int(self._agent.tell("/v1/gaps/fill", orjson.dumps(filling.as_dict()))["filled"])

    def keep_day(self, counts: "DayCounts") -> None:
        self._agent.tell("/v1/coverage", orjson.dumps(counts.as_dict()))


class _Database:
    at_once = 1000

    def __init__(self, runner: asyncio.Runner, writer: "Writer", *, again: bool) -> None:
        self._runner = runner
        self._writer = writer
        self._again = again

    @classmethod
    async def opened(
        cls, settings: "Settings", runner: asyncio.Runner, stack: AsyncExitStack, *, again: bool
    ) -> "_Database":
        from agent.store.engine import open_store
        from agent.store.writer import Writer

        store: Store = await stack.enter_async_context(open_store(settings.database_file))
        return cls(runner, await Writer.over(store.connection), again=again)

    def tell(self, calls: bytes) -> "MergeResult":
        from agent.store.merge import merging, read_told

        work = merging(read_told(calls), now=self._writer.now_text(), again=self._again)
        return self._runner.run(self._writer.transact(work))

    def fill(self, filling: "Filling") -> int:
        from agent.store.filling import fill

        return self._runner.run(self._writer.transact(partial(fill, filling=filling, now=self._writer.now_text())))

    def keep_day(self, counts: "DayCounts") -> None:
        from agent.store import coverage

        self._runner.run(self._writer.transact(partial(coverage.keep, counts=counts)))


class _Nowhere:
    """Only looks what would become of them."""

    at_once = 1000

    def __init__(self, settings: "Settings", *, again: bool) -> None:
        self._settings = settings
        self._again = again

    def tell(self, calls: bytes) -> "MergeResult":
        from agent.cli.local import LocalCalls
        from agent.store.merge import merging, read_told

        with LocalCalls.of(self._settings) as local:
            return merging(read_told(calls), now="", dry_run=True, again=self._again)(local.connection)

    def fill(self, filling: "Filling") -> int:
        return 0

    def keep_day(self, counts: "DayCounts") -> None:
        return None
