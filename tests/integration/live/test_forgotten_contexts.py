"""A call whose person was erased is not at hand any more, on the desk or in the store."""

import asyncio
from pathlib import Path

from agent.calls.context import CallState
from agent.live.store import ContextStore
from tests.integration.live.desks import CALL, site_at


async def test_an_ended_call_that_is_forgotten_is_in_no_store_and_is_not_written_there_again(
    tmp_path: Path, store: ContextStore
) -> None:
    async with site_at(tmp_path, store) as site:
        await site.begin(CALL)
        await site.say(CALL, "hello")
        await site.end(CALL)
        while (found := await store.get("acme", CALL.call_sid)) is None or found.state is not CallState.ENDED:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.002)

        site.desk.forget([CALL.call_sid])
        assert site.feed is not None
        site.feed.forget([CALL.call_sid])
        await store.forget(CALL.call_sid, [None, "acme"])
        await site.feed.in_step()

        assert site.desk.current(CALL.call_sid) is None
        assert await store.get("acme", CALL.call_sid) is None


async def test_a_call_that_goes_on_is_not_forgotten(tmp_path: Path) -> None:
    async with site_at(tmp_path) as site:
        await site.begin(CALL)
        site.desk.forget([CALL.call_sid])
        assert site.desk.current(CALL.call_sid) is not None
