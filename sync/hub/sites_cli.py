"""`edge-hub sites`: which installations there are, what each may write, and how it comes in."""

import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import asyncpg
import typer
from pydantic import TypeAdapter, ValidationError

from config.settings import PlainName
from sync.central import logins, sites
from sync.central.connection import CentralAddress
from sync.hub.options import (
    AsJson,
    Dsn,
    DsnFile,
    Misuse,
    PasswordFile,
    TlsCaFile,
    address_of,
    ago,
    print_json,
    print_table,
    run,
)
from sync.hub.registry import operator, session

app = typer.Typer(help="The installations and their rights.", no_args_is_help=True, rich_markup_mode=None)

Answer = TypeVar("Answer")
SiteName = Annotated[str, typer.Argument(metavar="NAME", help="The site, as `site` in its agent's settings.")]
Tenants = Annotated[list[str], typer.Option("--tenant", help="A tenant whose calls it may write; may be repeated.")]
Role = Annotated[str | None, typer.Option("--role", help="Name of the database user; by default made of the site's.")]
PrintSql = Annotated[
    bool, typer.Option("--print-sql", help="Print the SQL that makes the database user, for an administrator to run.")
]
NewPasswordFile = Annotated[
    Path | None, typer.Option("--write-password", help="Write the new password to this file instead of printing it.")
]


def plain_name(name: str, what: str) -> str:
    """The name, if it is one that settings would take. Raises Misuse."""
    try:
        return TypeAdapter(PlainName).validate_python(name)
    except ValidationError as exc:
        told = exc.errors()[0]["msg"].removeprefix("Value error, ")
        raise Misuse(f"{name!r} cannot be {what}: {told}") from None


def at_the_centre(address: CentralAddress, work: Callable[[asyncpg.Connection], Awaitable[Answer]]) -> Answer:
    """Do this on a connection to the central database."""

    async def done() -> Answer:
        async with session(address) as connection:
            return await work(connection)

    return run(done())


def hand_over(login: logins.NewLogin, *, print_sql: bool, password_file: Path | None) -> None:
    """Give the operator the new database user's password, once, and the SQL if wished."""
    if print_sql:
        typer.echo(f"{login.sql};")
    hand_over_password(login.role, login.password, password_file)


def hand_over_password(role: str, password: str, file: Path | None) -> None:
    """Give the operator a password, once: on the screen or in a file that only its owner reads."""
    if file is None:
        typer.echo(f"Database user {role}, password (shown only now): {password}", err=True)
    else:
        write_secret(file, password)
        typer.echo(f"Database user {role}; its password is in {file}.", err=True)


def write_secret(file: Path, secret: str) -> None:
    """A new file for its owner alone. Raises Misuse."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
            out.write(secret + "\n")
    except OSError as exc:
        raise Misuse(f"cannot write the password to {file}: {exc.strerror}") from None


def check_new_file(file: Path | None) -> None:
    """Raise Misuse before anything is done for a password that could not be handed over."""
    if file is not None and (file.exists() or not file.parent.is_dir()):
        raise Misuse(f"cannot write the password to {file}: it exists, or its directory does not")


@app.command("add")
def add(
    name: SiteName,
    *,
    tenant: Tenants = [],  # noqa: B006 - typer's way to say that an option may be repeated
    direct: Annotated[
        bool, typer.Option("--direct", help="It comes into this database itself, without a hub: make it a user.")
    ] = False,
    role: Role = None,
    print_sql: PrintSql = False,
    write_password: NewPasswordFile = None,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Make a site known: prints its enrolment code, or with --direct its database user."""
    plain_name(name, "a site's name")
    check_new_file(write_password)
    if not direct and (role or print_sql or write_password):
        raise Misuse("--role, --print-sql and --write-password go with --direct")
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    who = operator()

    async def added_directly(connection: asyncpg.Connection) -> logins.NewLogin:
        login = logins.new_site_login(role or f"sentiric-{name}"[:63])
        async with connection.transaction():
            if not await _is_known(connection, name):
                await sites.add_site(connection, name, tenant, who=who)
            else:
                for one in tenant:
                    await sites.grant(connection, name, one, who=who)
            await logins.bind_site(connection, login, name, make_role=not print_sql, who=who)
        return login

    async def added(connection: asyncpg.Connection) -> str:
        async with connection.transaction():
            await sites.add_site(connection, name, tenant, who=who)
            return await sites.new_code(connection, name, who=who)

    if direct:
        hand_over(at_the_centre(address, added_directly), print_sql=print_sql, password_file=write_password)
        typer.echo(f"Site {name} may write {_for(tenant)}.", err=True)
    else:
        _print_code(at_the_centre(address, added), name)


@app.command("list")
def list_sites(
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
    as_json: AsJson = False,
) -> None:
    """List the sites: what each may write, how it comes in, who speaks for it."""
    found = at_the_centre(address_of(dsn, dsn_file, password_file, tls_ca_file), sites.read_sites)
    if as_json:
        print_json([asdict(site) for site in found])
        return
    print_table(
        ("SITE", "STATE", "DOOR", "TENANTS", "ADDED"),
        [
            (
                site.name,
                "disabled" if site.is_disabled else "enabled",
                door_of(site),
                ", ".join(site.tenants) or "-",
                ago(site.added_at),
            )
            for site in found
        ],
        if_empty="There is no site yet; add one with `edge-hub sites add NAME --tenant TENANT`.",
    )


