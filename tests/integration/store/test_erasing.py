"""A person is taken out of the database, and not a byte of the number is left in its files."""

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.numbers import NumberPlan
from agent.calls.operations import AppendInteractions, Logged
from agent.calls.person import Person
from agent.store import erasures, sources
from agent.store.context_log import ContextLog
from agent.store.engine import Store, open_store
from agent.store.erasing import Erasing, Progress, live_calls
from agent.store.journal import Journal
from agent.store.merge import ToldCall, merging
from agent.store.sources import Reject
from agent.store.writer import FinishedCall, Group, LiveAnchor, Writer
from tests.integration.store.facts import LATER, START, call, row, segment, sid, task

PLANS = [NumberPlan("TR")]
AYSE = Person("0532 123 45 67", PLANS)  # as tests.integration.store.facts have the caller
FORMS = (b"5321234567", b"532 123 45 67", "Ayşe".encode())
OTHER: dict[str, Any] = {"caller_id": "+905329999999", "caller_name": "Umay"}
FRAMES = (
    b"Event: Newchannel\r\nCallerIDNum: 05321234567\r\nCallerIDName: Ay\xc5\x9fe\r\n\r\n",
    b"Event: Newchannel\r\nCallerIDNum: 05329999999\r\n\r\n",
    b"Event: DialBegin\r\nDestConnectedLineNum: +90 532 123 45 67\r\n\r\n",
)


async def erase(store: Store, writer: Writer, person: Person = AYSE, **options: Any) -> Progress:
    options = {"tenant": None, "by": "root", "live": lambda _: (), "dry_run": False, **options}
    steps = [each async for each in Erasing(person, store=store, writer=writer, **options).run()]
    assert steps[-1].done
    return steps[-1]


async def everywhere(store: Store, writer: Writer) -> None:
    """The person's number wherever the database can hold it, among others'."""
    said = {"id": "1", "text": "call me at 0532 123 45 67"}
    await writer.commit(
        Group(
            segments=[segment(writer.next_segment_id(), *FRAMES)],
            finished=[
                call(1, tasks=[task(number="05321234567")], interactions=[said], full_transcript=[said],
                     recording="/var/spool/in-05321234567-1.wav", timeline=[{"who": "05321234567"}]),
                call(2, **OTHER, callee_id="05321234567", answered_by="5321234567"),
                call(3, **OTHER, legs=[{"number": "+905321234567"}]),
                call(4, **OTHER, interactions=[said, {"id": "2", "text": "thanks", "n": 5321234567}]),
                call(5, **OTHER),
                call(6, tenant=None),
            ],
        )
    )  # fmt: skip
    log = await ContextLog.over(store, writer)
    note = Logged(log.next_number(), sid(1), AppendInteractions([said]), "speech", LATER, revision=3)
    await log.keep([note])
    reject = Reject("line 7", b'"","05321234567",oops', "no CDR")
    await writer.transact(
        lambda connection: sources.note_rejects(connection, "main", "cdr", [reject], now=writer.now_text())
    )
    told = ToldCall.of(row(3, **OTHER, source="cdr", legs=[{"number": "+905321234567"}], answered_by="05321234567"))
    await writer.transact(merging([told], now=writer.now_text()))


def held(database: Path) -> list[bytes]:
    """What of the person the files hold."""
    contents = [file.read_bytes() for file in database.parent.iterdir()]
    return [form for form in FORMS for content in contents if form in content]


async def rows_of(store: Store, query: str) -> list[Any]:
    return list(await store.reader.run(lambda reader: reader.execute(query).fetchall()))


async def test_no_byte_of_the_person_is_left_and_calls_stay_as_empty_rows(
    store: Store, writer: Writer, database: Path
) -> None:
    await everywhere(store, writer)
    assert held(database)

    progress = await erase(store, writer)

    assert held(database) == []
    assert (progress.calls, progress.mentions, progress.frames, progress.rejects) == (4, 1, 2, 1)
    assert progress.log_is_cut
    found = await rows_of(
        store,
        "SELECT caller_id, callee_id, answered_by, caller_name, legs, timeline, talk_seconds FROM call ORDER BY id",
    )
    assert found[0] == (None, "2125550100", None, None, "[]", "[]", 88.0)
    assert found[1][:4] == ("+905329999999", None, None, "Umay")
    assert found[4][:2] == ("+905329999999", "2125550100")
    assert len(found) == 6
    for table in ("context_operation", "account", "task", "source_reject"):
        assert await rows_of(store, f"SELECT * FROM {table}") == []
    said = await rows_of(store, "SELECT data FROM interaction ORDER BY id")
    assert said == [
        ('{"id":"1","text":"call me at [erased]"}',), ('{"id":"2","text":"thanks","n":"[erased]"}',)
    ]  # fmt: skip


async def test_emptied_calls_are_sent_again_with_a_new_revision(store: Store, writer: Writer) -> None:
    await everywhere(store, writer)
    before = dict(await rows_of(store, "SELECT id, revision FROM call"))
    await writer.transact(lambda connection: connection.execute("DELETE FROM outbox"))

    await erase(store, writer)

    after = dict(await rows_of(store, "SELECT id, revision FROM call"))
    assert {key for key in after if after[key] == before[key] + 1} == {1, 2, 3, 4, 6}
    assert dict(await rows_of(store, "SELECT call_id, revision FROM outbox")) == {
        key: after[key] for key in (1, 2, 3, 4)
    }


async def test_the_journal_keeps_all_other_frames_and_its_count_of_bytes(
    store: Store, writer: Writer, journal: Journal
) -> None:
    await everywhere(store, writer)
    await erase(store, writer)

    kept = [frame.data async for part in journal.replay_from("main", 1) for frame in part.frames]
    counted = await rows_of(
        store, "SELECT value, (SELECT sum(length(blob)) FROM journal_segment) FROM counter WHERE name = 'journal_bytes'"
    )
    assert kept == [FRAMES[1]]
    assert counted[0][0] == counted[0][1]


