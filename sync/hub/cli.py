"""`edge-hub`: the centre's command line."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from sync.central.migrate import migrate as migrate_database
from sync.errors import SyncError
from sync.hub import readers_cli, registry, serve_cli, sites_cli
from sync.hub.options import (
    AsJson,
    Dsn,
    DsnFile,
    PasswordFile,
    TlsCaFile,
    address_of,
    ago,
    plain,
    print_json,
    print_table,
    run,
)

ERROR = 2

app = typer.Typer(
    help="The centre of the Sentiric Edge Agents: its database, tenants and sites.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help, as the agent's
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
tenants = typer.Typer(help="Whose calls the centre takes.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(tenants, name="tenants")
app.add_typer(sites_cli.app, name="sites")
app.add_typer(readers_cli.app, name="readers")
app.command()(serve_cli.serve)
app.command()(serve_cli.dev)

TenantName = Annotated[str, typer.Argument(metavar="NAME")]


@app.command()
def migrate(
    dsn: Dsn = None, dsn_file: DsnFile = None, password_file: PasswordFile = None, tls_ca_file: TlsCaFile = None
) -> None:
    """Make the central tables, or bring them up to date."""
    address = address_of(dsn, dsn_file, password_file, tls_ca_file)
    revision = run(migrate_database(address))
    typer.echo(f"{address.label} is at revision {revision}.")


@app.command()
def status(
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the sites, when each was last heard of, and each tenant's calls."""
    found = run(registry.read_status(address_of(dsn, dsn_file, password_file, tls_ca_file)))
    if as_json:
        print_json(asdict(found))
        return
    print_table(
        ("SITE", "AGENT", "LAST SEEN", "ON", "HIGH WATER", "RECEIPTS"),
        [
            (
                site.name,
                site.agent_version or "-",
                ("disabled, " if site.is_disabled else "") + (ago(site.last_seen_at) if site.last_seen_at else "never"),
                sites_cli.holder_of(site),
                str(site.high_water),
                str(site.receipts),
            )
            for site in found.sites
        ],
        if_empty="There is no site yet; add one with `edge-hub sites add NAME --tenant TENANT`.",
    )
    refused = [told for site in found.sites if (told := sites_cli.refusal_of(site)) is not None]
    if refused:
        typer.echo("\nSent away last:")
        for told in refused:
            typer.echo(f"  {plain(told)}")
    typer.echo()
    _print_tenants(found.tenants)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("sentiric-edge-agent"))


@tenants.command("add")
def add_tenant(
    name: TenantName,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Take calls of this tenant from now on, also if it was deactivated before."""
    sites_cli.plain_name(name, "a tenant's name")
    run(registry.add_tenant(address_of(dsn, dsn_file, password_file, tls_ca_file), name))
    typer.echo(f"Tenant {name} is active.")


@tenants.command("deactivate")
def deactivate_tenant(
    name: TenantName,
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
) -> None:
    """Take no more calls of this tenant; those it has stay."""
    run(registry.deactivate_tenant(address_of(dsn, dsn_file, password_file, tls_ca_file), name))
    typer.echo(f"Tenant {name} is not active any more.")


@tenants.command("list")
def list_tenants(
    dsn: Dsn = None,
    dsn_file: DsnFile = None,
    password_file: PasswordFile = None,
    tls_ca_file: TlsCaFile = None,
    as_json: AsJson = False,
) -> None:
    """List the tenants and their calls."""
    found = run(registry.read_tenants(address_of(dsn, dsn_file, password_file, tls_ca_file)))
    if as_json:
        print_json([asdict(tenant) for tenant in found])
    else:
        _print_tenants(found)


def main() -> None:
    """Run the command line; the world's faults end it with one sentence and exit code 2."""
    try:
        app()
    except SyncError as exc:
        typer.echo(f"edge-hub: {exc}", err=True)
        sys.exit(ERROR)


def _print_tenants(found: Sequence[registry.TenantStatus]) -> None:
    print_table(
        ("TENANT", "STATE", "CALLS", "LAST CALL"),
        [
            (
                tenant.name,
                "active" if tenant.is_active else "inactive",
                str(tenant.calls),
                ago(tenant.last_call_at) if tenant.last_call_at else "-",
            )
            for tenant in found
        ],
        if_empty="There is no tenant yet; add one with `edge-hub tenants add NAME`.",
    )
