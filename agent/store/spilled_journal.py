"""The journal as it will be once what waits in the spill is committed: what a start on a full disk goes by."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Final

from agent.store.journal import Journal
from agent.store.segment import Segment
from agent.store.spill import Spill
from agent.store.writer import Group

_AT_ONCE_BYTES: Final = 1 << 20


class SpilledJournal:
    """Reads the file again for every question, which a start asks a few times for each PBX."""

    def __init__(self, journal: Journal, spill: Spill) -> None:
        self._journal = journal
        self._spill = spill

    async def anchors(self, pbx: str) -> dict[str, int]:
        """As `Journal.anchors`."""
        anchors = await self._journal.anchors(pbx)
        async for group in self._groups():
            for call in group.opened:
                if call.pbx == pbx:
                    anchors.setdefault(call.call_sid, call.journal_id)
            for sid in [*(str(call.row["call_sid"]) for call in group.finished), *group.forgotten]:
                anchors.pop(sid, None)
        return anchors

    async def anchored_pbxes(self) -> list[str]:
        """As `Journal.anchored_pbxes`."""
        names = set(await self._journal.anchored_pbxes())
        async for group in self._groups():
            names |= {call.pbx for call in group.opened}
        return sorted([name for name in names if await self.anchors(name)])

    async def replay_from(self, pbx: str, journal_id: int) -> AsyncIterator[Segment]:
        """As `Journal.replay_from`."""
        async for segment in self._journal.replay_from(pbx, journal_id):
            yield segment
        async for group in self._groups():
            for segment in group.segments:
                if segment.pbx == pbx and segment.id >= journal_id:
                    yield segment

    async def last_heard_at(self, pbx: str) -> datetime | None:
        """As `Journal.last_heard_at`."""
        last = await self._journal.last_heard_at(pbx)
        async for group in self._groups():
            for segment in group.segments:
                if segment.pbx == pbx:
                    last = segment.last_at
        return last

    async def _groups(self) -> AsyncIterator[Group]:
        after = None
        while pending := await self._spill.groups(after=after, max_bytes=_AT_ONCE_BYTES):
            for each in pending:
                if isinstance(each.content, Group):
                    yield each.content
            after = pending[-1].end
