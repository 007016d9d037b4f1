"""`edge-agent backup`, `restore` and `salvage`: copies of the local database, and what is left of a damaged one."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.faults import CommandFailed, ExitCode
from agent.cli.output import AsJson, moment, note, say, say_json, size, table
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from config.settings import Settings


def back_up(
    *,
    target: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="Where to, in place of what is there; else a new file in store.backup_directory."
        ),
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Show the backups there are, the latest last.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Copy the local database, whether the agent runs or not; the copy is checked and one file.

    Capture does not wait for it. The copy holds personal data, and is readable by its owner only. What is made here no
    clock removes; with store.backup_every_hours the running agent makes others by itself.
    """
    settings = load_to_look(file)
    if list_only:
        if target is not None:
            raise CommandFailed("--list takes no file; it shows what is in store.backup_directory")
        _list(settings, as_json=as_json)
        return
    from agent.store import backup
    from agent.store.backup_files import named_by_hand

    database = settings.database_file.absolute()
    if target is not None and not target.absolute().parent.is_dir():
        raise CommandFailed(f"there is no directory {target.parent}; make it, or mount what belongs there")
    target = (target or settings.backup_directory / named_by_hand(datetime.now(UTC))).absolute()
    if target == database:
        raise CommandFailed("this is the database itself; name another file")
    count = backup.back_up(database, target)
    if as_json:
        say_json({"file": str(target), "bytes": count})
    else:
        say(f"{target}: {count / 1e6:.1f} MB, checked")


def _list(settings: "Settings", *, as_json: bool) -> None:
    from agent.store.backup_files import all_in

    try:
        found = all_in(settings.backup_directory.absolute(), settings.site)
    except FileNotFoundError:
        found = []
    except OSError as exc:
        raise CommandFailed(f"{settings.backup_directory} cannot be looked at: {exc.strerror or exc}") from exc
    if as_json:
        say_json([
            {"file": str(one.path), "at": one.at, "bytes": one.size, "made_by": "clock" if one.is_scheduled else "hand"}
            for one in found
        ])  # fmt: skip
        return
    if not found:
        note(f"there is no backup in {settings.backup_directory}")
        return
    rows = [(moment(one.at), size(one.size), "clock" if one.is_scheduled else "hand", str(one.path)) for one in found]
    for line in table(("made", "size", "by", "file"), rows):
        say(line)


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
    if settings.central is not None:
        say(
            "if `edge-agent status` then says that another installation speaks for this site: "
            f"`edge-hub sites release {settings.site}` at the centre"
        )


def salvage(
    *,
    damaged: Annotated[Path | None, typer.Argument(metavar="FILE", help="Else the agent's own database.")] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A new file; without it the agent's own database is replaced and kept aside."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the agent's database even if nothing is found damaged.")
    ] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Read what can be read of a damaged database into a new one, unsent calls first, and list what is lost.

    Without --into the agent must be stopped, and a database in which nothing is found damaged stays as it is, unless
    --force is given. --into never changes the database, so it needs no --force. Exits with 1 if something is known to
    be lost.
    """
    from agent.store.rescue import rescue, rescue_if_damaged
    from agent.store.salvage import salvage as read_into

    database = load_to_look(file).database_file.absolute()
    if into is None:
        if damaged is not None:
            raise CommandFailed("name the new file with --into")
        done = rescue(database) if force else rescue_if_damaged(database)
        if done is None:
            _tell_sound(database, as_json=as_json)
            return
        result, places = done.result, {"damaged": str(done.aside), "report": str(done.report)}
    else:
        if force:
            raise CommandFailed("--into leaves the database as it is, so there is nothing to force")
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


def _tell_sound(database: Path, *, as_json: bool) -> None:
    if as_json:
        say_json({"database": str(database), "is_damaged": False})
    else:
        say(f"nothing is damaged; nothing was changed ({database}; --force salvages it nevertheless)")
