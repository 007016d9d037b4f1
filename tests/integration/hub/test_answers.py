"""The table of answers in docs/hub.md, row by row, from a real hub over a real PostgreSQL."""

import asyncio
import gzip
import json
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest

from sync import wire
from sync.central.credentials import hash_of_code, make_code
from sync.hub.limits import Limits
from sync.records import Batch, CallRecord, Greeting, Verdict, Welcome
from tests.fakes_sync import a_record, body_of, zstd_of
from tests.hub_server import RunningHub, make_credential, running_hub
from tests.postgres import PostgresDatabase


def a_batch_of(welcome: Welcome, *records: CallRecord, site: str = "istanbul") -> Batch:
    return Batch(site, records, high_water=1, holder="holder", lease=welcome.lease)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    return answer.status_code, told["code"]


async def test_a_batch_is_stored_and_each_record_has_its_verdict(hub: RunningHub) -> None:
    welcome = await hub.greet()

    answer = await hub.send(a_batch_of(welcome, a_record(1), a_record(2), a_record(3, tenant="nobody")))

    receipt = wire.decode_receipt(answer.content)
    assert receipt.number == welcome.receipts + 1
    assert [verdict.verdict for verdict in receipt.verdicts] == [
        Verdict.ACCEPTED,
        Verdict.ACCEPTED,
        Verdict.REJECTED,
    ]
    assert receipt.verdicts[2].code == "unknown_tenant"
    assert [row["count"] for row in await hub.database.fetch("SELECT count(*) FROM call")] == [2]


async def test_what_arrives_twice_is_superseded(hub: RunningHub) -> None:
    batch = a_batch_of(await hub.greet(), a_record(1), a_record(2))
    await hub.send(batch)

    receipt = wire.decode_receipt((await hub.send(batch)).content)

    assert {verdict.verdict for verdict in receipt.verdicts} == {Verdict.SUPERSEDED}
    assert {verdict.held_revision for verdict in receipt.verdicts} == {1}


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "identity", ""])
async def test_a_batch_may_be_packed_in_three_ways_or_not_at_all(hub: RunningHub, encoding: str) -> None:
    batch = a_batch_of(await hub.greet(), a_record(1))
    body = body_of(batch, [wire.encode_record(record) for record in batch.values])
    if encoding in {"zstd", "gzip"}:
        body = zstd_of(body) if encoding == "zstd" else gzip.compress(body)

    answer = await hub.send_raw(body, **({"Content-Encoding": encoding} if encoding else {}))

    assert answer.status_code == 200, answer.text


async def test_one_bad_record_in_ten_thousand_has_its_own_verdict_and_the_others_pass(hub: RunningHub) -> None:
    records = [wire.encode_record(a_record(number)) for number in range(10_000)]
    bad = json.loads(records[5000])
    bad["status"] = "exploded"
    records[5000] = json.dumps(bad).encode()
    batch = a_batch_of(await hub.greet())

    answer = await hub.send_raw(zstd_of(body_of(batch, records)), **{"Content-Encoding": "zstd"})

    verdicts = wire.decode_receipt(answer.content).verdicts
    assert len(verdicts) == 10_000
    assert [at for at, verdict in enumerate(verdicts) if verdict.verdict is not Verdict.ACCEPTED] == [5000]
    assert verdicts[5000].call_sid == bad["call_sid"]
    assert (verdicts[5000].code, verdicts[5000].reason) == (
        "malformed",
        "the member status is not what the wire says",
    )


async def test_a_member_that_is_not_what_the_wire_says_is_named(hub: RunningHub) -> None:
    changes: list[dict[str, object]] = [
        {"call_sid": 5},
        {"revision": "1"},
        {"revision": 2**63},
        {"start_time": "2026-03-02T12:00:00"},
        {"start_time": "yesterday"},
        {"talk_seconds": None},
        {"legs": {"a": 1}},
        {"timeline": None},
        {"transferred": 1},
        {"direction": "sideways"},
        {"hangup_source": "fate"},
    ]
    good = json.loads(wire.encode_record(a_record(1)))
    records = [json.dumps(good | change).encode() for change in changes]

    answer = await hub.send_raw(body_of(a_batch_of(await hub.greet()), [*records, json.dumps(good).encode()]))

    *bad, well = wire.decode_receipt(answer.content).verdicts
    assert {(verdict.verdict, verdict.code) for verdict in bad} == {(Verdict.REJECTED, "malformed")}
    assert [verdict.reason for verdict in bad] == [
        f"the member {next(iter(change))} is not what the wire says" for change in changes
    ]
    assert well.verdict is Verdict.ACCEPTED


