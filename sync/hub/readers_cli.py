"""`edge-hub readers`: database users that see one tenant's calls and change nothing."""

from dataclasses import asdict
from typing import Annotated

import asyncpg
import typer

from sync.central import logins
from sync.hub.options import (
    AsJson,
    Dsn,
    DsnFile,
    PasswordFile,
    TlsCaFile,
    address_of,
    ago,
    print_json,
    print_table,
)
from sync.hub.registry import operator
from sync.hub.sites_cli import NewPasswordFile, PrintSql, at_the_centre, check_new_file, hand_over, plain_name

app = typer.Typer(help="Who may read a tenant's calls.", no_args_is_help=True, rich_markup_mode=None)

ReaderName = Annotated[str, typer.Argument(metavar="NAME", help="The name of the database user.")]


@app.command("add")
def add(
    name: ReaderName,
    *,
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant whose calls it sees.")],
    print_sql: PrintSql = False,
    write_password: NewPasswordFile = None,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Make a database user that sees one tenant's calls."""
    plain_name(name, "a reader's name")
    check_new_file(write_password)
    login = logins.new_reader_login(name)

    async def added(connection: asyncpg.Connection) -> None:
        await logins.bind_reader(connection, login, tenant, make_role=not print_sql, who=operator())

    at_the_centre(address_of(dsn, dsn_file, password_file, tls_ca_file), added)
    hand_over(login, print_sql=print_sql, password_file=write_password)


@app.command("list")
def list_readers(
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
    as_json: AsJson = False,
) -> None:
    """List the readers."""
    found = at_the_centre(address_of(dsn, dsn_file, password_file, tls_ca_file), logins.read_readers)
    if as_json:
        print_json([asdict(reader) for reader in found])
        return
    print_table(
        ("READER", "TENANT", "ADDED"),
        [(reader.role, reader.tenant, ago(reader.bound_at)) for reader in found],
        if_empty="There is no reader yet; add one with `edge-hub readers add NAME --tenant TENANT`.",
    )


@app.command("remove")
def remove(
    name: ReaderName,
    *,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Take a reader's database user away."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    at_the_centre(address, lambda connection: logins.remove_reader(connection, name, who=operator()))
    typer.echo(f"Reader {name} is gone.")
