"""What reading tables of MariaDB costs: python -m benchmarks.tables

The same rows come once from the tables' readers, as texts with their places, and once from a bare `fetchall` of PyMySQL
over the same connection's settings. The ratio of the two is what counts; the numbers beside it depend on the machine.
Needs Debian's mariadb-server-core.
"""

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from time import perf_counter

import pymysql

from agent.sources.table_layout import TableKind
from agent.sources.tables import Table
from tests.mariadb_server import DATABASE, READER, READER_PASSWORD, MariaDb

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAYS = 14


def fill(mariadb: MariaDb, rows: int) -> None:
    """Calls of two weeks, in each table as many rows."""
    cdrs, events = [], []
    for number in range(rows):
        start = (NOON - timedelta(days=DAYS) * (1 - number / rows)).replace(tzinfo=None)
        channel = {"uniqueid": f"{1795000000 + number}.{number}", "linkedid": f"{1795000000 + number}.{number}"}
        cdrs.append(
            {"calldate": start, "clid": '"Ayşe Yılmaz" <905321234567>', "src": "905321234567", "dst": "101"}
            | {"dcontext": "from-trunk", "channel": f"PJSIP/trunk-{number:08x}", "dstchannel": "PJSIP/101-00000001"}
            | {"lastapp": "Dial", "lastdata": "PJSIP/101,20", "duration": 60, "billsec": 50, "disposition": "ANSWERED"}
            | {"sequence": number, "did": "902125551001"}
            | channel
        )
        texts = ("cid_ani", "cid_rdnis", "cid_dnid", "appname", "appdata", "accountcode", "peer", "userdeftype")
        events.append(
            {"eventtype": "CHAN_START", "eventtime": start, "cid_name": "Ayşe Yılmaz", "cid_num": "905321234567"}
            | {"exten": "101", "context": "from-trunk", "channame": f"PJSIP/trunk-{number:08x}", "amaflags": 3}
            | {"extra": '{"hangupcause":16,"hangupsource":"PJSIP/101-00000001","dialstatus":""}'}
            | dict.fromkeys(texts, "")
            | channel
        )
    for first in range(0, rows, 2000):
        mariadb.insert("cdr", cdrs[first : first + 2000])
        mariadb.insert("cel", events[first : first + 2000])


def bare(mariadb: MariaDb, table: str) -> int:
    """The yardstick: all rows as Python's values, and that is all."""
    connection = pymysql.connect(
        host=mariadb.host, port=mariadb.port, user=READER, password=READER_PASSWORD, database=DATABASE
    )
    with connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return len(cursor.fetchall())


def ours(mariadb: MariaDb, kind: str) -> int:
    """Batches of rows, until nothing is left."""
    table = Table(mariadb.address(kind), TableKind(kind), zone=UTC, now=lambda: NOON)
    rows = 0
    while not (batch := table.read()).is_at_end:
        assert batch.trouble is None, batch.trouble
        rows += len(batch.records)
    table.close()
    return rows + len(batch.records)


def look(mariadb: MariaDb) -> float:
    """Seconds of a look at a table of CDRs that is known wholly."""
    table = Table(mariadb.address("cdr"), TableKind.CDR, zone=UTC, now=lambda: NOON)
    while not table.read().is_at_end:
        pass
    table.read()
    best = float("inf")
    for _ in range(10):
        began = perf_counter()
        table.read()
        best = min(best, perf_counter() - began)
    table.close()
    return best


def main() -> int:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=40_000, help="in each table")
    parser.add_argument("--tries", type=int, default=5, help="runs of each kind; the fastest counts")
    options = parser.parse_args()
    mariadb = MariaDb()
    try:
        mariadb.start()
        mariadb.renew()
        fill(mariadb, options.rows)
        for kind in TableKind:
            works: dict[str, Callable[[MariaDb, str], int]] = {"PyMySQL's fetchall": bare, "our reader": ours}
            best = dict.fromkeys(works, float("inf"))
            for _ in range(options.tries):
                for name, work in works.items():
                    began = perf_counter()
                    assert work(mariadb, kind) == options.rows
                    best[name] = min(best[name], perf_counter() - began)
            for name, seconds in best.items():
                ratio = best["PyMySQL's fetchall"] / seconds
                print(f"{kind}  {name:<20} {options.rows / seconds:>10,.0f} rows/s  {ratio:6.2f}")
        print(f"cdr  a look with nothing new: {1000 * look(mariadb):.1f} ms ({options.rows / DAYS:,.0f} rows a day)")
    finally:
        mariadb.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
