"""`edge-hub`: the centre's command line."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from pydantic import TypeAdapter, ValidationError

from config.settings import PlainName
from sync.central.connection import CentralAddress
from sync.central.migrate import migrate as migrate_database
from sync.errors import SyncError
from sync.hub import registry

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

Answer = TypeVar("Answer")
Dsn = Annotated[
    str | None,
    typer.Option(envvar="SENTIRIC_HUB_DSN", help="The central database: postgresql://user@host:5432/database"),
]
DsnFile = Annotated[Path | None, typer.Option(help="A file that holds the DSN.")]
PasswordFile = Annotated[Path | None, typer.Option(help="A file that holds the database user's password.")]
TlsCaFile = Annotated[Path | None, typer.Option(help="The CA that the database's certificate must come from.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
TenantName = Annotated[str, typer.Argument(metavar="NAME")]


class _Misuse(SyncError):
    """The command line asks for what cannot be done; the text says what to write instead."""


@app.command()
def migrate(
    dsn: Dsn = None, dsn_file: DsnFile = None, password_file: PasswordFile = None, tls_ca_file: TlsCaFile = None
) -> None:
    """Make the central tables, or bring them up to date."""
    address = _address(dsn, dsn_file, password_file, tls_ca_file)
    revision = _run(migrate_database(address))
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
    found = _run(registry.read_status(_address(dsn, dsn_file, password_file, tls_ca_file)))
    if as_json:
        _print_json(asdict(found))
        return
    _print_table(
        ("SITE", "AGENT", "LAST SEEN", "HIGH WATER"),
        [(site.name, site.agent_version or "-", _ago(site.last_seen_at), str(site.high_water)) for site in found.sites],
        if_empty="No site has sent anything yet.",
    )
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
    try:
        TypeAdapter(PlainName).validate_python(name)
    except ValidationError as exc:
        raise _Misuse(
            f"{name!r} cannot be a tenant's name: {exc.errors()[0]['msg'].removeprefix('Value error, ')}"
        ) from None
    _run(registry.add_tenant(_address(dsn, dsn_file, password_file, tls_ca_file), name))
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
    _run(registry.deactivate_tenant(_address(dsn, dsn_file, password_file, tls_ca_file), name))
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
    found = _run(registry.read_tenants(_address(dsn, dsn_file, password_file, tls_ca_file)))
    if as_json:
        _print_json([asdict(tenant) for tenant in found])
    else:
        _print_tenants(found)


def main() -> None:
    """Run the command line; the world's faults end it with one sentence and exit code 2."""
    try:
        app()
    except SyncError as exc:
        typer.echo(f"edge-hub: {exc}", err=True)
        sys.exit(ERROR)


def _address(
    dsn: str | None, dsn_file: Path | None, password_file: Path | None, tls_ca_file: Path | None
) -> CentralAddress:
    if dsn_file is not None:
        try:
            dsn = dsn_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8 text"
            raise _Misuse(f"cannot read the DSN file {dsn_file}: {why}") from None
    if not dsn:
        raise _Misuse("name the central database with --dsn, --dsn-file or in SENTIRIC_HUB_DSN")
    return CentralAddress(dsn, password_file=password_file, tls_ca_file=tls_ca_file)


def _run(work: Coroutine[Any, Any, Answer]) -> Answer:  # Any: what a coroutine is sent and yields
    return asyncio.run(work)


def _print_tenants(found: Sequence[registry.TenantStatus]) -> None:
    _print_table(
        ("TENANT", "STATE", "CALLS", "LAST CALL"),
        [
            (
                tenant.name,
                "active" if tenant.is_active else "inactive",
                str(tenant.calls),
                _ago(tenant.last_call_at) if tenant.last_call_at else "-",
            )
            for tenant in found
        ],
        if_empty="There is no tenant yet; add one with `edge-hub tenants add NAME`.",
    )


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, if_empty: str) -> None:
    if not rows:
        typer.echo(if_empty)
        return
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, default=_moment_as_text, ensure_ascii=False, indent=2))


def _moment_as_text(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} has no JSON form")
    return value.astimezone(UTC).isoformat()


def _ago(moment: datetime) -> str:
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {word} ago"
    return f"{max(seconds, 0)} s ago"
