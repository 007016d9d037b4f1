"""A site's whole way to the centre: SQLite, outbox, syncer and client, against the real hub over a real PostgreSQL."""

import asyncio
import secrets
import sqlite3
from pathlib import Path

from sync.reconciler import Difference
from sync.records import Receipt, RecordReceipt, Verdict
from sync.syncer import SyncState
from tests.hub_server import RunningHub, make_credential
from tests.integration.store.facts import START
from tests.integration.sync.site import a_site, running, to_hub, until
from tests.postgres import PostgresDatabase


async def central(database: PostgresDatabase) -> set[tuple[str, str, int]]:
    rows = await database.fetch(
        "SELECT tenant.name, call_sid, revision FROM call JOIN tenant ON tenant.id = call.tenant_id"
    )
    assert len(rows) == len({row["call_sid"] for row in rows})
    return {tuple(row) for row in rows}


async def test_calls_arrive_and_both_sides_prove_it(hub: RunningHub, tmp_path: Path) -> None:
    async with a_site(tmp_path, to_hub(hub.port, hub.credential), batch_records=50) as site, running(site.syncer):
        await site.keep(*range(500))
        await until(site.sent)
        await site.keep(3, 4, caller_name="Learned later")
        await until(site.sent)

        assert await central(hub.database) == await site.held()
        days, total = await site.reconcile()
        assert (days, total.calls, total.differing) == ([], 500, 0)
        status = site.syncer.status
        assert (status.state, status.tenants, status.sent) == (SyncState.IDLE, ("acme",), 502)
        assert status.clock_offset_seconds is not None
        assert abs(status.clock_offset_seconds) < 5


async def test_what_the_centre_lost_is_found_and_healed_call_by_call(hub: RunningHub, tmp_path: Path) -> None:
    async with a_site(tmp_path, to_hub(hub.port, hub.credential)) as site, running(site.syncer):
        await site.keep(*range(100))
        await until(site.sent)
        await hub.database.execute(
            f"DELETE FROM call WHERE call_sid IN ('{site.sid(7)}', '{site.sid(70)}');"
            f"UPDATE call SET revision = 0 WHERE call_sid = '{site.sid(8)}';"
            f"UPDATE call SET revision = 9 WHERE call_sid = '{site.sid(9)}'"
        )

        ([day], total) = await site.reconcile(heal=True)
        assert (day.tenant, day.day, day.here, day.there) == ("acme", START.date(), 100, 98)
        assert day.counts == {Difference.MISSING: 2, Difference.OLDER: 1, Difference.NEWER: 1}
        assert total.resent == 3
        site.syncer.wake()
        await until(site.sent)

        ([day], total) = await site.reconcile(heal=True)
        assert day.counts == {Difference.NEWER: 1}
        assert total.resent == 0


async def test_what_waits_or_is_on_its_way_is_no_difference(hub: RunningHub, tmp_path: Path) -> None:
    async with a_site(tmp_path, to_hub(hub.port, hub.credential)) as site:
        async with running(site.syncer):
            await site.keep(*range(20))
            await until(site.sent)
        await site.keep(5, *range(20, 30), caller_name="Not sent yet")
        refused = RecordReceipt(site.sid(29), 1, Verdict.REJECTED, "odd", "too odd")
        await site.outbox.settle(Receipt([refused]))

        days, total = await site.reconcile(heal=True)
        assert (days, total.calls, total.resent) == ([], 19, 0)


async def test_what_only_the_centre_holds_is_told(hub: RunningHub, tmp_path: Path) -> None:
    async with a_site(tmp_path / "first", to_hub(hub.port, hub.credential)) as site, running(site.syncer):
        await site.keep(*range(10))
        await until(site.sent)
    await hub.database.execute("UPDATE site SET lease = NULL, holder = NULL")

    async with (
        a_site(tmp_path / "rebuilt", to_hub(hub.port, hub.credential), holder="new") as site,
        running(site.syncer),
    ):
        await site.keep(*range(4))
        await until(site.sent)

        ([day], total) = await site.reconcile(heal=True)
        assert day.counts == {Difference.UNKNOWN: 6}
        assert total.resent == 0
        assert len(await central(hub.database)) == 10


