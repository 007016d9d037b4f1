"""The outbox: nothing waits twice, nothing is lost, and a refused call stands aside where it can be seen."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import inspect

from agent.store.engine import Store
from agent.store.outbox import SqliteOutbox
from agent.store.quarantine import Chosen
from agent.store.writer import FinishedCall, Group, Writer
from sync.errors import OutboxUnavailable
from sync.models import Call
from sync.outbox import Backlog, Outbox, Standing
from sync.records import Batch, CallRecord, Receipt, RecordReceipt, Verdict
from tests.integration.store.facts import LATER, START, call, row, sid, task


@pytest.fixture
async def ten_waiting(writer: Writer) -> None:
    await writer.commit(Group(finished=[call(number) for number in range(10)]))


def _receipt(batch: Batch | None, verdict: Verdict = Verdict.ACCEPTED) -> Receipt:
    assert batch is not None
    code = "23514" if verdict is Verdict.REJECTED else None
    return Receipt(
        [RecordReceipt(one.call_sid, one.revision, verdict, code, code and "too odd") for one in batch.records]
    )


async def _batch(outbox: SqliteOutbox, *, limit: int) -> Batch | None:
    """The next batch, on whose way nobody waits."""
    batch = await outbox.next_batch(limit=limit)
    if batch is not None:
        outbox.release(batch)
    return batch


def _numbers(batch: Batch | None) -> Sequence[int]:
    assert batch is not None
    return [int(record.call_sid.rpartition(".")[2]) for record in batch.records]


async def _set_aside(store: Store) -> list[tuple[object, ...]]:
    query = "SELECT call_sid, quarantine.revision, code, reason FROM quarantine JOIN call ON call.id = call_id"
    return await store.reader.run(lambda connection: connection.execute(query).fetchall())


def test_it_is_the_outbox_the_syncer_knows(outbox: SqliteOutbox) -> None:
    as_the_syncer_sees_it: Outbox = outbox

    assert as_the_syncer_sees_it is outbox


async def test_an_empty_outbox_has_no_batch(outbox: SqliteOutbox) -> None:
    assert await _batch(outbox, limit=10) is None
    assert await outbox.backlog() == Backlog(records=0, oldest_at=None, quarantined=0)
    await outbox.settle(Receipt([]))


async def test_a_record_tells_all_of_its_call(outbox: SqliteOutbox, writer: Writer) -> None:
    told = row(1, caller_name="Çağrı", transferred=True, end_estimated=True)
    await writer.commit(Group(finished=[FinishedCall(told, "acme", [task("a", step=1)], [{"text": "ğ"}])]))

    batch = await _batch(outbox, limit=10)

    assert batch is not None
    (record,) = batch.values
    same = {name: value for name, value in told.items() if name in CallRecord._fields and name != "legs"}
    assert {name: getattr(record, name) for name in same} == same
    assert (batch.site, batch.high_water, record.tenant, record.revision) == ("berlin", 1, "acme", 1)
    assert json.loads(record.legs) == told["legs"]
    assert json.loads(record.tasks) == [
        {"position": 0, "task_name": "a", "state_data": {"step": 1}, "start_time": START.isoformat()}
    ]
    assert json.loads(record.interactions) == [{"position": 0, "data": {"text": "ğ"}}]
    assert (record.transferred, record.start_estimated, record.end_estimated) == (True, False, True)
    assert record.created_at == record.updated_at == LATER
    assert (record.pbx_answer_time, record.full_transcript) == (None, "[]")


async def test_children_come_in_their_order(outbox: SqliteOutbox, writer: Writer) -> None:
    said = [{"n": number} for number in range(30)]
    await writer.commit(Group(finished=[call(1, tasks=[task("b"), task("a")], interactions=said)]))

    batch = await _batch(outbox, limit=1)

    assert batch is not None
    assert [one["data"] for one in json.loads(batch.values[0].interactions)] == said
    assert [one["task_name"] for one in json.loads(batch.values[0].tasks)] == ["b", "a"]


def test_a_record_has_a_place_for_every_column_of_a_call() -> None:
    columns = {column.key for column in inspect(Call).columns}

    assert columns - set(CallRecord._fields) == {"id", "tenant_id"}


@pytest.mark.usefixtures("ten_waiting")
async def test_reading_takes_nothing_away(outbox: SqliteOutbox) -> None:
    assert await _batch(outbox, limit=10) == await _batch(outbox, limit=10)


@pytest.mark.usefixtures("ten_waiting")
async def test_what_fits_goes_in_the_order_it_came(outbox: SqliteOutbox) -> None:
    assert _numbers(await _batch(outbox, limit=10)) == list(range(10))


@pytest.mark.usefixtures("ten_waiting")
async def test_a_quarter_of_a_batch_is_for_the_freshest_while_more_waits(outbox: SqliteOutbox) -> None:
    batch = await _batch(outbox, limit=8)

    assert _numbers(batch) == [0, 1, 2, 3, 4, 5, 8, 9]
    assert batch is not None
    assert batch.high_water == 10


@pytest.mark.usefixtures("ten_waiting")
@pytest.mark.parametrize("limit", range(1, 12))
async def test_whatever_the_limit_every_call_goes_once(outbox: SqliteOutbox, limit: int) -> None:
    seen: list[int] = []
    while batch := await _batch(outbox, limit=limit):
        assert len(batch.records) <= limit
        seen += _numbers(batch)
        await outbox.settle(_receipt(batch))

    assert sorted(seen) == list(range(10))


@pytest.mark.usefixtures("ten_waiting")
@pytest.mark.parametrize("verdict", [Verdict.ACCEPTED, Verdict.SUPERSEDED])
async def test_what_the_centre_has_waits_no_more(outbox: SqliteOutbox, verdict: Verdict) -> None:
    receipt = _receipt(await _batch(outbox, limit=8), verdict)

    await outbox.settle(receipt)
    await outbox.settle(receipt)

    assert _numbers(await _batch(outbox, limit=8)) == [6, 7]
    assert (await outbox.backlog()).records == 2


async def test_a_revision_that_came_meanwhile_still_waits(outbox: SqliteOutbox, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1)]))
    receipt = _receipt(await _batch(outbox, limit=1))
    await writer.commit(Group(finished=[call(1, hangup_cause=17)]))

    await outbox.settle(receipt)

    batch = await _batch(outbox, limit=1)
    assert batch is not None
    assert [(one.call_sid, one.revision, one.hangup_cause) for one in batch.values] == [(sid(1), 2, 17)]


async def test_a_refused_call_stands_aside_with_the_reason(outbox: SqliteOutbox, writer: Writer, store: Store) -> None:
    await writer.commit(Group(finished=[call(1), call(2)]))

    await outbox.settle(_receipt(await _batch(outbox, limit=1), Verdict.REJECTED))

    assert _numbers(await _batch(outbox, limit=10)) == [2]
    assert await outbox.backlog() == Backlog(records=1, oldest_at=LATER, quarantined=1)
    assert await _set_aside(store) == [(sid(1), 1, "23514", "too odd")]


async def test_refusing_an_old_revision_does_not_hold_up_the_new_one(outbox: SqliteOutbox, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1)]))
    receipt = _receipt(await _batch(outbox, limit=1), Verdict.REJECTED)
    await writer.commit(Group(finished=[call(1, hangup_cause=17)]))

    await outbox.settle(receipt)

    assert await outbox.backlog() == Backlog(records=1, oldest_at=LATER, quarantined=0)


async def test_a_newer_revision_of_a_refused_call_goes_out_and_clears_it(outbox: SqliteOutbox, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(1)]))
    await outbox.settle(_receipt(await _batch(outbox, limit=1), Verdict.REJECTED))
    await writer.commit(Group(finished=[call(1, hangup_cause=17)]))
    assert (await outbox.backlog()).quarantined == 1

    await outbox.settle(_receipt(await _batch(outbox, limit=1)))

    assert await outbox.backlog() == Backlog(records=0, oldest_at=None, quarantined=0)


async def test_a_newer_revision_refused_too_is_one_entry_with_the_newer_reason(
    outbox: SqliteOutbox, writer: Writer, store: Store
) -> None:
    await writer.commit(Group(finished=[call(1)]))
    await outbox.settle(_receipt(await _batch(outbox, limit=1), Verdict.REJECTED))
    await writer.commit(Group(finished=[call(1, hangup_cause=17)]))

    await outbox.settle(_receipt(await _batch(outbox, limit=1), Verdict.REJECTED))

    assert await _set_aside(store) == [(sid(1), 2, "23514", "too odd")]
    assert (await outbox.backlog()).quarantined == 1


@pytest.mark.usefixtures("ten_waiting")
async def test_refused_calls_wait_again_when_asked_for(outbox: SqliteOutbox) -> None:
    await outbox.settle(_receipt(await _batch(outbox, limit=10), Verdict.REJECTED))

    assert await outbox.retry(Chosen(sid(3))) == 1
    assert await outbox.retry(Chosen(sid(3))) == 0
    assert await outbox.retry(Chosen("nobody")) == 0
    assert _numbers(await _batch(outbox, limit=10)) == [3]
    assert await outbox.retry(Chosen()) == 9
    assert await outbox.backlog() == Backlog(records=10, oldest_at=LATER, quarantined=0)


async def test_retrying_a_call_whose_newer_revision_waits_does_not_double_it(
    outbox: SqliteOutbox, writer: Writer
) -> None:
    await writer.commit(Group(finished=[call(1)]))
    await outbox.settle(_receipt(await _batch(outbox, limit=1), Verdict.REJECTED))
    await writer.commit(Group(finished=[call(1, hangup_cause=17)]))

    assert await outbox.retry(Chosen()) == 1

    assert await outbox.backlog() == Backlog(records=1, oldest_at=LATER, quarantined=0)


@pytest.mark.usefixtures("ten_waiting")
async def test_a_verdict_on_an_unknown_call_changes_nothing(outbox: SqliteOutbox) -> None:
    await outbox.settle(
        Receipt([RecordReceipt("a:b:c", 1, Verdict.REJECTED, "x", "y"), RecordReceipt("d", 1, Verdict.ACCEPTED)])
    )

    assert (await outbox.backlog()).records == 10


@pytest.mark.usefixtures("ten_waiting")
async def test_an_unsent_call_cannot_be_deleted(store: Store) -> None:
    with pytest.raises(Exception, match="FOREIGN KEY"):
        await store.connection.transact(lambda c: c.execute("DELETE FROM call"))


@pytest.mark.usefixtures("ten_waiting")
async def test_counts_are_those_of_the_rows(store: Store, outbox: SqliteOutbox) -> None:
    await outbox.settle(_receipt(await _batch(outbox, limit=4), Verdict.REJECTED))
    await outbox.settle(_receipt(await _batch(outbox, limit=4)))
    await store.connection.transact(lambda c: c.execute("DELETE FROM outbox WHERE sequence = 7"))

    backlog = await outbox.backlog()

    counted = await store.reader.run(
        lambda c: c.execute("SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM quarantine)").fetchone()
    )
    assert (backlog.records, backlog.quarantined) == counted


async def test_a_local_database_that_cannot_be_used_is_told_in_the_syncers_own_word(
    outbox: SqliteOutbox, store: Store, ten_waiting: None
) -> None:
    batch = await _batch(outbox, limit=10)
    await store.connection.run(lambda connection: connection.execute("PRAGMA query_only = ON"))
    with pytest.raises(OutboxUnavailable):
        await outbox.settle(_receipt(batch))
    await store.connection.run(lambda connection: connection.execute("PRAGMA query_only = OFF"))
    await outbox.settle(_receipt(batch))
    assert (await outbox.backlog()).records == 0


async def test_batches_under_way_share_no_call_and_the_freshest_go_with_each(
    outbox: SqliteOutbox, ten_waiting: None
) -> None:
    first = await outbox.next_batch(limit=4)
    second = await outbox.next_batch(limit=4)
    third = await outbox.next_batch(limit=4)

    assert _numbers(first) == [0, 1, 2, 9]
    assert _numbers(second) == [3, 4, 5, 8]
    assert _numbers(third) == [6, 7]
    assert await outbox.next_batch(limit=4) is None
    assert first is not None
    outbox.release(first)
    assert _numbers(await outbox.next_batch(limit=4)) == [0, 1, 2, 9]


async def test_a_revision_of_a_call_on_its_way_waits_until_that_has_arrived(
    outbox: SqliteOutbox, writer: Writer
) -> None:
    await writer.commit(Group(finished=[call(1)]))
    batch = await outbox.next_batch(limit=10)
    assert batch is not None
    await writer.commit(Group(finished=[call(1, caller_name="Other")]))

    assert await outbox.next_batch(limit=10) is None
    await outbox.settle(_receipt(batch))
    outbox.release(batch)
    again = await outbox.next_batch(limit=10)
    assert again is not None
    assert [record.revision for record in again.records] == [2]


async def _confirmed(outbox: SqliteOutbox, *, number: int, limit: int) -> None:
    batch = await outbox.next_batch(limit=limit)
    assert batch is not None
    await outbox.settle(replace(_receipt(batch), number=number))
    outbox.release(batch)


async def test_outside_the_hours_of_a_backlog_only_calls_that_just_ended_are_in_a_batch(
    outbox: SqliteOutbox, writer: Writer
) -> None:
    now = START + timedelta(days=1)
    long_one = call(2, end_time=now - timedelta(minutes=1))  # began a day ago: a backlog's
    fresh = [call(number, start_time=now - timedelta(hours=3), end_time=now) for number in (3, 5, 4)]
    running = call(6, start_time=now, end_time=None)
    await writer.commit(Group(finished=[call(1), long_one, *fresh, running]))

    since = now - timedelta(hours=1)
    first = await outbox.next_batch(limit=2, fresh_since=since)
    second = await outbox.next_batch(limit=2, fresh_since=since)

    assert (_numbers(first), _numbers(second)) == ([3, 5], [4])
    assert await outbox.next_batch(limit=2, fresh_since=since) is None
    assert _numbers(await outbox.next_batch(limit=9)) == [1, 2, 6]


async def test_calls_confirmed_by_receipts_that_the_centre_has_lost_wait_again(
    outbox: SqliteOutbox, ten_waiting: None
) -> None:
    for number, limit in ((1, 3), (2, 3), (3, 4)):
        await _confirmed(outbox, number=number, limit=limit)
    assert (await outbox.standing()).receipts == 3
    assert (await outbox.backlog()).records == 0

    assert [await outbox.refill(after=1), await outbox.refill(after=1)] == [7, 0]

    assert (await outbox.backlog()).records == 7
    assert 0 not in _numbers(await outbox.next_batch(limit=10))


async def test_another_centre_is_given_all_but_what_is_set_aside_and_nothing_waits_twice(
    outbox: SqliteOutbox, ten_waiting: None, writer: Writer
) -> None:
    batch = await _batch(outbox, limit=3)
    await outbox.settle(_receipt(batch, Verdict.REJECTED))
    await _confirmed(outbox, number=1, limit=3)
    await writer.commit(Group(finished=[call(3, caller_name="Amended after it was sent")]))

    while await outbox.refill(after=-1):
        pass

    assert (await outbox.backlog()).records == 7
    assert (await outbox.backlog()).quarantined == 3


async def test_more_is_refilled_step_by_step(outbox: SqliteOutbox, writer: Writer) -> None:
    await writer.commit(Group(finished=[call(number) for number in range(1200)]))
    await _confirmed(outbox, number=1, limit=2000)

    assert [await outbox.refill(after=0) for _ in range(4)] == [500, 500, 200, 0]


async def test_a_site_that_was_rebuilt_goes_on_from_the_revision_the_centre_holds(
    outbox: SqliteOutbox, writer: Writer, store: Store
) -> None:
    await writer.commit(Group(finished=[call(1)]))
    batch = await _batch(outbox, limit=1)
    assert batch is not None
    held = RecordReceipt(sid(1), 1, Verdict.SUPERSEDED, held_revision=3)

    await outbox.settle(Receipt([held], number=1))
    assert await _revisions(store) == [(3,)]
    await writer.commit(Group(finished=[call(1, caller_name="Learned later")]))

    again = await _batch(outbox, limit=1)
    assert again is not None
    assert [record.revision for record in again.records] == [4]


async def test_so_does_what_was_learned_while_the_answer_was_on_its_way(
    outbox: SqliteOutbox, writer: Writer, store: Store
) -> None:
    await writer.commit(Group(finished=[call(1)]))
    assert await _batch(outbox, limit=1) is not None
    await writer.commit(Group(finished=[call(1, caller_name="Learned meanwhile")]))

    await outbox.settle(Receipt([RecordReceipt(sid(1), 1, Verdict.SUPERSEDED, held_revision=3)], number=1))

    again = await _batch(outbox, limit=1)
    assert again is not None
    assert [(record.revision, record.caller_name) for record in again.values] == [(4, "Learned meanwhile")]
    await outbox.settle(_receipt(again))
    assert (await outbox.backlog()).records == 0


async def _revisions(store: Store) -> list[tuple[object, ...]]:
    return await store.reader.run(lambda connection: connection.execute("SELECT revision FROM call").fetchall())


async def test_the_standing_with_the_centre_is_remembered(outbox: SqliteOutbox) -> None:
    assert await outbox.standing() == Standing()

    await outbox.keep_standing(Standing("a-centre", "1.token", 7))

    assert await outbox.standing() == Standing("a-centre", "1.token", 7)
    assert "token" not in repr(await outbox.standing())
