"""Database users of those who come without a hub: one per site in direct mode, one per reader of a tenant.

A password is made here and PostgreSQL is told its SCRAM verifier only, so that it stands in no log of statements.
"""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from datetime import datetime

import asyncpg

from sync.central.guard import READER, SITE
from sync.central.sites import CannotDo, note, tenant_names

_ITERATIONS = 4096  # PostgreSQL's own number

_END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"
_BIND = "INSERT INTO bound_role (role, site, tenant_id) VALUES ($1, $2, $3)"


@dataclass(frozen=True, slots=True)
class NewLogin:
    """A database user and its password. `sql` makes it, and holds nothing that would have to be kept secret."""

    role: str
    password: str = field(repr=False)
    sql: str


@dataclass(frozen=True, slots=True)
class Reader:
    """A database user that sees one tenant's calls."""

    role: str
    tenant: str
    bound_at: datetime


def new_site_login(role: str) -> NewLogin:
    """One for a site; it exists once its SQL was run."""
    return _new_login(role, SITE)


def new_reader_login(role: str) -> NewLogin:
    """One for a reader."""
    return _new_login(role, READER)


async def bind_site(connection: asyncpg.Connection, login: NewLogin, site: str, *, make_role: bool, who: str) -> None:
    """Let this database user speak for the site and for no other. Raises CannotDo."""
    async with connection.transaction():
        await _bind(connection, login, site=site, tenant_id=None, make_role=make_role)
        await note(connection, who, "database user", site, login.role)


async def bind_reader(
    connection: asyncpg.Connection, login: NewLogin, tenant: str, *, make_role: bool, who: str
) -> None:
    """Let this database user see the tenant's calls and no other. Raises CannotDo."""
    async with connection.transaction():
        tenant_id = await connection.fetchval("SELECT id FROM tenant WHERE name = $1", tenant)
        if tenant_id is None:
            raise CannotDo(f"the centre knows no tenant {tenant!r}; there are: {await tenant_names(connection)}")
        await _bind(connection, login, site=None, tenant_id=tenant_id, make_role=make_role)
        await note(connection, who, "reader added", None, f"{login.role} of {tenant}")


async def new_password(connection: asyncpg.Connection, role: str, *, site: str, who: str) -> str:
    """Give a site's database user another password, with which it may log in; make the user if the database was
    restored on a server that has none. Raises CannotDo."""
    login = new_site_login(role)
    sql, by_hand = login.sql, f"CREATE ROLE {quoted(role)} LOGIN IN ROLE {SITE}"
    if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        sql = f"ALTER ROLE {quoted(role)} LOGIN PASSWORD '{scram_verifier(login.password)}'"
        by_hand = f"ALTER ROLE {quoted(role)} LOGIN"
    async with connection.transaction():
        await _run(connection, sql, instead=f"an administrator can set a new password: {by_hand}, then \\password")
        await note(connection, who, "rotated", site, role)
    return login.password


async def lock_out(connection: asyncpg.Connection, role: str) -> None:
    """Let a database user log in no more, and end its sessions, until it has a new password. Raises CannotDo."""
    lock = f"ALTER ROLE {quoted(role)} NOLOGIN"
    await _run(
        connection,
        lock,
        instead=f"`edge-hub sites disable` keeps the site out at once, an administrator of the server can run {lock}",
    )
    try:
        async with connection.transaction():
            await connection.execute(_END_SESSIONS, role)
    except asyncpg.InsufficientPrivilegeError:
        # Whoever made a role may become a member of it, and members may end its sessions.
        await connection.execute(f"GRANT {quoted(role)} TO CURRENT_USER")
        await connection.execute(_END_SESSIONS, role)
        await connection.execute(f"REVOKE {quoted(role)} FROM CURRENT_USER")


async def read_readers(connection: asyncpg.Connection) -> tuple[Reader, ...]:
    """All readers by name."""
    rows = await connection.fetch(
        "SELECT role, tenant.name, bound_at FROM bound_role JOIN tenant ON tenant.id = tenant_id ORDER BY role"
    )
    return tuple(Reader(*row) for row in rows)


async def remove_reader(connection: asyncpg.Connection, role: str, *, who: str) -> None:
    """Take a reader's database user away. Raises CannotDo."""
    async with connection.transaction():
        done = await connection.execute("DELETE FROM bound_role WHERE role = $1 AND site IS NULL", role)
        if done == "DELETE 0":
            names = ", ".join(reader.role for reader in await read_readers(connection)) or "none yet"
            raise CannotDo(f"there is no reader {role!r}; there are: {names}")
        drop = f"DROP ROLE IF EXISTS {quoted(role)}"
        await _run(connection, drop, instead=f"let an administrator of the server run {drop} first")
        await note(connection, who, "reader removed", None, role)


async def role_of(connection: asyncpg.Connection, site: str) -> str | None:
    """The database user that is bound to a site, if any."""
    found: str | None = await connection.fetchval("SELECT role FROM bound_role WHERE site = $1", site)
    return found


def scram_verifier(password: str) -> str:
    """What PostgreSQL keeps of a password (RFC 5803)."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_text, client_text, server_text = (base64.b64encode(part).decode() for part in (salt, client, server))
    return f"SCRAM-SHA-256${_ITERATIONS}:{salt_text}${client_text}:{server_text}"


def quoted(name: str) -> str:
    """A name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def _new_login(role: str, group: str) -> NewLogin:
    password = secrets.token_urlsafe(24)
    sql = f"CREATE ROLE {quoted(role)} LOGIN PASSWORD '{scram_verifier(password)}' IN ROLE {group}"
    return NewLogin(role, password, sql)


async def _bind(
    connection: asyncpg.Connection, login: NewLogin, *, site: str | None, tenant_id: int | None, make_role: bool
) -> None:
    try:
        async with connection.transaction():
            await connection.execute(_BIND, login.role, site, tenant_id)
    except asyncpg.UniqueViolationError:
        raise CannotDo(f"the database user {login.role!r}, or one of this site, is bound already") from None
    if make_role:
        await _run(connection, login.sql, instead="with --print-sql an administrator of the server can do it")


async def _run(connection: asyncpg.Connection, sql: str, *, instead: str) -> None:
    try:
        await connection.execute(sql)
    except asyncpg.InsufficientPrivilegeError:
        raise CannotDo(f"this database user may not make or change others; {instead}") from None
    except asyncpg.DuplicateObjectError:
        raise CannotDo("the server has a database user of that name already; choose another with --role") from None
    except asyncpg.UndefinedObjectError:
        raise CannotDo("the server has no database user of that name any more") from None
