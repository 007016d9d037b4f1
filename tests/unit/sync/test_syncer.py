"""The syncer between a memory outbox and an uplink that does as told."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from config.settings import CentralSettings
from sync.backoff import Backoff
from sync.errors import (
    BatchTooLarge,
    CentreBehind,
    Fenced,
    LeaseHeld,
    OutboxUnavailable,
    UplinkRefused,
    UplinkUnavailable,
)
from sync.outbox import Standing
from sync.records import Batch, Receipt, RecordReceipt, Verdict
from sync.syncer import Syncer, SyncState
from tests.fakes_sync import IDENTITY, NOON, WELCOME, FakeUplink, MemoryOutbox, a_record, accept_all, reject_all

AWAY = UplinkUnavailable("the centre does not answer")
REFUSED = UplinkRefused("check user name and password")


def a_syncer(outbox: MemoryOutbox, uplink: FakeUplink, *, backoff: Backoff | None = None, **changes: Any) -> Syncer:
    # Any: whatever fields the section has
    values = {"url": "postgresql://site@centre/calls", "interval_seconds": 3600} | changes
    quick = Backoff(maximum=0.01, initial=0.01, stable_seconds=0)
    return Syncer(outbox, uplink, CentralSettings.model_validate(values), identity=IDENTITY, backoff=backoff or quick)


@asynccontextmanager
async def running(syncer: Syncer) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(syncer.run())
        yield
        task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the things waited for have no event
            await asyncio.sleep(0.002)


async def test_what_waits_at_start_is_sent() -> None:
    outbox, uplink = MemoryOutbox(a_record(1), a_record(2)), FakeUplink()
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: not outbox.waiting)
        await until(lambda: syncer.status.state is SyncState.IDLE)

    assert syncer.status.sent == 2
    assert syncer.status.last_success_at is not None
    assert syncer.status.last_error is None
    assert uplink.closed


async def test_a_commit_wakes_it() -> None:
    outbox, uplink = MemoryOutbox(), FakeUplink()
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.IDLE)
        outbox.add(a_record())
        syncer.wake()
        await until(lambda: not outbox.waiting)


async def test_the_timer_finds_what_nobody_told_of() -> None:
    outbox, uplink = MemoryOutbox(), FakeUplink()
    syncer = a_syncer(outbox, uplink, interval_seconds=1)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.IDLE)
        outbox.add(a_record())
        await until(lambda: not outbox.waiting)


async def test_a_long_backlog_goes_in_batches_one_at_a_time() -> None:
    outbox, uplink = MemoryOutbox(*(a_record(number) for number in range(25))), FakeUplink()
    syncer = a_syncer(outbox, uplink, batch_records=10)

    async with running(syncer):
        await until(lambda: not outbox.waiting)

    assert [len(batch.records) for batch in uplink.batches] == [10, 10, 5]
    assert uplink.most_in_flight == 1


async def test_calls_that_end_close_together_share_a_batch() -> None:
    outbox, uplink = MemoryOutbox(a_record(0)), FakeUplink()
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.sent == 1)
        for number in range(1, 6):
            outbox.add(a_record(number))
            syncer.wake()
        await until(lambda: syncer.status.sent == 6)

    assert [len(batch.records) for batch in uplink.batches] == [1, 5]


async def test_a_revision_that_comes_while_its_call_is_on_the_way_is_sent_too() -> None:
    outbox, uplink = MemoryOutbox(a_record(revision=1)), FakeUplink()
    uplink.gate.clear()

    async with running(a_syncer(outbox, uplink)):
        await until(lambda: uplink.in_flight == 1)
        outbox.add(a_record(revision=2))
        uplink.gate.set()
        await until(lambda: not outbox.waiting)

    assert [batch.records[0].revision for batch in uplink.batches] == [1, 2]


async def test_an_outage_is_waited_out_and_logged_at_its_start_and_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sync.syncer")
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(AWAY, AWAY, AWAY, AWAY)

    async with running(a_syncer(outbox, uplink)):
        await until(lambda: not outbox.waiting)

    assert [record.getMessage() for record in caplog.records if record.name == "sync.syncer"] == [
        "the centre is away; calls are kept here and sent later",
        "the centre takes calls again",
    ]
    assert outbox.quarantined == {}


async def test_status_tells_the_outage_and_when_it_is_tried_again() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(AWAY)
    syncer = a_syncer(outbox, uplink, backoff=Backoff(maximum=300, initial=300, random=lambda: 0))

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.WAITING)
        status = syncer.status

    assert status.last_error == "the centre does not answer"
    assert status.next_try_at is not None
    assert status.troubled_since is not None
    assert (status.next_try_at - status.troubled_since).total_seconds() == 300


async def test_a_wish_of_the_centre_to_wait_is_honoured() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(UplinkUnavailable("busy", retry_after_seconds=900))
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.WAITING)
        status = syncer.status

    assert status.next_try_at is not None
    assert status.troubled_since is not None
    assert (status.next_try_at - status.troubled_since).total_seconds() == 900


async def test_commits_during_an_outage_do_not_hammer_the_centre() -> None:
    outbox, uplink = MemoryOutbox(a_record(0)), FakeUplink(AWAY)
    syncer = a_syncer(outbox, uplink, backoff=Backoff(maximum=300, initial=300))

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.WAITING)
        for number in range(1, 50):
            outbox.add(a_record(number))
            syncer.wake()
            await asyncio.sleep(0)

    assert len(uplink.batches) == 1


async def test_a_refused_site_pauses_and_condemns_nothing() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(REFUSED)
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)
        syncer.wake()
        status = syncer.status

    assert status.last_error == "check user name and password"
    assert len(uplink.batches) == len(outbox.waiting) == 1
    assert outbox.quarantined == {}


async def test_an_operator_can_end_the_pause() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(REFUSED)
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)
        syncer.wake_now()
        await until(lambda: not outbox.waiting)
        await until(lambda: syncer.status.state is SyncState.IDLE)

    assert syncer.status.last_error is None


async def test_a_paused_site_is_looked_at_again_by_itself() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(REFUSED)

    async with running(a_syncer(outbox, uplink, retry_max_seconds=1)):
        await until(lambda: not outbox.waiting)


async def test_a_rejected_call_is_set_aside_and_the_others_go_on() -> None:
    def reject_the_second(batch: Batch) -> Receipt:
        verdicts = list(accept_all(batch).verdicts)
        verdicts[1] = RecordReceipt(batch.records[1].call_sid, 1, Verdict.REJECTED, "22P05", "a NUL")
        return Receipt(verdicts)

    outbox, uplink = MemoryOutbox(*(a_record(number) for number in range(3))), FakeUplink(reject_the_second)
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: not outbox.waiting)

    assert list(outbox.quarantined) == [a_record(1).call_sid]
    assert (syncer.status.sent, syncer.status.rejected) == (2, 1)


async def test_a_centre_that_rejects_call_after_call_is_not_believed() -> None:
    outbox = MemoryOutbox(*(a_record(number) for number in range(200)))
    uplink = FakeUplink(reject_all)
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)
        error = syncer.status.last_error
        syncer.wake_now()
        await until(lambda: not outbox.waiting)

    assert error is not None
    assert "rejects call after call, so no more are set aside" in error
    assert outbox.quarantined == {}


async def test_neither_is_one_that_rejects_them_one_by_one() -> None:
    outbox = MemoryOutbox(*(a_record(number) for number in range(200)))
    uplink = FakeUplink(*[reject_all] * 200)
    syncer = a_syncer(outbox, uplink, batch_records=1)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)

    assert len(outbox.quarantined) == 19


async def test_batches_shrink_while_they_do_not_get_through_and_grow_again() -> None:
    outbox, uplink = MemoryOutbox(*(a_record(number) for number in range(30))), FakeUplink(AWAY, AWAY)

    async with running(a_syncer(outbox, uplink, batch_records=16)):
        await until(lambda: not outbox.waiting)

    assert [len(batch.records) for batch in uplink.batches] == [16, 8, 4, 8, 16, 2]


async def test_records_without_a_verdict_are_sent_again() -> None:
    def decide_half(batch: Batch) -> Receipt:
        return Receipt(accept_all(batch).verdicts[: len(batch.records) // 2])

    outbox, uplink = MemoryOutbox(*(a_record(number) for number in range(8))), FakeUplink(decide_half)

    async with running(a_syncer(outbox, uplink)):
        await until(lambda: not outbox.waiting)

    assert [len(batch.records) for batch in uplink.batches] == [8, 4]


async def test_an_answer_without_any_verdict_is_an_outage_and_no_endless_loop() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(lambda _: Receipt([]))
    syncer = a_syncer(outbox, uplink, backoff=Backoff(maximum=300, initial=300))

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.WAITING)

    assert len(uplink.batches) == 1


async def test_a_local_disk_that_is_full_is_waited_out() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink()
    outbox.faults.append(OutboxUnavailable("the disk is full"))
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: not outbox.waiting)
        await until(lambda: syncer.status.state is SyncState.IDLE)

    assert len(uplink.batches) == 2


async def test_trouble_with_the_outbox_is_over_when_it_can_be_read_even_if_nothing_waits() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink()
    outbox.faults.append(OutboxUnavailable("the disk is full"))
    syncer = a_syncer(outbox, uplink, backoff=Backoff(maximum=0.05, initial=0.05))

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.WAITING)
        outbox.waiting.clear()
        await until(lambda: syncer.status.state is SyncState.IDLE)


async def test_draining_sends_what_waits_before_the_end() -> None:
    outbox, uplink = MemoryOutbox(), FakeUplink()
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.IDLE)
        outbox.add(a_record())
        assert await syncer.drain(timeout=5)

    assert outbox.waiting == {}
    assert uplink.most_in_flight == 1
    assert syncer.status.state is SyncState.OFF


async def test_draining_gives_up_in_time_and_the_call_goes_on_waiting() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink()
    uplink.gate.clear()
    syncer = a_syncer(outbox, uplink)

    assert not await syncer.drain(timeout=0.01)
    assert len(outbox.waiting) == 1


async def test_draining_does_not_try_a_centre_known_to_be_away() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(AWAY)
    syncer = a_syncer(outbox, uplink, backoff=Backoff(maximum=300, initial=300))

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.WAITING)
        assert not await syncer.drain(timeout=5)

    assert len(uplink.batches) == 1


async def test_a_cancellation_in_mid_send_takes_nothing_from_the_outbox() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink()
    uplink.gate.clear()
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: uplink.in_flight == 1)

    assert len(outbox.waiting) == 1
    assert uplink.in_flight == 0
    assert uplink.closed


async def test_a_bug_is_not_swallowed() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(KeyError("bug"))

    with pytest.raises(ExceptionGroup) as caught:
        await a_syncer(outbox, uplink).run()

    assert caught.group_contains(KeyError)


async def test_a_closed_way_is_known_at_the_start_although_nothing_waits() -> None:
    uplink = FakeUplink()
    uplink.greet_fault = REFUSED
    syncer = a_syncer(MemoryOutbox(), uplink)
    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)
        assert syncer.status.last_error == str(REFUSED)
        uplink.greet_fault = None
        syncer.wake_now()
        await until(lambda: syncer.status.state is SyncState.IDLE)


async def test_from_an_operators_wish_on_it_is_not_idle_until_all_is_done_that_was_wished() -> None:
    uplink = FakeUplink()
    syncer = a_syncer(MemoryOutbox(), uplink)
    async with running(syncer):
        for times in range(1, 4):
            syncer.wake_now()
            assert syncer.status.state is SyncState.SENDING or times == 1  # it may not run yet
            await until(lambda: syncer.status.state is SyncState.IDLE)
            assert len(uplink.greetings) >= times


async def test_an_operators_wish_tries_the_way_although_nothing_waits_and_the_timer_does_not() -> None:
    uplink = FakeUplink()
    syncer = a_syncer(MemoryOutbox(), uplink)
    async with running(syncer):
        await until(lambda: len(uplink.greetings) == 1)
        syncer.wake()
        syncer.wake_now()
        await until(lambda: len(uplink.greetings) == 2)


def no_globex(batch: Batch) -> Receipt:
    """Only calls of acme are taken."""
    return Receipt(
        [
            RecordReceipt(one.call_sid, one.revision, Verdict.REJECTED, "unknown_tenant", "add it")
            if one.tenant == "globex"
            else RecordReceipt(one.call_sid, one.revision, Verdict.ACCEPTED)
            for one in batch.records
        ]
    )


async def test_calls_of_a_tenant_the_centre_does_not_know_stop_nobody_elses() -> None:
    outbox = MemoryOutbox(*(a_record(number, tenant="globex") for number in range(60)))
    uplink = FakeUplink(*[no_globex] * 100)
    syncer = a_syncer(outbox, uplink, batch_records=30)
    async with running(syncer):
        await until(lambda: syncer.status.rejected == 60)
        outbox.add(a_record(60))
        syncer.wake()
        await until(lambda: syncer.status.sent == 1)


async def test_they_go_out_again_when_it_knows_the_tenant() -> None:
    outbox = MemoryOutbox(*(a_record(number, tenant="globex") for number in range(5)))
    uplink = FakeUplink(no_globex)
    syncer = a_syncer(outbox, uplink)
    async with running(syncer):
        await until(lambda: syncer.status.rejected == 5)
        uplink.welcome = replace(WELCOME, tenants=("acme", "globex"))
        syncer.wake_now()
        await until(lambda: syncer.status.sent == 5)

    assert outbox.quarantined == {}


async def test_a_centre_that_lost_all_its_tenants_is_not_believed() -> None:
    outbox = MemoryOutbox(*(a_record(number, tenant="globex") for number in range(200)))
    uplink = FakeUplink(*[no_globex] * 200)
    uplink.welcome = replace(WELCOME, tenants=())
    syncer = a_syncer(outbox, uplink, batch_records=3)
    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)

    assert len(outbox.quarantined) < 20


def nineteen_of_twenty(batch: Batch) -> Receipt:
    """Every twentieth call is taken."""
    verdicts = list(reject_all(batch).verdicts)
    for number, record in enumerate(batch.records):
        if int(record.call_sid.rpartition(".")[2]) % 20 == 0:
            verdicts[number] = RecordReceipt(record.call_sid, record.revision, Verdict.ACCEPTED)
    return Receipt(verdicts)


@pytest.mark.parametrize("size", [1, 7, 50, 500])
async def test_taking_one_now_and_then_makes_no_difference(size: int) -> None:
    outbox = MemoryOutbox(*(a_record(number) for number in range(2000)))
    uplink = FakeUplink(*[nineteen_of_twenty] * 4000)
    uplink.delay = 0.001
    syncer = a_syncer(outbox, uplink, batch_records=size)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)

    taken = len(outbox.confirmed)
    assert len(outbox.quarantined) <= 20 + taken / 4
    assert len(outbox.waiting) + len(outbox.quarantined) + taken == 2000


async def test_what_was_taken_of_such_a_batch_need_not_go_again() -> None:
    outbox = MemoryOutbox(*(a_record(number) for number in range(200)))
    syncer = a_syncer(outbox, FakeUplink(*[nineteen_of_twenty] * 4))

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)

    assert (len(outbox.confirmed), len(outbox.quarantined), len(outbox.waiting)) == (10, 0, 190)
    assert "edge-agent sync now" in (syncer.status.last_error or "")


async def test_bad_calls_among_many_good_ones_stop_nothing() -> None:
    def refuse_every_tenth(batch: Batch) -> Receipt:
        verdicts = list(accept_all(batch).verdicts)
        for number in range(0, len(verdicts), 10):
            verdicts[number] = reject_all(batch).verdicts[number]
        return Receipt(verdicts)

    outbox = MemoryOutbox(*(a_record(number) for number in range(1000)))
    syncer = a_syncer(outbox, FakeUplink(*[refuse_every_tenth] * 100), batch_records=100)

    async with running(syncer):
        await until(lambda: not outbox.waiting)

    assert len(outbox.quarantined) == 100


def numbered(number: int) -> Callable[[Batch], Receipt]:
    """Every record is accepted, in a receipt of this number."""
    return lambda batch: replace(accept_all(batch), number=number)


async def test_it_greets_first_and_shows_its_lease_with_every_batch() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink()
    outbox.kept = Standing("a-centre", "0.old", 7)
    uplink.welcome = replace(WELCOME, receipts=9)

    async with running(a_syncer(outbox, uplink)):
        await until(lambda: not outbox.waiting)

    (greeting,) = uplink.greetings
    (batch,) = uplink.batches
    assert (greeting.site, greeting.holder, greeting.lease) == ("istanbul", "a-holder", "0.old")
    assert (batch.holder, batch.lease, batch.receipts) == ("a-holder", "1.token", 9)
    assert outbox.kept == Standing("a-centre", "1.token", 9)


async def test_an_idle_site_renews_its_lease_every_third_of_its_time() -> None:
    uplink = FakeUplink()
    uplink.welcome = replace(WELCOME, lease_seconds=0.1)  # taken for the shortest there is, 3 s

    async with running(a_syncer(MemoryOutbox(), uplink)):
        await until(lambda: len(uplink.greetings) == 2)


async def test_after_trouble_it_greets_again_before_it_sends() -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink(AWAY)

    async with running(a_syncer(outbox, uplink)):
        await until(lambda: not outbox.waiting)

    assert (len(uplink.greetings), len(uplink.batches)) == (2, 2)


async def test_a_centre_restored_from_a_backup_is_given_what_it_lost_and_no_more() -> None:
    outbox = MemoryOutbox(*(a_record(number) for number in range(10)))
    uplink = FakeUplink(numbered(1), numbered(2), numbered(3))
    syncer = a_syncer(outbox, uplink, batch_records=4)

    async with running(syncer):
        await until(lambda: not outbox.waiting)
        uplink.answers.append(CentreBehind("the centre has given 1 receipt"))
        uplink.welcome = replace(WELCOME, receipts=1)
        outbox.add(a_record(10))
        syncer.wake()
        await until(lambda: syncer.status.sent == 17)

    assert sorted(record.call_sid for batch in uplink.batches[4:] for record in batch.records) == sorted(
        a_record(number).call_sid for number in range(4, 11)
    )
    assert syncer.status.refilled == 6
    assert syncer.status.last_error is None


async def test_what_is_no_longer_kept_cannot_be_given_back_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    outbox, uplink = MemoryOutbox(), FakeUplink()
    outbox.kept = Standing("a-centre", "0.old", 7)
    outbox.deleted_until, outbox.deleted_receipt = NOON, 5

    async with running(a_syncer(outbox, uplink)):
        await until(lambda: outbox.kept.lease == "1.token")
        await until(lambda: any("cannot be sent again" in record.message for record in caplog.records))


async def test_another_centre_is_given_everything() -> None:
    outbox, uplink = MemoryOutbox(a_record(1), a_record(2)), FakeUplink(numbered(1))
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: not outbox.waiting)
        uplink.welcome = replace(WELCOME, centre="another-centre", receipts=50)
        syncer.wake_now()
        await until(lambda: syncer.status.sent == 4)

    assert outbox.kept == Standing("another-centre", "1.token", 50)


@pytest.mark.parametrize(
    ("fault", "state"), [(Fenced("pbx-2 speaks"), SyncState.PAUSED), (LeaseHeld("pbx-2 speaks"), SyncState.WAITING)]
)
async def test_another_installation_that_speaks_for_the_site_is_told(fault: Exception, state: SyncState) -> None:
    outbox, uplink = MemoryOutbox(a_record()), FakeUplink()
    uplink.greet_fault = fault
    syncer = a_syncer(outbox, uplink, backoff=Backoff(maximum=300, initial=300))

    async with running(syncer):
        await until(lambda: syncer.status.last_error is not None)
        assert (syncer.status.state, syncer.status.is_fenced) == (state, True)

    assert uplink.batches == []


async def test_a_batch_that_is_too_large_goes_in_parts_and_a_call_alone_is_set_aside() -> None:
    giant = a_record(3).call_sid

    async def take_what_is_small(batch: Batch) -> Receipt:
        if len(batch.records) > 4 or giant in {record.call_sid for record in batch.records}:
            raise BatchTooLarge("too large")
        return accept_all(batch)

    outbox, uplink = MemoryOutbox(*(a_record(number) for number in range(8))), FakeUplink()
    uplink.send = take_what_is_small  # type: ignore[method-assign]
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: not outbox.waiting)

    assert {sid: one.code for sid, one in outbox.quarantined.items()} == {giant: "batch_too_large"}
    assert (syncer.status.sent, syncer.status.last_error) == (7, None)


async def test_a_proxy_that_lets_nothing_through_condemns_no_backlog() -> None:
    outbox, uplink = MemoryOutbox(*(a_record(number) for number in range(64))), FakeUplink()
    uplink.answers.extend(BatchTooLarge("the proxy takes 1 kB") for _ in range(200))
    syncer = a_syncer(outbox, uplink)

    async with running(syncer):
        await until(lambda: syncer.status.state is SyncState.PAUSED)

    assert len(outbox.quarantined) < 20


async def test_batches_under_way_together_share_no_call() -> None:
    outbox, uplink = MemoryOutbox(*(a_record(number) for number in range(400))), FakeUplink()
    uplink.delay = 0.002
    syncer = a_syncer(outbox, uplink, batch_records=10)

    async with running(syncer):
        await until(lambda: not outbox.waiting)

    assert 1 < uplink.most_in_flight <= 4
    sent = [record.call_sid for batch in uplink.batches for record in batch.records]
    assert len(sent) == len(set(sent)) == 400


async def test_outside_its_hours_a_backlog_waits_and_fresh_calls_go() -> None:
    local = datetime.now(UTC).astimezone()
    soon, later = ((local + timedelta(hours=hours)).strftime("%H:%M") for hours in (2, 3))
    old, fresh = a_record(1), a_record(2, end_time=datetime.now(UTC))
    outbox, uplink = MemoryOutbox(old, fresh), FakeUplink()
    syncer = a_syncer(outbox, uplink, bulk_hours=[f"{soon}-{later}"])

    async with running(syncer):
        await until(lambda: fresh.call_sid not in outbox.waiting and syncer.status.state is SyncState.IDLE)
        assert list(outbox.waiting) == [old.call_sid]
        assert syncer.status.backlog_goes == (f"{soon}-{later}",)

        syncer.wake_now()
        await until(lambda: not outbox.waiting)


async def test_in_its_hours_a_backlog_goes() -> None:
    local = datetime.now(UTC).astimezone()
    begins, ends = ((local + timedelta(hours=hours)).strftime("%H:%M") for hours in (-2, 2))
    outbox = MemoryOutbox(a_record(1))
    syncer = a_syncer(outbox, FakeUplink(), bulk_hours=[f"{begins}-{ends}"])

    async with running(syncer):
        await until(lambda: not outbox.waiting)
        assert syncer.status.backlog_goes == ()
