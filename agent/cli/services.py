"""`edge-agent services …`: which programs on the machine may use the live context, and for whose calls."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.client import RunningAgent
from agent.cli.faults import CommandFailed, NotRunning
from agent.cli.output import AsJson, moment, note, say, say_json, table, zone
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from agent.store.services import Registered
    from config.settings import Settings

app = typer.Typer(
    help="Programs on this machine that may use the live context.", no_args_is_help=True, rich_markup_mode=None
)

Row = dict[str, Any]  # Any: JSON


@app.command("add")
def add_service(
    name: Annotated[str, typer.Argument(help="What to call it: lower-case letters, digits, '.', '_', '-'.")],
    *,
    tenant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A tenant whose calls it may see; again for more.")
    ] = None,
    all_tenants: Annotated[
        bool, typer.Option("--all-tenants", help="Every tenant's, and those that no tenant has yet.")
    ] = False,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may write nothing.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Let a service use the live context, and print its token, once: only a hash of it is kept."""
    from agent.store.services import Registered, Service, hash_of, new_token
    from config.settings import is_plain_name

    if bool(tenant) == all_tenants:
        raise CommandFailed("say whose calls it may see: --tenant NAME, once or more, or --all-tenants")
    for word in (name, *(tenant or ())):
        if not is_plain_name(word):
            raise CommandFailed(f"{word!r} is no name; use 1 to 63 lower-case letters, digits, '.', '_' or '-'")
    settings = load_to_look(file)
    unknown = sorted(set(tenant or ()) - settings.tenancy.tenants())
    if unknown:
        note(f"edge-agent: the settings name no tenant {', '.join(unknown)}; no call will be theirs until a rule does")
    token = new_token()
    service = Service(name, tenants=None if all_tenants else frozenset(tenant or ()), may_write=not read_only)
    new = Registered(service, token_hash=hash_of(token), added_at=datetime.now(UTC))
    _add(settings, new)
    if as_json:
        say_json(new.as_dict() | {"token": token})
        return
    say(token)


@app.command("list")
def list_services(*, file: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """List the services, whose calls they may see, and whether they may write."""
    from agent.cli.local import LocalCalls
    from agent.store import services

    with LocalCalls.of(load_to_look(file)) as calls:
        found = [each.as_dict() for each in services.read_all(calls.connection)]
    if as_json:
        say_json({"services": found})
        return
    if not found:
        say("There is none: edge-agent services add NAME --tenant TENANT")
        return
    for line in table(("NAME", "TENANTS", "MAY", f"SINCE ({zone()})"), [_row(each) for each in found]):
        say(line)


@app.command("remove")
def remove_service(name: Annotated[str, typer.Argument(help="Which one.")], *, file: ConfigFile = DEFAULT_FILE) -> None:
    """Let a service use the live context no more; a running agent refuses it at once."""
    import asyncio

    settings = load_to_look(file)
    try:
        RunningAgent(settings.socket_file).post("/v1/services/remove", name=name)
    except NotRunning:
        if not asyncio.run(_remove_without_agent(settings, name)):
            raise CommandFailed(f"there is no service {name!r}") from None
    say(f"{name} is removed; its token is worth nothing now.")


def _add(settings: "Settings", new: "Registered") -> None:
    import asyncio
    import json

    told = json.dumps(new.as_dict() | {"token_hash": new.token_hash}).encode()
    try:
        RunningAgent(settings.socket_file).tell("/v1/services/add", told)
    except NotRunning:
        if not asyncio.run(_add_without_agent(settings, new)):
            raise CommandFailed(f"there is a service {new.service.name!r} already; remove it first") from None


async def _add_without_agent(settings: "Settings", new: "Registered") -> bool:
    from functools import partial

    from agent.cli.local import database_of
    from agent.store import services
    from agent.store.engine import open_store

    async with open_store(database_of(settings)) as store:
        return await store.connection.transact(partial(services.add, new=new))


async def _remove_without_agent(settings: "Settings", name: str) -> bool:
    from functools import partial

    from agent.cli.local import database_of
    from agent.store import services
    from agent.store.engine import open_store

    async with open_store(database_of(settings)) as store:
        return await store.connection.transact(partial(services.remove, name=name))


def _row(service: Row) -> Sequence[str]:
    tenants = "all" if service["tenants"] is None else ", ".join(service["tenants"])
    may = "read and write" if service["may_write"] else "read"
    return service["name"], tenants, may, moment(datetime.fromisoformat(service["added_at"]))
