"""Transactions that speak for one site: what they set, ends with them, so that a pooler may stand in between."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from sync.errors import SiteRefused, SyncError

# What the settings let a site be called, so that the name can stand in a script as it is.
_SITE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

# READ COMMITTED whatever the default, since ON CONFLICT then never fails for concurrency. Accepted means durable, even
# if the database is set to acknowledge earlier. A server that lost us must not keep the locks of a batch: it ends slow
# statements and idle transactions itself, and where it can (PostgreSQL 14), it looks for its client every second.
_OPENING = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL sentiric.site = '{site}';
SET LOCAL statement_timeout = {timeout_ms};
SET LOCAL idle_in_transaction_session_timeout = {timeout_ms};
SELECT set_config('client_connection_check_interval', '1000', true)
    WHERE current_setting('client_connection_check_interval', true) = '0';
SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off';
"""


def unknown_site(site: str) -> SiteRefused:
    """The refusal of a name that the centre does not know, or that this database user may not speak for."""
    return SiteRefused(
        "site_unknown",
        f"the centre knows no site {site!r} that this agent may speak for; "
        f"`edge-hub sites add {site} --tenant NAME` makes it known",
    )


def disabled_site(site: str) -> SiteRefused:
    """The refusal of a site that an operator disabled."""
    return SiteRefused(
        "site_disabled", f"the centre has disabled site {site!r}; `edge-hub sites enable {site}` lets it in again"
    )


@asynccontextmanager
async def for_site(
    connection: asyncpg.Connection, site: str, timeout_seconds: float, script: str = ""
) -> AsyncIterator[None]:
    """A transaction that speaks for a site and begins with this script.

    Commits at the end, also if the end is a refusal of ours, whose note is to stay.
    """
    await connection.execute(_opening(site, timeout_seconds) + script)
    try:
        yield
    except SyncError:
        await connection.execute("COMMIT")
        raise
    await connection.execute("COMMIT")


async def require_enabled(connection: asyncpg.Connection, site: str) -> None:
    """Raise SiteRefused unless the site is known and not disabled; inside `for_site`."""
    match await connection.fetchval("SELECT is_disabled FROM site WHERE name = $1", site):
        case None:
            raise unknown_site(site)
        case True:
            raise disabled_site(site)


def _opening(site: str, timeout_seconds: float) -> str:
    """The script that begins a transaction for this site. Raises SiteRefused if it can be no site's name."""
    if not _SITE.fullmatch(site):
        raise SiteRefused("site_unknown", "the centre knows no site of this name; correct `site` in the settings")
    return _OPENING.format(site=site, timeout_ms=int(timeout_seconds * 1000))
