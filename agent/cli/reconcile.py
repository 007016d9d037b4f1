"""`edge-agent reconcile`: whether site and centre hold the same calls, day by day."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.faults import CommandFailed, ExitCode, NotRunning
from agent.cli.output import AsJson, counted, say, say_json, table
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load, load_to_look

if TYPE_CHECKING:
    from agent.store.tally import SqliteTally
    from config.settings import Settings

_ANSWER_SECONDS: Final = 600.0  # between two days that differ; a month of a large site takes less
_SHOWN: Final = 10
_WORDS: Final = {
    "missing": "not at the centre",
    "older": "older at the centre",
    "newer": "newer at the centre",
    "unknown": "only at the centre",
}


def reconcile(
    *,
    day: Annotated[str | None, typer.Option("--day", metavar="DAY", help="One day, UTC: 2026-11-22.")] = None,
    since: Annotated[str | None, typer.Option("--from", metavar="DAY", help="The first day.")] = None,
    until: Annotated[str | None, typer.Option("--to", metavar="DAY", help="The last day; today if not given.")] = None,
    heal: Annotated[bool, typer.Option("--heal", help="Send again what the centre lacks.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Compare this site's calls with the centre's by count and digest, the last 31 days if none are given.

    Calls that wait to be sent or were refused are not compared. Exits with 0 if both hold the same, with 1 if not
    and nothing was healed. The agent does the same once a day by itself, and heals.
    """
    first, last = _days(day, since, until)
    settings = load_to_look(file)
    if settings.central is None:
        raise CommandFailed("the settings have no [central] section, so there is nothing to compare with")
    *days, total = _steps(settings, first, last, heal=heal, file_settings=lambda: load(file))
    if as_json:
        say_json({**total, "days": days})
    else:
        _tell(days, total, heal=heal)
    if total["differing"] and not (heal and total["resent"] >= total["missing"] + total["older"]):
        raise typer.Exit(ExitCode.WARNING)


def _days(day: str | None, since: str | None, until: str | None) -> tuple[date, date]:
    from sync.reconciler import USUAL_DAYS

    if day is not None and (since is not None or until is not None):
        raise CommandFailed("give --day, or --from and --to")
    today = datetime.now(UTC).date()
    if day is not None:
        return _day(day), _day(day)
    last = _day(until) if until is not None else today
    first = _day(since) if since is not None else last - timedelta(days=USUAL_DAYS - 1)
    if first > last:
        raise CommandFailed(f"{first} is after {last}")
    return first, last


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise CommandFailed(f"{text!r} is no day; write it as 2026-11-22") from None


def _steps(
    settings: "Settings", first: date, last: date, *, heal: bool, file_settings: Callable[[], "Settings"]
) -> list[dict[str, Any]]:
    """What differs, and at last what it all comes to; by the running agent, else here."""
    from agent.cli.client import RunningAgent

    query = {"first": first.isoformat(), "last": last.isoformat(), "heal": "true" if heal else "false"}
    try:
        steps = list(RunningAgent(settings.socket_file, timeout=_ANSWER_SECONDS).follow("/v1/reconcile", **query))
    except NotRunning:
        import asyncio

        return asyncio.run(_without_agent(file_settings(), first, last, heal=heal))
    if not steps or "error" in steps[-1]:
        raise CommandFailed(str(steps[-1]["error"]) if steps else "the agent broke off; see its log")
    return steps


async def _without_agent(settings: "Settings", first: date, last: date, *, heal: bool) -> list[dict[str, Any]]:
    from agent.daemon import make_uplink
    from sync.reconciler import Reconciler

    uplink = make_uplink(settings)
    assert uplink is not None  # noqa: S101 - there is a [central] section
    try:
        async with _tally(settings, heal=heal) as tally:
            return [step.as_dict() async for step in Reconciler(tally, uplink).run(first, last, heal=heal)]
    finally:
        await uplink.close()


@asynccontextmanager
async def _tally(settings: "Settings", *, heal: bool) -> AsyncIterator["SqliteTally"]:
    """The local calls; the database is held for writing only to heal."""
    from agent.cli.local import database_of
    from agent.store.engine import open_store
    from agent.store.tally import SqliteTally
    from agent.store.writer import Writer

    path = database_of(settings)
    if not heal:
        yield SqliteTally(path.absolute())
        return
    async with open_store(path) as store:
        yield SqliteTally(store.path, await Writer.over(store.connection))


def _tell(days: list[dict[str, Any]], total: dict[str, Any], *, heal: bool) -> None:
    span = f"{total['first']} to {total['last']}" if total["first"] != total["last"] else str(total["first"])
    if total["not_kept"]:
        days_left_out = counted(total["not_kept"], "day")
        say(f"{days_left_out} of a tenant not compared: not all of its calls are kept here any longer.")
    if not days:
        say(f"The same on both sides: {counted(total['calls'], 'call')}, {span}.")
        return
    rows = [
        (found["day"], found["tenant"], str(found["here"]), str(found["there"]), ", ".join(_counted(found)))
        for found in days
    ]
    for line in table(("DAY", "TENANT", "HERE", "CENTRE", "DIFFERENCE"), rows):
        say(line)
    examples = [(one["call_sid"], one["difference"]) for found in days for one in found["examples"]]
    for sid, kind in examples[:_SHOWN]:
        say(f"  {_WORDS[kind]}: {sid}")
    if total["differing"] > _SHOWN:
        say(f"  … {total['differing']} in all; see --json")
    lacking = total["missing"] + total["older"]
    if heal:
        say(f"{counted(total['resent'], 'call')} will be sent again.")
    elif lacking:
        say(f"{counted(lacking, 'call')} the centre lacks: --heal sends them again.")
    if total["newer"] + total["unknown"]:
        say("What only the centre knows stays as it is: this site's database is older than what it once sent.")


def _counted(found: dict[str, Any]) -> Iterator[str]:
    for kind, words in _WORDS.items():
        if found.get(kind):
            yield f"{found[kind]} {words}"
