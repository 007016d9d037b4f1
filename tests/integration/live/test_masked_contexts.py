"""What a tenant's privacy rules mask stands nowhere: not in the database, not in a shared store."""

import asyncio
from pathlib import Path

from agent.calls.masking import Masking
from agent.calls.operations import AppendInteractions, Patch, PushTask
from agent.live.store import ContextStore
from config.privacy import MaskKind
from config.settings import PrivacyRule
from tests.integration.live.desks import CALL, site_at, texts
from tests.unit.live.contexts import with_interaction

CARD = "4111 1111 1111 1111"
MASKING = Masking([PrivacyRule(tenant="acme", mask=(MaskKind.CARD,))])


def holds(directory: Path, text: str) -> bool:
    """Whether any file of the database holds it."""
    return any(text.encode() in file.read_bytes() for file in directory.iterdir())


async def test_what_a_service_writes_is_masked_before_it_is_kept(tmp_path: Path) -> None:
    async with site_at(tmp_path, mask=MASKING) as site:
        await site.begin(CALL)
        wishes: list[AppendInteractions | Patch | PushTask] = [
            AppendInteractions([{"text": f"my card is {CARD}"}]),
            Patch({"variables": {"pan": CARD}}),
            PushTask({"task_name": "pay", "state_data": {CARD: 1}}),
        ]
        written = await site.desk.write(CALL.call_sid, wishes, service="speech")
        await site.end(CALL)

        assert texts(written.context) == ["my card is [card ****1111]"]
        assert await site.said(CALL) == ["my card is [card ****1111]"]
        assert not holds(tmp_path, CARD)


async def test_what_is_written_into_the_store_past_the_agent_is_masked_there_too(
    tmp_path: Path, store: ContextStore
) -> None:
    async with site_at(tmp_path, store, mask=MASKING) as site:
        await site.begin(CALL)
        while await store.update("acme", CALL.call_sid, lambda context: with_interaction(context, text=CARD)) is None:  # noqa: ASYNC110 - the feed tells nobody
            await asyncio.sleep(0.002)
        while True:
            context = await store.get("acme", CALL.call_sid)
            if context is not None and texts(context) == ["[card ****1111]"]:
                break
            await asyncio.sleep(0.002)

        assert texts(await site.desk.read(CALL.call_sid)) == ["[card ****1111]"]
        assert not holds(tmp_path, CARD)
