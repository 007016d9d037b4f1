"""`edge-agent backup`, `restore` and `salvage`: copies of the local database, and what is left of a damaged one."""

import json
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.faults import CommandFailed, ExitCode
from agent.cli.output import AsJson, say, say_json
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look


def back_up(
    *,
    target: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="Where to; else a new file in backups/ beside the database.")
    ] = None,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Copy the local database, whether the agent runs or not; the copy is checked and one file.

    Capture does not wait for it. The copy holds personal data, and is readable by its owner only.
    """
    from agent.store import backup

    database = load_to_look(file).database_file.absolute()
    target = (target or backup.usual_backup_file(database)).absolute()
    if target == database:
        raise CommandFailed("this is the database itself; name another file")
    size = backup.back_up(database, target)
    if as_json:
        say_json({"file": str(target), "bytes": size})
    else:
        say(f"{target}: {size / 1e6:.1f} MB, checked")


def restore(
    *,
    backup: Annotated[Path, typer.Argument(metavar="FILE", help="A backup of this site's database.")],
    file: ConfigFile = DEFAULT_FILE,
) -> None:
    """Put a backup in the database's place; the agent must be stopped. The present database is kept aside.

    Calls since the backup are still at the centre, as far as they were sent, and in the file that is kept aside. CDR
    and CEL sources are read again from where the backup stood. Who was erased since then has to be erased again.
    """
    from agent.store.backup import restore as put_back

    settings = load_to_look(file)
    aside = put_back(backup.absolute(), settings.database_file.absolute(), site=settings.site)
    say(f"{settings.database_file} is now {backup}")
    if aside is not None:
        say(f"what was there before is kept as {aside}")


def salvage(
    *,
    damaged: Annotated[Path | None, typer.Argument(metavar="FILE", help="Else the agent's own database.")] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A new file; without it the agent's own database is replaced and kept aside."
        ),
    ] = None,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Read what can be read of a damaged database into a new one, unsent calls first, and list what is lost.

    Without --into the agent must be stopped. Exits with 1 if something is known to be lost.
    """
    from agent.store.rescue import rescue
    from agent.store.salvage import salvage as read_into

    database = load_to_look(file).database_file.absolute()
    if into is None:
        if damaged is not None:
            raise CommandFailed("name the new file with --into")
        done = rescue(database)
        result, places = done.result, {"damaged": str(done.aside), "report": str(done.report)}
    else:
        if into.exists():
            raise CommandFailed(f"{into} exists already; name a new file")
        result, places = read_into((damaged or database).absolute(), into.absolute()), {"into": str(into)}
    told = result.as_dict() | places
    if as_json:
        say_json(told)
    else:
        for name, value in told.items():
            say(f"{name}: {value if isinstance(value, str | int) else json.dumps(value)}")
    if result.has_losses:
        raise typer.Exit(ExitCode.WARNING)
