"""A call tells the same to a hub, as JSON made by SQLite, to PostgreSQL, as a row of its COPY, and by its values."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.store.engine import Store, open_store
from agent.store.outbox import SqliteOutbox
from agent.store.outbox_rows import COPIED, ENCODED, VALUES, Form
from agent.store.writer import FinishedCall, Group, Writer
from sync import wire
from sync.central.copying import row_of
from sync.records import CallRecord, CopyRecord, EncodedRecord
from tests.integration.store.facts import START, call, row, task

_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
_moments = st.integers(0, 4 * 10**15).map(lambda late: datetime(1970, 1, 2, tzinfo=UTC) + timedelta(microseconds=late))
_seconds = st.floats(0, 1e9, allow_nan=False)
_told = st.fixed_dictionaries(
    {
        "caller_name": st.none() | _texts,
        "queue": st.none() | _texts,
        "start_time": _moments,
        "answer_time": st.none() | _moments,
        "ring_seconds": _seconds,
        "talk_seconds": _seconds,
        "total_seconds": _seconds,
        "hangup_cause": st.none() | st.integers(0, 127),
        "transferred": st.booleans(),
        "legs": st.lists(
            st.dictionaries(_texts, st.none() | _texts | st.integers() | _seconds, max_size=3), max_size=3
        ),
    }
)


def opened(text: bytes) -> dict[str, Any]:  # Any: JSON
    """A record's JSON with its moments as moments: each form has its own number of noughts."""
    told: dict[str, Any] = json.loads(text)
    assert tuple(told) == CallRecord._fields
    for name in ("start_time", "pbx_answer_time", "answer_time", "end_time", "created_at", "updated_at"):
        told[name] = told[name] and datetime.fromisoformat(told[name])
    return told


@settings(max_examples=25, deadline=None)
@given(st.lists(_told, min_size=1, max_size=20), st.lists(_texts, max_size=3))
def test_whatever_a_call_holds_all_forms_tell_it_alike(
    tmp_path_factory: pytest.TempPathFactory, calls: list[dict[str, Any]], said: list[str]
) -> None:
    async def all_of_them() -> None:
        async with open_store(tmp_path_factory.mktemp("forms") / "edge.db") as store:
            writer = await Writer.over(store.connection)
            children = ([task(text, said=text) for text in said], [{"text": text} for text in said])
            finished = [FinishedCall(row(number, **told), "acme", *children) for number, told in enumerate(calls)]
            await writer.commit(Group(finished=finished))
            by_values = await SqliteOutbox(store, writer, site="berlin").next_batch(limit=100)
            encoded = await SqliteOutbox(store, writer, site="berlin", form=ENCODED).next_batch(limit=100)
            copied = await SqliteOutbox(store, writer, site="berlin", form=COPIED).next_batch(limit=100)
            assert by_values is not None
            assert encoded is not None
            assert copied is not None
            assert (len(by_values.records), by_values.high_water) == (len(calls), encoded.high_water)
            for one, other in zip(by_values.values, encoded.records, strict=True):
                assert isinstance(other, EncodedRecord)
                assert (one.call_sid, one.revision, one.tenant) == other[:3]
                assert opened(wire.encode_record(one)) == opened(other.json)
            for one, copy in zip(by_values.values, copied.records, strict=True):
                assert isinstance(copy, CopyRecord)
                assert copy == (*(getattr(one, name) for name in CopyRecord._fields[:-1]), row_of(one))

    asyncio.run(all_of_them())


@pytest.mark.parametrize("name", ["x'ff00'", "CAST(x'ff' AS TEXT)"])
@pytest.mark.parametrize("form", [VALUES, ENCODED])
async def test_a_name_that_is_no_text_keeps_no_other_call_back(
    store: Store, writer: Writer, form: Form, name: str
) -> None:
    await writer.commit(Group(finished=[call(1), call(2)]))
    await store.connection.transact(
        lambda connection: connection.execute(f"UPDATE call SET caller_name = {name} WHERE id = 1")
    )

    batch = await SqliteOutbox(store, writer, site="berlin", form=form).next_batch(limit=10)

    assert batch is not None
    texts = [record.json if isinstance(record, EncodedRecord) else None for record in batch.records]
    with pytest.raises(wire.NotEncodable):
        wire.check_record(texts[0]) if texts[0] else wire.encode_record(batch.values[0])
    assert opened(texts[1] or wire.encode_record(batch.values[1]))["start_time"] == START + timedelta(seconds=2)
