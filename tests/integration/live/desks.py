"""Desks over a real database, with the tracker's part played by the test."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.calls.context import CallContext, CallState
from agent.calls.operations import AppendInteractions
from agent.calls.wishes import Limits
from agent.live.desk import Desk, Mask, Written
from agent.live.ended import DeskTimes
from agent.live.feed import FeedTimes, LiveFeed
from agent.live.store import ContextStore
from agent.store.context_log import ContextLog, finished_with
from agent.store.engine import Store, open_store
from agent.store.writer import FinishedCall, Group, LiveAnchor, Writer
from tests.unit.live.contexts import facts

SITE = "istanbul-1"
QUICK = FeedTimes(pause=0, check=0.02, first_retry=0.01, longest_retry=0.05)
AT_ONCE = DeskTimes(grace=60, late=3600, amend=0, sweep=0.05)


@dataclass(slots=True)
class Site:
    """An agent's part that has to do with contexts."""

    desk: Desk
    store: Store
    writer: Writer
    log: ContextLog
    feed: LiveFeed | None = None

    async def begin(self, *calls: CallContext) -> None:
        """Calls begin, and their beginnings are kept."""
        for call in calls:
            self.desk.mark(call)
        anchors = [LiveAnchor(call.call_sid, call.pbx, 1, call.call_start_time) for call in calls]
        await self.writer.commit(Group(opened=anchors))
        self.desk.committed(opened=[call.call_sid for call in calls], ended=())

    async def end(self, call: CallContext, **changes: Any) -> None:
        """A call ends, as the tracker has it."""
        ended = call.model_copy(update={"state": CallState.ENDED, **changes})
        self.desk.ended(ended)
        finished = FinishedCall(row_of(ended), ended.tenant_id)
        if (context := self.desk.noted(call.call_sid)) is not None:
            finished = finished_with(finished, context)
        await self.writer.commit(Group(finished=[finished]))
        self.desk.committed(opened=(), ended=[call.call_sid])

    async def say(self, call: CallContext, *texts: str, service: str = "speech", **options: Any) -> Written:
        """A service notes what was said."""
        wish = AppendInteractions([{"text": text} for text in texts])
        return await self.desk.write(call.call_sid, [wish], service=service, **options)

    async def rows(self, query: str, *values: object) -> list[Any]:  # Any: columns
        """What stands in the database."""
        return await self.store.reader.run(lambda reader: reader.execute(query, values).fetchall())

    async def said(self, call: CallContext) -> list[str]:
        """The transcript in the call's row."""
        query = "SELECT json_extract(said.value, '$.text') FROM call, json_each(full_transcript) AS said"
        return [text for (text,) in await self.rows(f"{query} WHERE call_sid = ?", call.call_sid)]

    async def revision(self, call: CallContext) -> int:
        """The row's."""
        found = await self.rows("SELECT revision FROM call WHERE call_sid = ?", call.call_sid)
        return int(found[0][0]) if found else 0


@asynccontextmanager
async def site_at(
    directory: Path, contexts: ContextStore | None = None, *, limits: Limits | None = None, times: DeskTimes = AT_ONCE,
    live: Sequence[CallContext] = (), settled: bool = True, seconds: float = 20,
    mask: Mask = lambda _, operation: operation,
) -> AsyncIterator[Site]:  # fmt: skip
    """Leaving the block is a crash: nothing is drained. `live` is what the tracker restores."""
    async with open_store(directory / "edge.db") as store:
        writer = await Writer.over(store.connection)
        log = await ContextLog.over(store, writer)
        desk = Desk(log, limits=limits, times=times, mask=mask)
        site = Site(desk, store, writer, log)
        await desk.restore()
        tasks = [asyncio.create_task(desk.run())]
        if contexts is not None:
            site.feed = LiveFeed(contexts, site=SITE, pbxes=["main"], grace_seconds=60, book=desk, times=QUICK)
            desk.share_with(site.feed)
            tasks += [asyncio.create_task(site.feed.run()), asyncio.create_task(site.feed.listen())]
        for call in live:
            desk.mark(call)
        desk.committed(opened=[call.call_sid for call in live], ended=())
        if settled:
            desk.settled("main")
        try:
            async with asyncio.timeout(seconds):
                yield site
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception):
                    raise result


def row_of(call: CallContext) -> dict[str, Any]:  # Any: the columns' own types
    """The row that a tracker makes of it."""
    return {
        "call_sid": call.call_sid,
        "trace_id": call.trace_id,
        "site": call.site,
        "pbx": call.pbx,
        "direction": call.direction,
        "caller_id": call.caller_id,
        "status": "completed",
        "start_time": call.call_start_time,
        "end_time": call.last_interaction_time,
    }


def texts(context: CallContext) -> list[str]:
    """What was said."""
    return [entry["text"] for entry in context.interaction_history]


CALL = facts(1)
