"""What the centre holds of a site, as reconciliation compares it: docs/hub.md.

Read inside a transaction that speaks for the site, so that row-level security has its word as well.
"""

from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import asyncpg

from sync.records import DayDigest, HeldCall

MOST_CALLS_AT_ONCE: Final = 10_000

# In the order and by the ranges of the index on tenant, site and time; the sum is exact (numeric) and taken modulo
# 2^64 here, since SQL's bit(64) gives signed numbers.
_DAYS = """
SELECT tenant.name, (call.start_time AT TIME ZONE 'UTC')::date AS day, count(*) AS calls,
    sum(('x' || substr(md5(call.call_sid || ':' || call.revision), 1, 16))::bit(64)::bigint) AS total
FROM call JOIN tenant ON tenant.id = call.tenant_id
WHERE call.tenant_id = ANY (ARRAY(SELECT tenant_id FROM site_tenant WHERE site = $1))
    AND call.site = $1 AND call.start_time >= $2 AND call.start_time < $3
GROUP BY 1, 2 ORDER BY 1, 2
"""
_CALLS = """
SELECT call_sid, revision FROM call
WHERE tenant_id = (SELECT id FROM tenant WHERE name = $2) AND site = $1 AND start_time >= $3 AND start_time < $4
    AND call_sid COLLATE "C" > $5
ORDER BY call_sid COLLATE "C" LIMIT $6
"""


async def days(connection: asyncpg.Connection, site: str, first: date, last: date) -> list[DayDigest]:
    """Each tenant's days from `first` to `last`, both included, on which the site has calls; by tenant and day."""
    rows = await connection.fetch(_DAYS, site, _midnight(first), _midnight(last + timedelta(days=1)))
    return [DayDigest(row["name"], row["day"], row["calls"], f"{int(row['total']) % 2**64:016x}") for row in rows]


async def calls(
    connection: asyncpg.Connection, site: str, tenant: str, day: date, *, after: str, limit: int
) -> list[HeldCall]:
    """The first `limit` calls of a day whose `call_sid` comes after this one by its bytes; fewer are the last."""
    limit = min(max(limit, 1), MOST_CALLS_AT_ONCE)
    end = _midnight(day + timedelta(days=1))
    rows = await connection.fetch(_CALLS, site, tenant, _midnight(day), end, after, limit)
    return [HeldCall(row["call_sid"], row["revision"]) for row in rows]


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
