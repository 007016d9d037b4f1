"""`edge-agent gaps …`: when a PBX was not heard, why, what was found of it afterwards, and what was set aside."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.faults import CommandFailed
from agent.cli.gaps_backfill import backfill
from agent.cli.output import AsJson, counted, length, moment, printable, say, say_json, table, zone
from agent.cli.second_sources import HOW_TO_ADD
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look
from agent.cli.times import parse_moment

if TYPE_CHECKING:
    from config.settings import Settings

app = typer.Typer(help="Times in which a PBX was not heard.", no_args_is_help=True, rich_markup_mode=None)

_SHOWN: Final = 100
_RAW_SHOWN: Final = 200  # letters of a line
_WORDS: Final = {
    "line_lost": "the line broke",
    "pbx_restarted": "the PBX was stopped or restarted",
    "agent_stopped": "the agent was stopped",
    "agent_down": "the agent ended without a word",
}


app.command("backfill")(backfill)


@app.callback()
def gaps() -> None:
    """Times in which a PBX was not heard."""


@app.command("list")
def list_gaps(
    *,
    pbx: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this PBX.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Only those that ended later: 7d, today …")] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that nothing has filled.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """List when a PBX was not heard and why, the latest first, and by what these times were filled."""
    from agent.cli.local import LocalCalls

    settings = load_to_look(file)
    if pbx is not None and pbx not in {each.name for each in settings.pbx}:
        raise CommandFailed(f"no PBX of the settings is named {pbx!r}")
    now = datetime.now(UTC)
    earliest = None if since is None else parse_moment(since, now=now.astimezone())
    with LocalCalls.of(settings) as calls:
        found = calls.gaps(pbx=pbx, since=earliest, unfilled=only_open)
    for gap in found:
        gap["seconds"] = ((gap["to_at"] or now) - gap["from_at"]).total_seconds()
    if as_json:
        say_json(found)
        return
    if not found:
        say("There is no such gap.")
        return
    for line in table(
        ("ID", f"FROM ({zone()})", "TO", "LENGTH", "PBX", "WHY", "FILLED"), [_row(gap) for gap in found[:_SHOWN]]
    ):
        say(line)
    if len(found) > _SHOWN:
        say(f"… and {len(found) - _SHOWN} more; see --json")
    _tell_how_to_fill(found, settings)


@app.command("rejects")
def list_rejects(
    *,
    pbx: Annotated[str | None, typer.Option(metavar="NAME", help="Only those of this PBX.")] = None,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """List what stands in second sources and is no record, the latest first: where, why, and how it begins."""
    from agent.cli.local import LocalCalls

    settings = load_to_look(file)
    with LocalCalls.of(settings) as calls:
        found = calls.source_rejects(pbx=pbx)
    for reject in found:
        reject["raw"] = reject["raw"].decode("utf-8", "replace")
    if as_json:
        say_json(found)
        return
    if not found:
        say("Nothing was set aside.")
        return
    for reject in found[:_SHOWN]:
        say(printable(f"{moment(reject['at'])}  {reject['source']} of {reject['pbx']}, {reject['position']}"))
        say(printable(f"    {reject['reason']}"))
        say(printable(f"    {reject['raw'][:_RAW_SHOWN]}"))
    if len(found) > _SHOWN:
        say(f"… and {len(found) - _SHOWN} more; see --json")


def _row(gap: dict[str, Any]) -> tuple[str, ...]:  # Any: columns
    why = _WORDS.get(gap["reason"], gap["reason"])
    if gap["reason"] == "line_lost" and gap["detail"]:
        why = f"{why}: {gap['detail']}"
    until = moment(gap["to_at"]) if gap["to_at"] is not None else "goes on"
    return str(gap["id"]), moment(gap["from_at"]), until, length(gap["seconds"]), gap["pbx"], why, _filled(gap)


def _filled(gap: dict[str, Any]) -> str:  # Any: columns
    if gap["backfilled_at"] is None:
        return "no"
    return f"by {gap['filled_by']}, {counted(gap['calls_found'] or 0, 'call')} found"


def _tell_how_to_fill(found: list[dict[str, Any]], settings: "Settings") -> None:  # Any: columns
    with_source = {pbx.name for pbx in settings.pbx if pbx.has_second_source}
    without = sorted({gap["pbx"] for gap in found if gap["backfilled_at"] is None} - with_source)
    if not without:
        return
    say()
    names = ", ".join(without)
    say(f"The gaps of {names} cannot be filled, because no second source is configured. If Asterisk writes CDRs to a")
    say("file, add below its [[pbx]] section (CEL and others: docs/sources.md), and start the agent again:")
    say()
    for line in HOW_TO_ADD:
        say(line)
