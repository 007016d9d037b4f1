"""Where imported calls go: through the running agent, or into the database that no agent holds."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from agent.cli.client import RunningAgent
from agent.cli.faults import NotRunning

if TYPE_CHECKING:
    from agent.store.engine import Store
    from agent.store.merge import MergeResult, ToldCall
    from agent.store.writer import Writer
    from config.settings import Settings

_ANSWER_SECONDS: Final = 60.0


class Target(Protocol):
    """Takes some hundred calls and says what became of them."""

    def tell(self, calls: "Sequence[ToldCall]") -> "MergeResult":
        """Keep them. Raises CommandFailed or StoreUnavailable; what was kept before stays."""
        ...


@contextmanager
def target(settings: "Settings", *, dry_run: bool) -> Iterator[Target]:
    """The way that is open now."""
    if dry_run:
        yield _Nowhere(settings)
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
                yield runner.run(_Database.opened(settings, runner, stack))
            finally:
                runner.run(stack.aclose())
    else:
        yield _Agent(agent)


class _Agent:
    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent

    def tell(self, calls: "Sequence[ToldCall]") -> "MergeResult":
        from agent.store.merge import MergeResult, told_text

        return MergeResult(**self._agent.tell("/v1/calls/merge", told_text(calls)))


class _Database:
    def __init__(self, runner: asyncio.Runner, writer: "Writer") -> None:
        self._runner = runner
        self._writer = writer

    @classmethod
    async def opened(cls, settings: "Settings", runner: asyncio.Runner, stack: AsyncExitStack) -> "_Database":
        from agent.store.engine import open_store
        from agent.store.writer import Writer

        store: Store = await stack.enter_async_context(open_store(settings.database_file))
        return cls(runner, await Writer.over(store.connection))

    def tell(self, calls: "Sequence[ToldCall]") -> "MergeResult":
        from agent.store.merge import merging

        return self._runner.run(self._writer.transact(merging(calls, now=self._writer.now_text())))


class _Nowhere:
    """Only looks what would become of them."""

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings

    def tell(self, calls: "Sequence[ToldCall]") -> "MergeResult":
        from agent.cli.local import LocalCalls
        from agent.store.merge import merging

        with LocalCalls.of(self._settings) as local:
            return merging(calls, now="", dry_run=True)(local.connection)
