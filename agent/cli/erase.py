"""`edge-agent erase`: takes a person out of everything that this site keeps, and tells the centre."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.faults import CommandFailed, ExitCode, NotRunning
from agent.cli.output import AsJson, counted, moment, note, say, say_json, table, zone
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load, load_to_look
from agent.cli.who import who

if TYPE_CHECKING:
    from config.settings import Settings

_ANSWER_SECONDS: Final = 600.0  # between two words of progress
Progress = dict[str, Any]  # Any: JSON


def erase(
    *,
    caller: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Whose; - reads it from stdin, so that no history has it.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Only from this tenant's calls.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Tell who erased when, and how much.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Erase a person: numbers, names, what was said and done, and what the journal holds.

    The number is found in every way it can be written. Its calls stay as empty rows, so that counts stay true, and
    are sent to the centre so. It works while the agent runs and while it is stopped. The PBX's own files and
    recordings still hold the number: a salted hash of it is kept, so that reading them again brings nothing back.
    Exits with 1 if something is left for another run.
    """
    if history == (caller is not None):
        raise CommandFailed("give --caller NUMBER, or --history")
    if history:
        _tell_history(load_to_look(file), as_json=as_json)
        return
    number = sys.stdin.readline().strip() if caller == "-" else str(caller)
    settings = load_to_look(file)
    _refuse_no_number(settings, number)
    if tenant is not None and tenant not in settings.tenancy.tenants():
        note(f"edge-agent: the settings name no tenant {tenant}; only calls that were given to it before are looked at")
    asked = {"number": number, "tenant": tenant, "by": who()}

    def done(*, dry_run: bool) -> Progress:
        return _last(_steps(settings, {**asked, "dry_run": dry_run}, file_settings=lambda: load(file)))

    if not (dry_run or yes or _agreed(done(dry_run=True))):
        raise CommandFailed("nothing was erased; --yes does it without asking")
    told = done(dry_run=dry_run)
    if as_json:
        say_json(told | {"dry_run": dry_run})
    else:
        for line in _lines(told, dry_run=dry_run):
            say(line)
    if not dry_run and (told["still_live"] or not told["log_is_cut"]):
        raise typer.Exit(ExitCode.WARNING)


def _refuse_no_number(settings: "Settings", number: str) -> None:
    from agent.calls.person import Person
    from agent.daemon import number_plans

    try:
        person = Person(number, number_plans(settings))
    except ValueError as exc:
        raise CommandFailed(str(exc)) from None
    if not person.is_public:
        note("edge-agent: by the settings' country this is no public number; it is looked for just as it is written")


def _agreed(told: Progress) -> bool:
    for line in _lines(told, dry_run=True):
        note(line)
    return sys.stdin.isatty() and typer.confirm("Erase all of it? This cannot be undone", err=True)


def _last(steps: Iterable[Progress]) -> Progress:
    told: Progress = {}
    for step in steps:
        told = {**({"live_store": told["live_store"]} if "live_store" in told else {}), **step}
    if "error" in told:
        raise CommandFailed(f"{told['error']}; what is gone until then stays gone, begin again to go on")
    if not told.get("done"):
        raise CommandFailed("the agent broke off; what is gone until then stays gone, begin again to go on")
    return told


def _steps(settings: "Settings", asked: Progress, *, file_settings: Callable[[], "Settings"]) -> Iterator[Progress]:
    from agent.cli.client import RunningAgent

    agent = RunningAgent(settings.socket_file, timeout=_ANSWER_SECONDS)
    try:
        yield from agent.follow_told("/v1/erase", json.dumps(asked).encode())
    except NotRunning:
        import asyncio

        yield from asyncio.run(_without_agent(file_settings(), **asked))


async def _without_agent(
    settings: "Settings", *, number: str, tenant: str | None, by: str, dry_run: bool
) -> list[Progress]:
    """Holding the database meanwhile."""
    from agent.calls.person import Person
    from agent.cli.local import database_of
    from agent.daemon import number_plans
    from agent.store.engine import open_store
    from agent.store.erasing import Erasing, live_calls
    from agent.store.writer import Writer

    async with open_store(database_of(settings)) as store:
        live = await store.reader.run(live_calls)
        erasing = Erasing(
            Person(number, number_plans(settings)),
            store=store,
            writer=await Writer.over(store.connection),
            tenant=tenant,
            by=by,
            live=lambda _: live,
            dry_run=dry_run,
        )
        return [progress.as_dict() async for progress in erasing.run()]


def _lines(told: Progress, *, dry_run: bool) -> Iterator[str]:
    would = "would be " if dry_run else ""
    yield f"{counted(told['looked_at'], 'call')} looked at"
    yield f"{counted(told['calls'], 'call')} {would}emptied and kept as empty rows"
    yield f"{counted(told['mentions'], 'call')} of others in which the number was named: {would}marked there"
    yield f"{counted(told['frames'], 'frame')} of the journal {would}taken out"
    yield f"{counted(told['rejects'], 'line')} of sources that were no record {would}taken out"
    if told["journal_kept"]:
        yield "The journal stays until it is pruned (store.journal_keep_hours): others' calls bear the number too"
    if told["still_live"]:
        yield f"{counted(told['still_live'], 'call')} that may bear the number go on: run this again after their end"
    if told["damaged"]:
        yield f"{counted(told['damaged'], 'segment')} of the journal cannot be read; they are pruned by age"
    if told.get("live_store"):
        yield f"{told['live_store']}: contexts of ended calls vanish there by themselves (live.grace_seconds)"
    if not dry_run and not told["log_is_cut"]:
        yield "Somebody reads the database, so its log could not be cut: run this again, nothing else is left to do"


def _tell_history(settings: "Settings", *, as_json: bool) -> None:
    from agent.cli.local import LocalCalls
    from agent.store import erasures

    with LocalCalls.of(settings) as calls:
        found = erasures.history(calls.connection)
    if as_json:
        say_json([each.as_dict() for each in found])
        return
    if not found:
        say("Nobody was erased.")
        return
    headings = (f"AT {zone()}", "BY", "TENANT", "CALLS", "NAMED IN", "FRAMES", "NUMBER (HASH)", "")
    rows = [
        (
            moment(each.at),
            each.by,
            each.tenant or "(all)",
            str(each.calls),
            str(each.mentions),
            str(each.frames),
            each.hash,
            "" if each.is_complete else "broken off: run it again",
        )
        for each in found
    ]
    for line in table(headings, rows):
        say(line)
