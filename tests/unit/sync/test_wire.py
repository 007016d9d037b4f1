"""Wire version 1, the agent's half: what it writes is JSON, what it reads may have members it does not know."""

import json
from datetime import UTC, date, datetime

import pytest
import zstandard

from sync import wire
from sync.records import CallRecord, DayDigest, Greeting, HeldCall, Receipt, RecordReceipt, Verdict
from tests.fakes_sync import LEASE, a_batch, a_record, body_of, zstd_of


def test_a_record_has_the_members_of_a_call_record_and_its_json_members_are_json() -> None:
    told = json.loads(wire.encode_record(a_record(tasks='[{"position": 0}]')))

    assert tuple(told) == CallRecord._fields
    assert told["legs"] == [{"channel": "PJSIP/trunk-acme-00000001"}]
    assert told["tasks"] == [{"position": 0}]
    assert told["start_time"] == "2026-03-02T12:00:01+00:00"


def test_a_batch_is_one_json_object_with_its_records_in_order() -> None:
    batch = a_batch(a_record(1), a_record(2), high_water=7)

    body = body_of(batch, [wire.encode_record(record) for record in batch.values])

    told = json.loads(zstandard.ZstdDecompressor().decompress(zstd_of(body)))
    assert (told["site"], told["high_water"], told["lease"]) == ("istanbul", 7, LEASE)
    assert [record["call_sid"] for record in told["records"]] == [record.call_sid for record in batch.records]


@pytest.mark.parametrize("size", [0, 2, 1_000, 700_000])
def test_a_packed_body_tells_its_size_and_takes_a_window_no_larger(size: int) -> None:
    pieces = [b"x" * (size // 2), b"y" * (size - size // 2)]

    body, told = wire.compress(pieces)

    frame = zstandard.get_frame_parameters(body)
    assert (told, frame.content_size) == (size, size)
    assert frame.window_size <= min(max(size, 1), 512 * 1024)
    assert zstandard.ZstdDecompressor().decompress(body) == b"".join(pieces)


def test_a_batch_of_nothing_is_as_good() -> None:
    assert json.loads(body_of(a_batch(), []))["records"] == []


@pytest.mark.parametrize("broken", [{"legs": "[{]"}, {"timeline": "[NaN]"}, {"caller_name": "\ud83d"}, {"tasks": ""}])
def test_a_record_that_json_cannot_carry_is_told_alone(broken: dict[str, str]) -> None:
    with pytest.raises(wire.NotEncodable):
        wire.encode_record(a_record(**broken))


def test_a_greeting_tells_the_versions_spoken() -> None:
    told = json.loads(wire.encode_greeting(Greeting("istanbul", "1.0", "h", "pbx1", None, 60.0)))

    assert told["versions"] == [1]
    assert told["lease"] is None


def test_answers_may_have_members_we_do_not_know_and_lack_those_with_a_default() -> None:
    body = b'{"receipt": 4, "new": 1, "verdicts": [{"call_sid": "a", "revision": 2, "verdict": "accepted", "new": 2}]}'

    assert wire.decode_receipt(body) == Receipt([RecordReceipt("a", 2, Verdict.ACCEPTED)], 4)


def test_every_answer_comes_back_as_a_value() -> None:
    welcome = wire.decode_welcome(
        b'{"centre":"c","receipts":3,"lease":"t","lease_seconds":60,"server_time":"2026-11-22T09:00:00Z",'
        b'"tenants":["acme"],"max_records":1000,"max_bytes":100}'
    )
    assert welcome.server_time == datetime(2026, 11, 22, 9, tzinfo=UTC)
    assert welcome.tenants == ("acme",)
    days = wire.decode_days(b'{"days":[{"tenant":"acme","day":"2026-11-22","calls":1,"digest":"00"}]}')
    assert days == [DayDigest("acme", date(2026, 11, 22), 1, "00")]
    assert wire.decode_calls(b'{"calls":[{"call_sid":"a","revision":1}]}') == [HeldCall("a", 1)]
    assert wire.decode_credential(b'{"credential":"1.x"}') == "1.x"
    assert wire.decode_problem(b'{"status":409,"code":"fenced","title":"t"}').code == "fenced"


@pytest.mark.parametrize("garbage", [b"", b"<html>", b"[]", b'{"receipt": "x"}', b"\xff\xfe"])
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - pydantic's own words
        wire.decode_receipt(garbage)


def test_a_credential_is_not_shown() -> None:
    enrolled = wire.decode_enrolled(b'{"site":"istanbul","credential":"1.hush","tenants":["acme"]}')

    assert enrolled.credential == "1.hush"
    assert "hush" not in repr(enrolled)
