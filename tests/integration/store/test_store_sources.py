"""Places in second sources, what was no record there, and gaps they fill."""

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest

from agent.store import sources
from agent.store.engine import Store
from agent.store.filling import Filling, fill
from agent.store.merge import ToldCall, merging
from agent.store.moments import moment_text
from agent.store.sources import MAX_RAW_BYTES, MAX_REJECTS, Reject, SourceState
from agent.store.writer import GapClosed, GapOpened, Group, LiveAnchor, Writer, write_finished
from tests.integration.store.facts import LATER, START, call, row, sid

NOW = moment_text(LATER)
MINUTE = timedelta(minutes=1)
FRESH = SourceState("main", "cdr", "cdr-csv", since=START)


async def test_a_source_that_was_never_read_has_no_place(store: Store) -> None:
    assert await store.connection.run(lambda connection: sources.state_of(connection, "main", "cdr")) is None


async def test_a_place_is_read_as_it_was_kept(store: Store, writer: Writer) -> None:
    further = replace(FRESH, place={"inode": 7}, read_until=LATER, records=3, rejects=1)
    for state in (FRESH, further):
        await writer.transact(partial(sources.keep, state=state, now=NOW))
        assert await store.connection.run(sources.states) == [state]


async def test_a_place_and_its_calls_are_one_transaction(store: Store, writer: Writer) -> None:
    def half(connection: sqlite3.Connection) -> None:
        write_finished(connection, [call(1)], now=NOW)
        sources.keep(connection, FRESH, now=NOW)
        raise KeyError

    with pytest.raises(KeyError):
        await writer.transact(half)
    assert await store.connection.run(sources.states) == []
    assert await store.connection.run(lambda c: c.execute("SELECT count(*) FROM call").fetchone()) == (0,)


async def test_what_the_live_feed_found_to_be_a_part_of_a_call_is_told_as_a_call_by_no_source(
    store: Store, writer: Writer
) -> None:
    await writer.commit(Group(opened=[LiveAnchor(sid(2), "main", 1, START)], finished=[call(1)]))
    part = Group(forgotten=[sid(2)], moved=[(sid(2), sid(1))])
    await writer.commit(part)
    await writer.commit(part)  # as after a commit of which nobody knew what came of it

    told = [ToldCall.of(row(number, source="cdr")) for number in (2, 3)]
    result = await writer.transact(merging(told, now=NOW))

    assert (result.new, result.unchanged) == (1, 1)
    found = await store.connection.run(lambda c: c.execute("SELECT call_sid FROM call ORDER BY call_sid").fetchall())
    assert found == [(sid(1),), (sid(3),)]


async def test_rejects_are_bounded_in_length_and_number(store: Store, writer: Writer) -> None:
    rejects = [Reject(f"byte {number}", b"x" * 9000, "too long") for number in range(MAX_REJECTS - 1)]
    for source in ("cdr", "other"):
        for some in (rejects, [Reject(f"again {number}", b"x", "too long") for number in range(3)]):
            note = partial(sources.note_rejects, pbx="main", source=source, rejects=some, now=NOW)
            await writer.transact(note)
    query = "SELECT source, count(*), max(length(raw)) FROM source_reject GROUP BY source ORDER BY source"
    found = await store.connection.run(lambda connection: connection.execute(query).fetchall())
    assert found == [("cdr", MAX_REJECTS, MAX_RAW_BYTES), ("other", MAX_REJECTS, MAX_RAW_BYTES)]
    newest = "SELECT position FROM source_reject ORDER BY id DESC LIMIT 1"
    assert await store.connection.run(lambda c: c.execute(newest).fetchone()) == ("again 2",)


async def test_a_gap_is_filled_once_its_end_is_behind_what_is_known(store: Store, writer: Writer) -> None:
    await writer.commit(
        Group(
            gaps=[
                GapOpened("main", START, "agent_down"),
                GapClosed("main", START + MINUTE),
                GapOpened("main", START + 2 * MINUTE, "line_lost"),
                GapClosed("main", START + 4 * MINUTE),
                GapOpened("branch", START, "line_lost"),
                GapClosed("branch", START + MINUTE),
            ]
        )
    )
    blind = await store.connection.run(lambda connection: sources.unfilled(connection, "main"))
    assert [gap.from_at for gap in blind] == [START, START + 2 * MINUTE]

    def read(connection: sqlite3.Connection) -> int:
        sources.count_found(connection, [blind[0].id])
        return sources.fill(connection, "main", known_from=START, known_until=START + 3 * MINUTE, by="cdr", now=NOW)

    assert await writer.transact(read) == 1
    query = "SELECT pbx, filled_by, calls_found FROM gap ORDER BY id"
    found = await store.connection.run(lambda connection: connection.execute(query).fetchall())
    assert found == [("main", "cdr", 1), ("main", None, None), ("branch", None, None)]


async def test_a_reject_that_is_read_again_stands_there_once(store: Store, writer: Writer) -> None:
    for _ in range(2):
        note = partial(
            sources.note_rejects, pbx="main", source="cdr", rejects=[Reject("byte 7", b"x", "none")], now=NOW
        )
        await writer.transact(note)
    query = "SELECT count(*) FROM source_reject"
    assert await store.connection.run(lambda connection: connection.execute(query).fetchone()) == (1,)


@pytest.mark.parametrize(
    ("known_from", "live_since", "filled"),
    [(START, None, 1), (START + MINUTE, None, 0), (START, START + MINUTE, 0), (START, START + 3 * MINUTE, 1)],
    ids=["all known", "begins later", "a call of that time goes on", "a later call goes on"],
)
async def test_a_gap_is_not_filled_by_what_cannot_know_all_of_it(
    store: Store, writer: Writer, known_from: datetime, live_since: datetime | None, filled: int
) -> None:
    anchors = [] if live_since is None else [LiveAnchor("x", "main", 1, live_since)]
    gaps: list[GapOpened | GapClosed] = [GapOpened("main", START, "agent_down"), GapClosed("main", START + 2 * MINUTE)]
    await writer.commit(Group(opened=anchors, gaps=gaps))
    until = LATER + MINUTE
    can_fill = partial(sources.can_fill, pbx="main", known_from=known_from, known_until=until)
    fill = partial(sources.fill, pbx="main", known_from=known_from, known_until=until, by="cdr", now=NOW)
    assert await store.reader.run(can_fill) == bool(filled)
    assert await writer.transact(fill) == filled
    assert not await store.reader.run(can_fill)  # any more


async def test_a_gap_that_was_filled_by_hand_tells_how_many_calls_were_found(store: Store, writer: Writer) -> None:
    await writer.commit(Group(gaps=[GapOpened("main", START, "agent_down"), GapClosed("main", START + MINUTE)]))
    filling = Filling("main", "cdr", known_from=START, known_until=START + MINUTE, found={1: 100_000})
    statements: list[str] = []
    await store.connection.run(lambda connection: connection.set_trace_callback(statements.append))
    assert await writer.transact(partial(fill, filling=filling, now=NOW)) == 1
    assert len(statements) < 10  # capture waits meanwhile
    found = await store.connection.run(lambda c: c.execute("SELECT calls_found, filled_by FROM gap").fetchall())
    assert found == [(100_000, "cdr")]