async def test_missing_members_have_their_defaults_and_unknown_ones_are_let_pass(hub: RunningHub) -> None:
    record = json.loads(wire.encode_record(a_record(1))) | {"mood": "good"}
    for name in CallRecord._field_defaults:
        del record[name]
    batch = json.loads(body_of(a_batch_of(await hub.greet()), [])) | {"records": [record], "weather": 1}
    del batch["receipts"]

    answer = await hub.send_raw(json.dumps(batch).encode())

    assert [verdict.verdict for verdict in wire.decode_receipt(answer.content).verdicts] == [Verdict.ACCEPTED]


async def test_a_call_nested_as_deeply_as_an_agent_lets_pass_costs_only_itself(hub: RunningHub) -> None:
    deep = "[" * 1000 + "]" * 1000
    records = [wire.encode_record(a_record(1, legs=deep)), wire.encode_record(a_record(2))]

    answer = await hub.send_raw(body_of(a_batch_of(await hub.greet()), records))

    assert wire.decode_receipt(answer.content).verdicts[1].verdict is Verdict.ACCEPTED


async def test_a_large_answer_is_packed_for_those_who_take_that(hub: RunningHub) -> None:
    batch = a_batch_of(await hub.greet(), *(a_record(number) for number in range(100)))

    answer = await hub.send(batch, **{"Accept-Encoding": "zstd"})

    assert answer.headers["content-encoding"] == "zstd"
    assert len(wire.decode_receipt(answer.content).verdicts) == 100


async def test_without_a_known_credential_nothing_is_read(hub: RunningHub) -> None:
    for shown in (
        "",
        "Bearer x",
        "Bearer 0123456789abcdef.aa",
        "Basic x",
        "Bearer",
        "Bearer é",
        f"Bearer {'x' * 5000}",
    ):
        headers = {b"Authorization": shown.encode()} if shown else {}

        answer = await hub.client.post("/v1/batches", content=b"{}", headers=headers)

        assert code_of(answer) == (401, "credential_unknown")
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_revoked_credential_is_told_apart(hub: RunningHub) -> None:
    await hub.greet()
    await hub.database.execute("UPDATE credential SET revoked_at = now()")

    answer = await hub.client.post("/v1/handshake", content=b"{}", headers=hub.authorized)

    assert code_of(answer) == (401, "credential_revoked")


async def test_an_expired_credential_is_told_apart(hub: RunningHub) -> None:
    await hub.database.execute("UPDATE credential SET expires_at = now()")

    answer = await hub.client.post("/v1/handshake", content=b"{}", headers=hub.authorized)

    assert code_of(answer) == (401, "credential_expired")


async def test_a_site_speaks_for_itself_only(hub: RunningHub) -> None:
    await hub.database.add_site("ankara", "acme")
    welcome = await hub.greet()

    forged = await hub.send(a_batch_of(welcome, a_record(1, site="ankara"), site="ankara"))
    greeting = json.loads(wire.encode_greeting(_greeting("ankara")))
    greeted = await hub.client.post("/v1/handshake", json=greeting, headers=hub.authorized)

    assert code_of(forged) == (403, "wrong_site")
    assert code_of(greeted) == (403, "wrong_site")
    assert await hub.database.fetch("SELECT 1 FROM call") == []


async def test_a_disabled_site_is_refused(hub: RunningHub) -> None:
    welcome = await hub.greet()
    await hub.database.execute("UPDATE site SET is_disabled = true")

    assert code_of(await hub.send(a_batch_of(welcome, a_record(1)))) == (403, "site_disabled")


async def test_a_copy_is_told_who_holds_the_site(hub: RunningHub) -> None:
    welcome = await hub.greet(holder="first")

    same_token = await _greet_as(hub, "second", welcome.lease)
    no_token = await _greet_as(hub, "second", None)

    assert code_of(same_token) == (409, "lease_held")
    assert 1 <= int(same_token.headers["retry-after"]) <= 61
    assert code_of(no_token) == (409, "fenced")
    assert "pbx-1" in same_token.json()["detail"]


async def test_a_batch_with_another_lease_is_refused(hub: RunningHub) -> None:
    await hub.greet()

    answer = await hub.send(Batch("istanbul", [a_record(1)], 1, "holder", "another"))

    assert answer.status_code == 409
    assert await hub.database.fetch("SELECT 1 FROM call") == []


