"""What a real Asterisk writes into MariaDB comes out of the tables once, whoever is started anew meanwhile."""

import csv
import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC
from typing import Any

import pytest

from agent.pbx.asterisk.cdr import CdrReader, CdrRow
from agent.pbx.asterisk.cel import CelReader, CelRow
from agent.sources.table_layout import TableKind
from agent.sources.tables import Table
from tests.mariadb_server import MariaDb
from tests.pbx.asterisk import Asterisk, RigUnavailable
from tests.pbx.configuration import CDR_COLUMNS, CEL_COLUMNS
from tests.pbx.mix import Mix
from tests.pbx.odbc import asterisk_with_tables, environment_of, load_back_ends
from tests.pbx.waiting import wait_until


@pytest.fixture
def asterisk(rig: None, mariadb: MariaDb, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asterisk]:
    try:
        asterisk = asterisk_with_tables(mariadb)
    except RigUnavailable as missing:
        if os.environ.get("CI") == "true":
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
    for name, value in environment_of(asterisk).items():
        monkeypatch.setenv(name, value)
    with asterisk:
        load_back_ends(asterisk)
        yield asterisk


class Reading:
    """Both tables, read by a reader after the other."""

    def __init__(self, mariadb: MariaDb) -> None:
        self._mariadb = mariadb
        self._places: dict[TableKind, dict[str, Any] | None] = dict.fromkeys(TableKind)  # Any: JSON
        self._tables: dict[TableKind, Table] = {}
        self._cel = CelReader()
        self.rows: dict[TableKind, Counter[tuple[str, ...]]] = {kind: Counter() for kind in TableKind}
        self.looks = 0
        self.begin()

    def begin(self) -> None:
        """Another reader goes on from where the last one was."""
        self.end()
        for kind in TableKind:
            self._tables[kind] = Table(self._mariadb.address(kind), kind, self._places[kind], zone=UTC)

    def end(self) -> None:
        for table in self._tables.values():
            table.close()

    def look(self) -> set[str]:
        """Read on; why that cannot be done."""
        self.looks += 1
        troubles = set()
        for kind, table in self._tables.items():
            is_at_end = False
            while not is_at_end:
                batch = table.read()
                if batch.trouble is not None:
                    troubles.add(batch.trouble)
                    break
                is_at_end = batch.is_at_end
                for row in batch.records:
                    self.rows[kind][self._key(kind, dict(row.data))] += 1
                if batch.place is not None:
                    self._places[kind] = batch.place.as_json()
        return troubles

    def _key(self, kind: TableKind, values: dict[str, str]) -> tuple[str, ...]:
        if kind is TableKind.CEL:
            event = self._cel.row_of(values)
            assert isinstance(event, CelRow), event
            return event.event, event.name, event.channel, event.linked, values["extra"]
        cdr = CdrReader(UTC, tuple(values)).row_of(list(values.values()))
        assert isinstance(cdr, CdrRow)
        return cdr.channel, cdr.dstchannel, cdr.disposition, cdr.clid, cdr.uniqueid, cdr.linkedid, cdr.sequence


def written(asterisk: Asterisk) -> dict[TableKind, Counter[tuple[str, ...]]]:
    """The same rows in Asterisk's files."""
    cdr_keys = ("channel", "dstchannel", "disposition", "clid", "uniqueid", "linkedid", "sequence")
    cel_keys = ("eventtype", "channel", "uniqueid", "linkedid", "extra")
    files = (
        (TableKind.CDR, asterisk.cdr_path, CDR_COLUMNS, cdr_keys),
        (TableKind.CEL, asterisk.cel_path, CEL_COLUMNS, cel_keys),
    )
    found = {}
    for kind, path, columns, keys in files:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            lines = [dict(zip(columns, line, strict=True)) for line in csv.reader(file)]
        found[kind] = Counter(tuple(line[key] for key in keys) for line in lines)
    return found


def counts(mariadb: MariaDb) -> dict[TableKind, int]:
    return {kind: mariadb.execute(f"SELECT COUNT(*) FROM {kind}")[0][0] for kind in TableKind}


@pytest.mark.timeout(180)
def test_every_row_is_read_once_across_restarts_of_the_reader_and_of_mariadb(
    asterisk: Asterisk, mariadb: MariaDb
) -> None:
    reading = Reading(mariadb)
    mix = Mix(seed=11)
    try:
        placing = mix.start(asterisk, calls=12, rate=3.0)
        while not placing.finished:
            assert reading.look() == set()
            reading.begin()
        placing.wait(seconds=60)
        assert reading.look() == set()
        assert reading.rows == written(asterisk)

        mariadb.stop()
        assert len(reading.look()) == 1
        mariadb.start()
        mix.place(asterisk, calls=12, rate=3.0)
        wait_until(lambda: not reading.look(), what="the tables read", seconds=20)

        in_tables = counts(mariadb)
        assert {kind: rows.total() for kind, rows in reading.rows.items()} == in_tables
        assert all(reading.rows[kind] <= rows for kind, rows in written(asterisk).items())
        assert reading.looks > 10
    finally:
        reading.end()