@app.command("code")
def code(
    name: SiteName,
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Make a new enrolment code for a site, for a machine that is to take it up."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    _print_code(at_the_centre(address, lambda connection: sites.new_code(connection, name, who=operator())), name)


@app.command("grant")
def grant(
    name: SiteName,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Let a site write for a tenant."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    at_the_centre(address, lambda connection: sites.grant(connection, name, tenant, who=operator()))
    typer.echo(f"Site {name} may write for {tenant}.")


@app.command("ungrant")
def ungrant(
    name: SiteName,
    tenant: Annotated[str, typer.Argument(metavar="TENANT")],
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Take no more calls of a tenant from a site; those it sent stay."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    at_the_centre(address, lambda connection: sites.ungrant(connection, name, tenant, who=operator()))
    typer.echo(f"Site {name} may not write for {tenant} any more.")


@app.command("disable")
def disable(
    name: SiteName,
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Refuse a site as a whole; its agent keeps its calls and waits."""
    _set_disabled(address_of(dsn, dsn_file, password_file, tls_ca_file), name, is_disabled=True)
    typer.echo(f"Site {name} is disabled.")


@app.command("enable")
def enable(
    name: SiteName,
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Let a disabled site in again."""
    _set_disabled(address_of(dsn, dsn_file, password_file, tls_ca_file), name, is_disabled=False)
    typer.echo(f"Site {name} is enabled.")


@app.command("rotate")
def rotate(
    name: SiteName,
    *,
    within: Annotated[float, typer.Option(min=0, help="Hours for which the present credential still works.")] = 168,
    write_password: NewPasswordFile = None,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Give a site another secret: a new code while the old credential still works, or a new database password."""
    check_new_file(write_password)
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    who = operator()

    async def rotated(connection: asyncpg.Connection) -> tuple[str | None, str]:
        async with connection.transaction():
            role = await logins.role_of(connection, name)
            if role is not None:
                return role, await logins.new_password(connection, role, site=name, who=who)
            await sites.expire(connection, name, timedelta(hours=within), who=who)
            return None, await sites.new_code(connection, name, who=who)

    role, secret = at_the_centre(address, rotated)
    if role is not None:
        hand_over_password(role, secret, write_password)
    else:
        _print_code(secret, name)
        typer.echo(f"The present credential ends in {within:g} h, or when the code is used.", err=True)


@app.command("revoke")
def revoke(
    name: SiteName,
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Take a site's credential and codes away, now; of a direct site, the log-in."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    who = operator()

    async def revoked(connection: asyncpg.Connection) -> str | None:
        async with connection.transaction():
            await sites.revoke(connection, name, who=who)
            role = await logins.role_of(connection, name)
            if role is not None:
                await logins.lock_out(connection, role)
            return role

    command = "code" if at_the_centre(address, revoked) is None else "rotate"
    typer.echo(f"Site {name} has no way in any more; `edge-hub sites {command} {name}` makes a new one.")


@app.command("release")
def release(
    name: SiteName,
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Let the installation that greets next speak for the site: after a machine was replaced, or a copy took over."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    host = at_the_centre(address, lambda connection: sites.release(connection, name, who=operator()))
    typer.echo(f"Site {name} is free; {host or 'nobody'} spoke for it. The next installation that greets takes it.")


@app.command("log")
def log(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only of this site.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show who did what here, the newest first."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    found = at_the_centre(address, lambda connection: sites.read_audit(connection, name, limit))
    if as_json:
        print_json([asdict(line) for line in found])
        return
    print_table(
        ("AT (UTC)", "WHO", "WHAT", "SITE", "DETAIL"),
        [
            (f"{line.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}", line.who, line.what, line.site or "-", line.detail or "")
            for line in found
        ],
        if_empty="Nothing was done yet.",
    )


def door_of(site: sites.SiteStatus) -> str:
    """How a site comes in, in words."""
    if site.database_user is not None:
        return f"direct, as {site.database_user}"
    if site.has_credential and site.credential_expires_at is not None:
        return f"hub, until {site.credential_expires_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if site.has_credential:
        return "hub"
    return "code not used yet" if site.code_expires_at is not None else "none"


def holder_of(site: sites.SiteStatus) -> str:
    """Which machine speaks for a site, in words."""
    if site.lease_until is None:
        return "-"
    is_fresh = site.lease_until > datetime.now(UTC)
    return f"{site.holder_host or '?'}{'' if is_fresh else ' (silent)'}"


def refusal_of(site: sites.SiteStatus) -> str | None:
    """Who was sent away last, in words, if anybody was."""
    if site.refused_at is None:
        return None
    what = {
        "held": "a second installation while the first was there",
        "fenced": "an installation that had been replaced, perhaps a copy",
        "credential_revoked": "a revoked credential",
        "credential_expired": "an expired credential",
    }.get(site.refused_why or "", site.refused_why or "?")
    on = f" on {site.refused_host}" if site.refused_host else ""
    return f"{site.name}: {what}{on}, {ago(site.refused_at)}"


def _set_disabled(address: CentralAddress, name: str, *, is_disabled: bool) -> None:
    at_the_centre(
        address, lambda connection: sites.set_disabled(connection, name, is_disabled=is_disabled, who=operator())
    )


async def _is_known(connection: asyncpg.Connection, name: str) -> bool:
    known: Any = await connection.fetchval("SELECT 1 FROM site WHERE name = $1", name)  # Any: a value of SQL
    return known is not None


def _print_code(code: str, site: str) -> None:
    typer.echo(code)
    typer.echo(f"Works once, for 24 hours: on the machine of site {site} run `edge-agent enroll URL CODE`.", err=True)


def _for(tenants: list[str]) -> str:
    return f"for {', '.join(tenants)}" if tenants else "for nobody yet; grant it a tenant with `edge-hub sites grant`"