async def test_a_centre_that_went_back_stores_nothing(hub: RunningHub) -> None:
    welcome = await hub.greet()

    answer = await hub.send(replace(a_batch_of(welcome, a_record(1)), receipts=welcome.receipts + 5))

    assert code_of(answer) == (409, "centre_behind")
    assert await hub.database.fetch("SELECT 1 FROM call") == []


async def test_a_batch_too_large_or_of_too_many_records_is_413(central_database: PostgresDatabase) -> None:
    limits = Limits(batch_bytes=100_000, batch_records=10, stop_seconds=2)
    async with running_hub(central_database, limits=limits) as hub:
        welcome = await hub.greet()
        assert (welcome.max_bytes, welcome.max_records) == (100_000, 10)
        many = a_batch_of(welcome, *(a_record(number) for number in range(11)))
        large = a_batch_of(welcome, a_record(1, full_transcript=json.dumps(["x" * 100_000])))

        assert code_of(await hub.send(many)) == (413, "batch_too_large")
        assert code_of(await hub.send(large)) == (413, "batch_too_large")
        assert (await hub.send(a_batch_of(welcome, a_record(1)))).status_code == 200


async def test_a_body_that_is_no_batch_is_refused_as_a_whole(hub: RunningHub) -> None:
    bodies: list[tuple[bytes, dict[str, str], tuple[int, str]]] = [
        (b"", {}, (400, "malformed")),
        (b"{", {}, (400, "malformed")),
        (b"[]", {}, (400, "malformed")),
        (b'{"site":"istanbul"}', {}, (400, "malformed")),
        (b'{"site":"istanbul","high_water":-1,"records":[]}', {}, (400, "malformed")),
        (b'{"site":"istanbul","high_water":1,"records":{}}', {}, (400, "malformed")),
        (b'{"site":"\xff","high_water":1,"records":[]}', {}, (400, "malformed")),
        (b"[" * 1_000_000, {}, (400, "malformed")),
        (b'{"records":' + b'{"a":' * 1_000_000, {}, (400, "malformed")),
        (b"no zstd at all, but long", {"Content-Encoding": "zstd"}, (400, "malformed")),
        (b"\x28\xb5", {"Content-Encoding": "zstd"}, (400, "malformed")),
        (zstd_of(b"x" * 1000)[:-3], {"Content-Encoding": "zstd"}, (400, "malformed")),
        (zstd_of(b"x" * 100) + b"y", {"Content-Encoding": "zstd"}, (400, "malformed")),
        (b"no gzip", {"Content-Encoding": "gzip"}, (400, "malformed")),
        (gzip.compress(b"x" * 1000)[:-3], {"Content-Encoding": "gzip"}, (400, "malformed")),
        (gzip.compress(b"x") + b"y", {"Content-Encoding": "gzip"}, (400, "malformed")),
        (b"{}", {"Content-Encoding": "br"}, (415, "unsupported_encoding")),
        (b"{}", {"Content-Encoding": "gzip, zstd"}, (415, "unsupported_encoding")),
        (b"{}", {"Content-Type": "text/csv"}, (415, "unsupported_media")),
    ]
    for body, headers, told in bodies:
        assert (body[:20], code_of(await hub.send_raw(body, **headers))) == (body[:20], told)


async def test_a_greeting_that_lacks_something_is_422(hub: RunningHub) -> None:
    whole = {"site": "istanbul", "agent_version": "1", "holder": "h", "host": "x"}
    changes = ({"site": 5}, {"agent_version": "1\0"}, {"holder": "h" * 1000}, {"lease_seconds": -1}, {"host": None})
    for change in changes:
        answer = await hub.client.post("/v1/handshake", json=whole | change, headers=hub.authorized)

        assert code_of(answer) == (422, "invalid")
        assert next(iter(change)) in answer.json()["detail"]


async def test_a_path_of_another_version_is_404_and_tells_ours(hub: RunningHub) -> None:
    answer = await hub.client.post("/v9/batches", headers=hub.authorized)

    assert code_of(answer) == (404, "not_found")
    assert "/v1" in answer.json()["detail"]


async def test_a_code_gives_a_credential_once(hub: RunningHub) -> None:
    code = await _make_code(hub.database, "istanbul")

    first = await hub.client.post("/v1/enrol", json={"code": code, "host": "pbx-1"})
    again = await hub.client.post("/v1/enrol", json={"code": code, "host": "pbx-1"})
    unknown = await hub.client.post("/v1/enrol", json={"code": "0000-0000-0000-0000", "host": "pbx-1"})

    enrolled = wire.decode_enrolled(first.content)
    assert (enrolled.site, enrolled.tenants) == ("istanbul", ("acme",))
    assert code_of(again) == (401, "code_used")
    assert code_of(unknown) == (401, "code_unknown")
    hub.credential = enrolled.credential
    await hub.greet()


