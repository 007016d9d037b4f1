"""The journal: read back as it was written, pruned by age and size, never past what a live call needs."""

import os
from datetime import timedelta
from functools import partial

import pytest

from agent.store import history
from agent.store import journal as journal_module
from agent.store.engine import Store
from agent.store.free_pages import shrink
from agent.store.journal import Journal
from agent.store.segment import Segment
from agent.store.writer import Group, LiveAnchor, Writer
from tests.integration.store.facts import LATER, START, segment, sid

AGES = timedelta(days=1000)


async def _keep(writer: Writer, count: int, *, pbx: str = "main", size: int = 100) -> list[Segment]:
    kept = [
        segment(writer.next_segment_id(), os.urandom(size), b"b", pbx=pbx, at=START + timedelta(seconds=number))
        for number in range(count)
    ]
    await writer.commit(Group(segments=kept))
    return kept


async def _ids(journal: Journal, pbx: str = "main") -> list[int]:
    return [one.id async for one in journal.replay_from(pbx, 0)]


async def test_a_replay_hears_what_was_said(journal: Journal, writer: Writer) -> None:
    kept = await _keep(writer, 5)

    assert [one async for one in journal.replay_from("main", 0)] == kept


async def test_a_replay_begins_at_the_oldest_live_call_of_its_pbx(journal: Journal, writer: Writer) -> None:
    kept = await _keep(writer, 5)
    await _keep(writer, 2, pbx="branch")
    anchors = [(2, "main", kept[2].id), (3, "main", kept[3].id), (1, "branch", kept[0].id)]
    await writer.commit(Group(opened=[LiveAnchor(sid(n), pbx, at, START) for n, pbx, at in anchors]))

    anchor = min((await journal.anchors("main")).values())

    assert anchor == kept[2].id
    assert [one async for one in journal.replay_from("main", anchor)] == kept[2:]


async def test_without_live_calls_there_is_nothing_to_replay(journal: Journal, writer: Writer) -> None:
    await _keep(writer, 1)

    assert await journal.anchors("main") == {}
    assert await journal.anchors("nowhere") == {}
    assert await journal.anchored_pbxes() == []


async def test_a_replay_ends_even_while_more_is_being_said(journal: Journal, writer: Writer) -> None:
    await _keep(writer, 3)
    heard = 0
    async for _ in journal.replay_from("main", 0):
        heard += 1
        await _keep(writer, 1)

    assert heard == 3


async def test_a_long_replay_comes_in_pieces_and_in_order(
    journal: Journal, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "_PART_BYTES", 1000)
    kept = await _keep(writer, 700)

    assert await _ids(journal) == [one.id for one in kept]


async def test_a_damaged_segment_is_told_and_left_out(
    store: Store, journal: Journal, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    kept = await _keep(writer, 3)
    await store.connection.transact(
        lambda c: c.execute("UPDATE journal_segment SET blob = x'0100ff' WHERE id IN (?, ?)", (kept[1].id, kept[2].id))
    )

    assert await _ids(journal) == [kept[0].id]
    assert caplog.text.count("damaged and left out") == 2


async def test_a_pbx_was_last_heard_at_its_last_frame(journal: Journal, writer: Writer) -> None:
    kept = await _keep(writer, 3)
    await _keep(writer, 4, pbx="branch")

    assert await journal.last_heard_at("main") == kept[-1].last_at
    assert await journal.last_heard_at("nowhere") is None


async def test_old_segments_go_and_younger_ones_stay(journal: Journal, writer: Writer) -> None:
    kept = await _keep(writer, 10)

    removed = await journal.prune(keep=LATER - kept[4].first_at, max_bytes=1 << 30)

    assert removed == 4
    assert await _ids(journal) == [one.id for one in kept[4:]]


async def test_the_oldest_go_while_there_is_too_much(store: Store, journal: Journal, writer: Writer) -> None:
    kept = await _keep(writer, 5, pbx="branch", size=1000) + await _keep(writer, 5, size=1000)

    assert await journal.prune(keep=AGES, max_bytes=4500) == 6

    assert await _ids(journal) == [one.id for one in kept[6:]]
    assert await _ids(journal, "branch") == []


async def test_what_a_live_call_needs_stays_whatever_its_age_and_size(journal: Journal, writer: Writer) -> None:
    kept = await _keep(writer, 10)
    others = await _keep(writer, 3, pbx="branch")
    await writer.commit(Group(opened=[LiveAnchor(sid(1), "main", kept[6].id, START)]))

    assert await journal.prune(keep=timedelta(0), max_bytes=0) == 6 + 3

    assert await _ids(journal) == [one.id for one in kept[6:]]
    assert await _ids(journal, "branch") == []
    assert others


async def test_much_is_pruned_in_steps_and_given_back(
    store: Store, journal: Journal, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_PRUNE_STEP", 20)
    monkeypatch.setattr(journal_module, "shrink", partial(shrink, keep=4))
    await _keep(writer, 150, size=10_000)
    before = await store.reader.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])

    assert await journal.prune(keep=timedelta(0), max_bytes=0) == 150

    after = await store.reader.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    assert after < before / 2
    assert await store.reader.run(
        lambda c: c.execute("SELECT value FROM counter WHERE name = 'journal_bytes'").fetchone()
    ) == (0,)


async def test_nothing_to_prune_is_no_trouble(journal: Journal) -> None:
    assert await journal.prune(keep=AGES, max_bytes=0) == 0


async def test_the_same_segment_again_is_kept_once(journal: Journal, writer: Writer) -> None:
    again = segment(writer.next_segment_id())

    await writer.commit(Group(segments=[again]))
    await writer.commit(Group(segments=[again]))

    assert await _ids(journal) == [again.id]