async def test_a_revoked_credential_pauses_condemns_nothing_and_a_new_one_heals_without_a_restart(
    hub: RunningHub, tmp_path: Path
) -> None:
    file = tmp_path / "hub.credential"
    file.write_text(hub.credential)
    uplink = to_hub(hub.port, credential_file=file)
    async with a_site(tmp_path, uplink, retry_max_seconds=1) as site, running(site.syncer):
        await site.keep(*range(10))
        await until(site.sent)
        await hub.database.execute("UPDATE credential SET revoked_at = now()")
        await site.keep(*range(10, 20))
        await until(lambda: site.syncer.status.state is SyncState.PAUSED)
        assert "edge-agent enroll" in str(site.syncer.status.last_error)
        assert hub.credential not in str(site.syncer.status)
        assert (await site.outbox.backlog()).quarantined == 0

        file.write_text(await make_credential(hub.database, "istanbul"))
        await until(site.sent)

    assert len(await central(hub.database)) == 20


async def test_a_clone_is_refused_with_a_sentence_that_names_the_other(hub: RunningHub, tmp_path: Path) -> None:
    async with a_site(tmp_path / "original", to_hub(hub.port, hub.credential)) as site, running(site.syncer):
        await site.keep(1)
        await until(site.sent)
        standing = await site.outbox.standing()
        async with a_site(tmp_path / "clone", to_hub(hub.port, hub.credential), holder="clone") as clone:
            await clone.outbox.keep_standing(standing)
            async with running(clone.syncer):
                await clone.keep(2)
                await until(lambda: clone.syncer.status.last_error)
                assert clone.syncer.status.is_fenced
                assert "a-holder.example" in str(clone.syncer.status.last_error)
            assert not await clone.sent()
        await site.keep(3)
        await until(site.sent)
    assert {sid for _, sid, _ in await central(hub.database)} == {"istanbul:main:1", "istanbul:main:3"}


async def test_batches_take_no_more_than_their_share_of_the_line(hub: RunningHub, tmp_path: Path) -> None:
    began = asyncio.get_running_loop().time()
    uplink = to_hub(hub.port, hub.credential, max_kilobits_per_second=256.0)
    async with a_site(tmp_path, uplink, batch_records=10) as site:
        for number in range(30):
            await site.keep(number, legs=[{"channel": secrets.token_hex(1000)}])  # packs to half: 30 kB in all
        async with running(site.syncer):
            await until(site.sent)
        assert await central(hub.database) == await site.held()

    assert asyncio.get_running_loop().time() - began > 0.5


async def test_calls_whose_text_is_no_json_are_set_aside_alone(hub: RunningHub, tmp_path: Path) -> None:
    async with a_site(tmp_path, to_hub(hub.port, hub.credential)) as site:
        await site.keep(*range(20))
        broken = {
            2: "UPDATE call SET legs = '[{' WHERE call_sid = ?",
            5: "UPDATE call SET full_transcript = '[],\"legs\":[' WHERE call_sid = ?",
            8: "UPDATE call SET caller_name = CAST(x'ff' AS TEXT) WHERE call_sid = ?",
            11: "INSERT INTO interaction (call_id, position, data) SELECT id, 0, '}' FROM call WHERE call_sid = ?",
        }

        def spoil(connection: sqlite3.Connection) -> None:
            for number, statement in broken.items():
                connection.execute(statement, (site.sid(number),))

        await site.store.connection.transact(spoil)
        async with running(site.syncer):
            await until(site.sent)

        query = "SELECT call_sid, code FROM quarantine JOIN call ON call.id = call_id ORDER BY call_id"
        aside = await site.store.reader.run(lambda connection: connection.execute(query).fetchall())
        assert aside == [(site.sid(number), "not_encodable") for number in broken]
        assert len(await central(hub.database)) == 16
        assert site.syncer.status.state is not SyncState.PAUSED