async def test_codes_cannot_be_tried_without_end(central_database: PostgresDatabase) -> None:
    async with running_hub(central_database, limits=Limits(enrolments_per_minute=3, stop_seconds=2)) as hub:
        tries = [await hub.client.post("/v1/enrol", json={"code": "x", "host": "h"}) for _ in range(4)]

    assert [code_of(answer) for answer in tries] == [(401, "code_unknown")] * 3 + [(429, "rate_limited")]
    assert 1 <= int(tries[3].headers["retry-after"]) <= 20


async def test_wrong_credentials_cannot_be_tried_without_end_and_good_ones_go_on(
    central_database: PostgresDatabase,
) -> None:
    async with running_hub(central_database, limits=Limits(refusals_per_minute=3, stop_seconds=2)) as hub:
        await hub.greet()
        wrong = {"Authorization": "Bearer 0123456789abcdef.wrong"}
        tries = [await hub.client.post("/v1/handshake", content=b"{}", headers=wrong) for _ in range(4)]

        assert [answer.status_code for answer in tries] == [401] * 3 + [429]
        await hub.greet()


async def test_a_new_credential_takes_the_place_of_the_old_one_when_it_is_used(hub: RunningHub) -> None:
    old = hub.authorized
    rotated = await hub.client.post("/v1/credential/rotate", headers=old)
    await hub.greet()
    hub.credential = wire.decode_credential(rotated.content)

    await hub.greet()

    answer = await hub.client.post("/v1/handshake", content=b"{}", headers=old)
    assert code_of(answer) == (401, "credential_revoked")


async def test_days_and_calls_are_told_for_reconciliation(hub: RunningHub) -> None:
    await hub.send(a_batch_of(await hub.greet(), a_record(1), a_record(2)))

    days = await hub.client.get("/v1/reconcile/days?first=2026-03-01&last=2026-03-31", headers=hub.authorized)
    calls = await hub.client.get(
        "/v1/reconcile/calls?tenant=acme&day=2026-03-02&after=&limit=1", headers=hub.authorized
    )

    (day,) = wire.decode_days(days.content)
    assert (day.tenant, str(day.day), day.calls, len(day.digest)) == ("acme", "2026-03-02", 2, 16)
    assert [call.call_sid for call in wire.decode_calls(calls.content)] == [a_record(1).call_sid]


async def test_a_question_that_makes_no_sense_is_422(hub: RunningHub) -> None:
    for path in (
        "days?first=2026-03-01",
        "days?first=2026-03-02&last=2026-03-01",
        "days?first=2026-03-02&last=2027-03-03",
        "days?first=0001-01-01&last=0001-01-02",
        "calls?tenant=acme&day=9999-12-31",
        "calls?tenant=acme&day=2026-03-02&limit=0",
        "calls?tenant=acme&day=2026-03-02&limit=1000000",
        "calls?tenant=a%00b&day=2026-03-02",
        "calls?day=2026-03-02",
    ):
        assert code_of(await hub.client.get(f"/v1/reconcile/{path}", headers=hub.authorized)) == (422, "invalid")


async def test_the_hub_tells_how_it_is(hub: RunningHub) -> None:
    await hub.send(a_batch_of(await hub.greet(), a_record(1)))

    assert (await hub.client.get("/health")).json() == {"status": "ok"}
    assert (await hub.client.get("/ready")).json() == {"status": "ready"}
    metrics = (await hub.client.get("/metrics")).text
    assert 'edge_hub_records_total{code="",verdict="accepted"} 1.0' in metrics
    assert 'edge_hub_requests_total{code="",endpoint="/v1/batches",status="200"} 1.0' in metrics
    assert "istanbul" not in metrics


