"""Two hubs at one database behind one address: whichever a request reaches, the centre is one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sync import wire
from sync.records import Batch, Greeting, Verdict
from tests.fakes_sync import a_record
from tests.hub_server import RunningHub, running_hub


@pytest.fixture
async def other(hub: RunningHub) -> AsyncIterator[RunningHub]:
    """Another hub, reached with the same credential."""
    async with running_hub(hub.database, site="") as other:
        other.credential = hub.credential
        yield other


async def test_batches_through_both_at_once_are_stored_once_and_numbered_without_a_gap(
    hub: RunningHub, other: RunningHub
) -> None:
    lease = (await hub.greet()).lease
    batches = [Batch("istanbul", [a_record(number), a_record(0)], number, "holder", lease) for number in range(1, 6)]

    answers = await asyncio.gather(*(one.send(batch) for batch in batches for one in (hub, other)))

    receipts = [wire.decode_receipt(answer.content) for answer in answers]
    assert sorted(receipt.number for receipt in receipts) == list(range(1, 11))
    verdicts = [verdict.verdict for receipt in receipts for verdict in receipt.verdicts]
    assert (verdicts.count(Verdict.ACCEPTED), verdicts.count(Verdict.SUPERSEDED)) == (6, 14)
    assert len(await hub.database.fetch("SELECT 1 FROM call")) == 6


async def test_a_lease_a_new_credential_and_its_use_are_known_to_both_at_once(
    hub: RunningHub, other: RunningHub
) -> None:
    lease = (await hub.greet()).lease
    assert (await other.greet(lease=lease)).lease == lease
    copy = wire.encode_greeting(Greeting("istanbul", "1.0", "a copy", "pbx-2", lease, 60.0))
    refused = await other.client.post("/v1/handshake", content=copy, headers=other.authorized)
    assert (refused.status_code, refused.json()["code"]) == (409, "lease_held")

    rotated = await other.client.post("/v1/credential/rotate", headers=other.authorized)
    assert (await hub.greet(lease=lease)).lease == lease  # the old one, until the new one is used
    other.credential = rotated.json()["credential"]
    await other.greet(lease=lease)

    late = await hub.send(Batch("istanbul", [a_record(1)], 1, "holder", lease))
    assert (late.status_code, late.json()["code"]) == (401, "credential_revoked")
