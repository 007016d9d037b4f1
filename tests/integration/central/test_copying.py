"""A call record comes through our COPY into PostgreSQL as the values that it holds."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any, get_args, get_type_hints

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.central.copying import COLUMNS, HEADER, TRAILER, row_of
from sync.records import CallRecord
from tests.fakes_sync import a_record
from tests.postgres import PostgresDatabase

_BIGINT = 2**63
_VALUES: dict[type, st.SearchStrategy[Any]] = {  # Any: of each field's type
    str: st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40) | st.just("ş" * 5000),
    int: st.integers(-_BIGINT, _BIGINT - 1),
    float: st.floats(allow_nan=False),
    bool: st.booleans(),
    datetime: st.datetimes().map(lambda moment: moment.replace(tzinfo=UTC)),
    type(None): st.none(),
}
_records = st.builds(
    CallRecord,
    **{
        name: st.one_of(*(_VALUES[kind] for kind in get_args(hint) or (hint,)))
        for name, hint in get_type_hints(CallRecord).items()
    },
)


@dataclass
class Table:
    """A temporary table for rows."""

    runner: asyncio.Runner
    connection: asyncpg.Connection

    def takes(self, *rows: bytes) -> list[asyncpg.Record]:
        """Copy these rows into the table, and return what it holds then."""

        async def copied() -> list[asyncpg.Record]:
            columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
            await self.connection.execute("DROP TABLE IF EXISTS incoming")
            await self.connection.execute(f"CREATE TEMPORARY TABLE incoming ({columns})")
            body = b"".join((HEADER, *rows, TRAILER))
            await self.connection.copy_to_table("incoming", source=BytesIO(body), columns=COLUMNS, format="binary")
            return await self.connection.fetch("SELECT * FROM incoming")

        return self.runner.run(copied())


@pytest.fixture
def table(empty_database: PostgresDatabase) -> Iterator[Table]:
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(empty_database.dsn))
        yield Table(runner, connection)
        runner.run(connection.close())


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],  # each example makes its table anew
)
@given(records=st.lists(_records, max_size=4))
def test_whatever_values_a_record_holds_postgresql_holds_the_same(table: Table, records: list[CallRecord]) -> None:
    found = table.takes(*map(row_of, records))

    assert [dict(row) for row in found] == [{name: getattr(record, name) for name in COLUMNS} for record in records]


def test_every_field_but_the_children_has_a_column() -> None:
    assert {*COLUMNS, "tasks", "interactions"} == {*CallRecord._fields}


@pytest.mark.parametrize("name", ["revision", "transferred", "start_time", "answer_time", "ring_seconds", "queue"])
def test_what_is_missing_is_null(table: Table, name: str) -> None:
    record = a_record(1, **{name: None})

    assert [row[name] for row in table.takes(row_of(record))] == [None]


@pytest.mark.parametrize(
    "changes",
    [
        {"caller_name": b"\xff"},
        {"caller_name": "\ud800"},
        {"queue": 5},
        {"start_time": "yesterday"},
        {"answer_time": datetime(2026, 11, 22, 9, 0)},  # noqa: DTZ001 - naive on purpose
        {"revision": 2**63},
        {"revision": None, "start_time": 5},
        {"revision": None, "ring_seconds": "long"},
        {"hangup_cause": 1.5},
        {"ring_seconds": "long"},
    ],
)
def test_what_does_not_fit_its_column_is_an_error(changes: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        row_of(a_record(1, **changes))


def test_moments_are_exact_to_the_microsecond_on_both_sides_of_2000(table: Table) -> None:
    moments = [datetime(2000, 1, 1, tzinfo=UTC) + sign * timedelta(microseconds=1) for sign in (-1, 1)]

    found = table.takes(*(row_of(a_record(1, start_time=moment)) for moment in moments))

    assert [row["start_time"] for row in found] == moments