async def test_without_its_database_the_hub_lives_and_is_not_ready(hub: RunningHub) -> None:
    welcome = await hub.greet()
    await asyncio.to_thread(hub.database.server.stop_hard)

    assert (await hub.client.get("/health")).status_code == 200
    assert code_of(await hub.client.get("/ready")) == (503, "not_ready")
    answer = await hub.send(a_batch_of(welcome, a_record(1)))
    assert code_of(answer) == (503, "centre_unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    assert str(hub.database.server.port) not in answer.text


async def test_metrics_are_shown_where_the_operator_says(central_database: PostgresDatabase) -> None:
    async with running_hub(central_database, trusted_proxies=("127.0.0.1",)) as hub:
        answer = await hub.client.get("/metrics", headers={"X-Forwarded-For": "198.51.100.7"})

    assert code_of(answer) == (403, "forbidden")


async def test_one_site_cannot_take_all_places(hub: RunningHub) -> None:
    welcome = await hub.greet()
    places, istanbul = hub.serving.hub.places, hub.credential
    await hub.database.add_site("ankara", "acme")
    with ExitStack() as held:
        for _ in range(Limits().requests_per_site):
            held.enter_context(places.taken("istanbul"))
        refused = await hub.send(a_batch_of(welcome, a_record(1)))
        hub.credential = await make_credential(hub.database, "ankara")
        await hub.greet(site="ankara")
    hub.credential = istanbul

    assert code_of(refused) == (429, "too_many_requests")
    assert (await hub.send(a_batch_of(welcome, a_record(1)))).status_code == 200


async def test_a_site_whose_batches_wait_leaves_connections_for_others(central_database: PostgresDatabase) -> None:
    async with running_hub(central_database, connections=2) as hub, hub.database.connection() as other:
        welcome, istanbul = await hub.greet(), hub.authorized
        await hub.database.add_site("ankara", "acme")
        async with asyncio.TaskGroup() as group, other.transaction():
            await other.execute("SELECT 1 FROM site WHERE name = 'istanbul' FOR UPDATE")
            batches = [
                group.create_task(hub.send(a_batch_of(welcome, a_record(number)), **istanbul)) for number in range(5)
            ]
            hub.credential = await make_credential(hub.database, "ankara")
            for _ in range(3):
                await hub.greet(site="ankara")

    assert [task.result().status_code for task in batches] == [200] * 5


async def test_a_hub_with_as_many_bytes_as_it_can_hold_says_when_to_come_again(
    central_database: PostgresDatabase,
) -> None:
    limits = Limits(batch_bytes=1_000_000, bytes_in_flight=1_000_000, stop_seconds=2)
    async with running_hub(central_database, limits=limits) as hub:
        welcome = await hub.greet()
        with hub.serving.hub.budget.share("ankara") as ankara, hub.serving.hub.budget.share("izmir") as izmir:
            ankara.take(500_000)
            izmir.take(499_000)
            answer = await hub.send(a_batch_of(welcome, *(a_record(number) for number in range(10))))
        again = await hub.send(a_batch_of(welcome, a_record(1)))

    assert code_of(answer) == (503, "busy")
    assert int(answer.headers["retry-after"]) >= 1
    assert again.status_code == 200


async def test_a_hub_without_a_connection_to_spare_says_when_to_come_again(
    central_database: PostgresDatabase,
) -> None:
    limits = Limits(wait_seconds=0.05, stop_seconds=2)
    async with running_hub(central_database, limits=limits, connections=1) as hub:
        await hub.greet()
        async with hub.serving.hub.pool.lend():
            answer = await hub.client.post("/v1/handshake", content=b"{}", headers=hub.authorized)

    assert code_of(answer) == (503, "busy")


async def test_what_the_document_says_is_what_there_is(hub: RunningHub) -> None:
    told = (await hub.client.get("/openapi.json")).json()

    assert {path for path in told["paths"] if path.startswith("/v1")} == {
        "/v1/enrol",
        "/v1/handshake",
        "/v1/batches",
        "/v1/credential/rotate",
        "/v1/reconcile/days",
        "/v1/reconcile/calls",
    }
    call = told["components"]["schemas"]["Call"]
    assert set(call["properties"]) == set(CallRecord._fields)
    assert set(call["required"]) == set(CallRecord._fields) - set(CallRecord._field_defaults)


def _greeting(site: str, *, holder: str = "holder", lease: str | None = None) -> Greeting:
    return Greeting(site, "1.0", holder, "pbx-1", lease, 60.0)


async def _greet_as(hub: RunningHub, holder: str, lease: str | None) -> httpx.Response:
    body = wire.encode_greeting(_greeting("istanbul", holder=holder, lease=lease))
    return await hub.client.post("/v1/handshake", content=body, headers=hub.authorized)


async def _make_code(database: PostgresDatabase, site: str) -> str:
    code = make_code()
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO enrolment_code (code_sha256, site, expires_at) VALUES ($1, $2, now() + interval '1 h')",
            hash_of_code(code),
            site,
        )
    return code