async def test_a_second_run_finds_nothing_any_more(store: Store, writer: Writer) -> None:
    await everywhere(store, writer)
    await erase(store, writer)
    again = await erase(store, writer)
    assert (again.calls, again.mentions, again.frames, again.rejects) == (0, 0, 0, 0)


async def test_a_dry_run_tells_the_same_and_changes_nothing(store: Store, writer: Writer, database: Path) -> None:
    await everywhere(store, writer)
    before = await rows_of(store, "SELECT * FROM call")
    told = await erase(store, writer, dry_run=True)
    done = await erase(store, writer)
    assert (told.calls, told.mentions, told.frames, told.rejects) == (
        done.calls,
        done.mentions,
        done.frames,
        done.rejects,
    )
    assert before != await rows_of(store, "SELECT * FROM call")
    assert len(await rows_of(store, "SELECT * FROM erasure")) == 1


async def test_the_audit_row_bears_a_salted_hash_and_no_number(store: Store, writer: Writer) -> None:
    await everywhere(store, writer)
    await erase(store, writer, by="ayla")
    await erase(store, writer, by="ayla")

    (second, first) = await store.reader.run(erasures.history)
    assert (first.by, first.calls, first.mentions, first.frames, first.is_complete) == ("ayla", 4, 1, 2, True)
    assert first.hash != second.hash


async def test_a_source_that_is_read_again_brings_nothing_back(store: Store, writer: Writer, database: Path) -> None:
    await everywhere(store, writer)
    await erase(store, writer)

    told = [ToldCall.of(row(number, source="cdr"), "acme") for number in (1, 2, 9)]
    result = await writer.transact(merging(told, now=writer.now_text()))
    await writer.commit(Group(finished=[call(1, interactions=[{"id": "1", "text": "0532 123 45 67"}]), call(10)]))
    await writer.cut_log()

    assert (result.new, result.amended) == (1, 0)
    assert held(database) == []
    assert len(await rows_of(store, "SELECT 1 FROM call")) == 8


async def test_who_calls_again_after_the_erasure_is_a_caller_as_any_other(store: Store, writer: Writer) -> None:
    await erase(store, writer)
    await writer.commit(Group(finished=[call(7, start_time=LATER + timedelta(hours=1))]))
    assert await rows_of(store, "SELECT caller_id FROM call") == [("+905321234567",)]


async def test_with_a_tenant_others_calls_stay_and_the_journal_that_holds_them_too(
    store: Store, writer: Writer, journal: Journal
) -> None:
    await writer.commit(
        Group(
            segments=[segment(writer.next_segment_id(), *FRAMES)],
            finished=[call(1, tenant="acme"), call(2, tenant="globex")],
        )
    )
    progress = await erase(store, writer, tenant="acme")

    assert (progress.calls, progress.journal_kept, progress.frames) == (1, True, 0)
    assert await rows_of(store, "SELECT caller_id FROM call ORDER BY id") == [(None,), ("+905321234567",)]
    assert (await erase(store, writer, tenant="globex")).frames == 2


async def test_a_call_that_goes_on_is_left_with_its_frames(store: Store, writer: Writer, journal: Journal) -> None:
    first, second = writer.next_segment_id(), writer.next_segment_id()
    await writer.commit(
        Group(
            segments=[segment(first, *FRAMES), segment(second, *FRAMES)],
            opened=[LiveAnchor(sid(9), "main", second, START)],
        )
    )
    live = await store.reader.run(live_calls)
    progress = await erase(store, writer, live=lambda _: live)

    assert (progress.still_live, progress.frames) == (1, 2)
    kept = [(part.id, len(part.frames)) async for part in journal.replay_from("main", 1)]
    assert kept == [(first, 1), (second, 3)]


async def test_an_extension_is_erased_by_itself_and_prices_stay(store: Store, writer: Writer) -> None:
    said = {"id": "1", "text": "that is 1001 lira"}
    await writer.commit(
        Group(finished=[call(1, **OTHER, answered_by="1001"), call(2, **OTHER, interactions=[said]), call(3, **OTHER)])
    )
    progress = await erase(store, writer, Person("1001", PLANS))
    assert (progress.calls, progress.mentions) == (1, 0)
    assert await rows_of(store, "SELECT data FROM interaction") == [('{"id":"1","text":"that is 1001 lira"}',)]


async def test_what_was_emptied_is_told_to_be_forgotten_elsewhere(store: Store, writer: Writer) -> None:
    await everywhere(store, writer)
    forgotten: list[str] = []
    await erase(store, writer, on_emptied=forgotten.extend)
    assert forgotten == [sid(number) for number in (1, 2, 3, 4, 6)]


@pytest.mark.parametrize("calls", [120])
async def test_many_calls_go_in_steps_and_none_is_left_out(store: Store, writer: Writer, calls: int) -> None:
    def told() -> Iterable[FinishedCall]:
        for number in range(calls):
            yield call(number, **({} if number % 2 else OTHER))

    await writer.commit(Group(finished=list(told())))
    assert (await erase(store, writer)).calls == calls // 2


async def test_a_late_note_on_an_emptied_call_finds_no_call(database: Path) -> None:
    async with open_store(database) as store:
        writer = await Writer.over(store.connection, now=lambda: LATER)
        await writer.commit(Group(finished=[call(1)]))
        log = await ContextLog.over(store, writer)
        assert await log.find(sid(1)) is not None
        await erase(store, writer)
        assert await log.find(sid(1)) is None
