"""The fast way into SQLite writes what the SQLModel types would."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from agent.store import rows
from agent.store.moments import moment_of, moment_text
from sync.models import Direction, UtcDateTime

moments = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(9000, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=3)), timezone(timedelta(hours=-4, minutes=-30))]),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(moments)
def test_a_moment_is_written_as_its_column_type_writes_it(moment: datetime) -> None:
    write = UtcDateTime().dialect_impl(sqlite.dialect()).bind_processor(sqlite.dialect())
    assert write is not None

    assert moment_text(moment) == write(moment)


@given(moments)
def test_a_moment_comes_back_in_utc(moment: datetime) -> None:
    assert moment_of(moment_text(moment)) == moment
    assert moment_of(moment_text(moment)).tzinfo is UTC


def test_a_moment_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        moment_text(datetime(2026, 11, 22))  # noqa: DTZ001 - the point


@given(json_values)
def test_json_means_the_same_afterwards(value: Any) -> None:
    assert json.loads(rows.json_text(value)) == _without_nul(value)


def _without_nul(value: Any) -> Any:
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nul(inner) for inner in value]
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@pytest.mark.parametrize("value", ["a\0b", "a\\u0000b", "half \ud83d of a pair", float("nan"), [2**70, float("-inf")]])
def test_json_holds_nothing_that_postgresql_refuses(value: Any) -> None:
    text = rows.json_text({"key": value, "\0": [value]})

    assert "\\u0000" not in text.replace("\\\\", "")
    assert not {"NaN", "Infinity", "\\ud83d"} & set(text.replace('"', " ").replace("]", " ").split())
    assert set(json.loads(text)) == {"key", "\ufffd"}


@pytest.mark.parametrize("value", [2**70, "half \ud83d of a pair", {1: "a key that is no text"}])
def test_json_that_is_hard_to_write_is_written_all_the_same(value: Any) -> None:
    assert json.loads(rows.json_text([value])) is not None


@given(st.text(alphabet=st.characters(codec=None)))
def test_any_text_can_be_bound(text: str) -> None:
    assert len(rows.plain_text(text).encode()) >= len(text)
    assert "\0" not in rows.plain_text(text)


def test_a_nul_in_a_column_is_shown_as_what_cannot_be_told() -> None:
    assert rows.encode_call({"call_sid": "a:b:c", "caller_name": "a\0b"})["caller_name"] == "a\ufffdb"


def test_enum_members_are_written_as_their_value() -> None:
    assert type(rows.plain_text(Direction.INBOUND)) is str
    assert rows.plain_text(Direction.INBOUND) == "inbound"


def test_a_column_the_store_keeps_itself_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="revision"):
        rows.encode_call({"call_sid": "a:b:c", "revision": 7})


def test_a_new_call_must_be_told_enough() -> None:
    with pytest.raises(ValueError, match="start_time"):
        rows.with_defaults(rows.encode_call({"call_sid": "a:b:c"}))


def test_json_is_the_same_whatever_the_order_of_its_keys() -> None:
    assert rows.same_json('{"a":1,"b":[2]}', '{ "b": [2], "a": 1 }')
    assert not rows.same_json('{"a":1}', '{"a":2}')
