"""`edge-agent calls …`: the calls in the local database."""

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.output import AsJson, clock, counted, moment, note, say, say_json, table, zone
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from agent.cli.local import Filter, Row

app = typer.Typer(help="List, show, export, explain and rebuild calls.", no_args_is_help=True, rich_markup_mode=None)


class ExportFormat(StrEnum):
    """How calls are exported."""

    CSV = "csv"
    JSONL = "jsonl"


class DirectionWord(StrEnum):
    """As in `sync.models`, whose import would take longer than the command."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    INTERNAL = "internal"


class StatusWord(StrEnum):
    """Statuses and dispositions."""

    COMPLETED = "completed"
    FAILED = "failed"
    ABANDONED = "abandoned"
    ANSWERED = "answered"
    NO_ANSWER = "no_answer"
    BUSY = "busy"
    CANCELLED = "cancelled"
    CONGESTION = "congestion"
    VOICEMAIL = "voicemail"


_MOMENTS = "2026-11-22, '2026-11-22 14:30', today, yesterday, 30min, 2h or 7d"
_PUBLIC_DIGITS = 7  # a number of so many digits or more is hardly an extension
Tenant = Annotated[str | None, typer.Option(help="Only this tenant's calls.")]
Unassigned = Annotated[bool, typer.Option("--unassigned", help="Only calls that no tenant rule matched.")]
Status = Annotated[StatusWord | None, typer.Option(help="Only calls that ended so: a status or a disposition.")]
Direction = Annotated[DirectionWord | None, typer.Option(help="Only calls of this direction.")]
Number = Annotated[str | None, typer.Option(help="Only calls from, to or answered by a number that ends so.")]
Since = Annotated[str | None, typer.Option(metavar="WHEN", help=f"Only calls that began then or later: {_MOMENTS}.")]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Only calls that began before.")]


@app.command("list")
def list_calls(
    *,
    tenant: Tenant = None,
    unassigned: Unassigned = False,
    status: Status = None,
    direction: Direction = None,
    number: Number = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """List ended calls, the newest first. Calls under way: edge-agent live."""
    from agent.cli.local import LocalCalls

    wanted = _filter(
        tenant=tenant,
        unassigned=unassigned,
        status=status,
        direction=direction,
        number=number,
        since=since,
        until=until,
    )
    with LocalCalls.of(load_to_look(file)) as calls:
        found = calls.newest(wanted, limit=limit + 1)
    is_cut = len(found) > limit
    del found[limit:]
    if as_json:
        say_json({"calls": found, "more": is_cut})
        return
    if not found:
        say("No such calls.")
        return
    for line in table(headings(), [call_cells(call) for call in found]):
        say(line)
    if is_cut:
        note(f"These are the newest {limit}; --limit shows more, --since and --until other times.")


@app.command("show")
def show(
    sid: Annotated[str, typer.Argument(metavar="CALL", help="The call's id or its end, if only one call's ends so.")],
    *,
    transcript: Annotated[bool, typer.Option("--transcript", help="Show what was said, and nothing else.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one call, with its legs and what happened when."""
    from agent.cli.call_text import call_lines, transcript_lines
    from agent.cli.live import refuse_if_live
    from agent.cli.local import LocalCalls, NoSuchCall

    settings = load_to_look(file)
    with LocalCalls.of(settings) as calls:
        try:
            call = calls.find(sid)
        except NoSuchCall:
            refuse_if_live(settings, sid)
            raise
    if as_json:
        say_json(call["full_transcript"] if transcript else call)
        return
    for line in transcript_lines(call) if transcript else call_lines(call):
        say(line)


@app.command("rebuild")
def rebuild(
    *,
    since: Annotated[str, typer.Option(metavar="WHEN", help=f"Calls that began then or later: {_MOMENTS}.")],
    until: Until = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be changed.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Derive calls again from the journal, after settings were mended or the program was updated.

    What differs is written as a new revision, and sent again; transcripts, tasks, interactions and recordings stay.
    Calls of which the journal does not hold all are left alone, and so is the tenant of a call that the centre may
    have. The settings are read again for it.
    """
    from agent.cli import rebuild as rebuilding
    from agent.cli.times import parse_moment

    now = datetime.now().astimezone()
    result = rebuilding.rebuild(
        load_to_look(file),
        since=parse_moment(since, now=now),
        until=parse_moment(until, now=now) if until is not None else None,
        dry_run=dry_run,
    )
    if as_json:
        say_json(result)
    else:
        rebuilding.say_rebuilt(result)


@app.command("explain")
def explain(
    sid: Annotated[str, typer.Argument(metavar="CALL", help="The call's id or its end, if only one call's ends so.")],
    *,
    frames: Annotated[
        bool, typer.Option("--frames", help="With the messages themselves, as the PBX sent them.")
    ] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Tell why a call, ended or live, is told as it is: what the PBX said, what came of it, and by which rules.

    The call is derived again from the journal, by the settings as they are now.
    """
    from agent.cli.explain import Explained
    from agent.cli.local import LocalCalls

    settings = load_to_look(file)
    with LocalCalls.of(settings) as calls:
        explained = Explained(calls, settings, sid)
    if as_json:
        say_json(explained.as_dict(frames=frames))
        return
    for line in explained.lines(frames=frames):
        say(line)


@app.command("export")
def export(
    *,
    to: Annotated[ExportFormat, typer.Option("--format", "-f", help="csv for spreadsheets, jsonl for programs.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; stdout if not given.")
    ] = None,
    bom: Annotated[bool, typer.Option("--bom", help="Begin with a byte order mark: Excel then reads UTF-8.")] = False,
    tenant: Tenant = None,
    unassigned: Unassigned = False,
    status: Status = None,
    direction: Direction = None,
    number: Number = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many, the oldest first.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Take the place of a file that is there.")] = False,
    file: ConfigFile = DEFAULT_FILE,
) -> None:
    """Export calls, the oldest first, as CSV (one line a call) or as JSON lines (legs, timeline and all).

    Moments are UTC in ISO 8601. CSV cells that a spreadsheet would take for a formula begin with an apostrophe;
    numbers such as +902121234567 stay as they are. The columns: call_sid, trace_id, tenant, site, pbx, direction,
    caller_id, caller_name, callee_id, answered_by, status, disposition, start_time, pbx_answer_time, answer_time,
    end_time, ring_seconds, talk_seconds, hold_seconds, total_seconds, hangup_cause, hangup_source, queue, transferred,
    recording, merged_into, source, start_estimated, end_estimated, revision, caller_e164, caller_presentation,
    callee_e164, last_answered_by, queue_position, queue_wait_seconds, conference.
    """
    from agent.cli.export import destination, write_csv, write_jsonl
    from agent.cli.local import LocalCalls

    wanted = _filter(
        tenant=tenant,
        unassigned=unassigned,
        status=status,
        direction=direction,
        number=number,
        since=since,
        until=until,
    )
    with LocalCalls.of(load_to_look(file)) as calls, destination(output, bom=bom, force=force) as stream:
        if to is ExportFormat.CSV:
            count = write_csv(stream, calls.all_briefly(wanted, limit=limit))
        else:
            count = write_jsonl(stream, calls.all(wanted, limit=limit))
    if output is not None and str(output) != "-":
        note(f"{counted(count, 'call')} written to {output}")
        note("It holds personal data (numbers, names, who called whom and when); only its owner can read it.")


def _filter(
    *,
    tenant: str | None,
    unassigned: bool,
    status: StatusWord | None,
    direction: DirectionWord | None,
    number: str | None,
    since: str | None,
    until: str | None,
) -> "Filter":
    from agent.cli.local import Filter
    from agent.cli.times import parse_moment

    now = datetime.now().astimezone()
    return Filter(
        tenant=tenant,
        unassigned=unassigned,
        status=status,
        direction=direction,
        number=_digits(number) if number is not None else None,
        since=parse_moment(since, now=now) if since is not None else None,
        until=parse_moment(until, now=now) if until is not None else None,
    )


def _digits(number: str) -> str:
    """How the number ends: without what people put between digits, and without + or zeros before the rest, so that
    0532 123 45 67 is found as 905321234567 and +905321234567 too, as PBXes tell it. Extensions keep their zeros."""
    digits = "".join(char for char in number if char not in " +-()./")
    return digits.lstrip("0") if len(digits) >= _PUBLIC_DIGITS else digits


def outcome(call: "Row") -> str:
    """In a word or two: calls that are not counted, and what is estimated, say so."""
    if call["merged_into"] is not None:
        return f"went on in …{call['merged_into'].rpartition(':')[2]}"
    words = call["disposition"] or ("end not seen" if call["end_estimated"] else call["status"])
    if call["transferred"]:
        words += ", transferred"
    return f"~ {words}" if call["start_estimated"] or call["end_estimated"] else words


def headings() -> tuple[str, ...]:
    """What stands over `call_cells`."""
    return (f"STARTED {zone()}", "TENANT", "DIRECTION", "CALLER", "CALLEE", "OUTCOME", "TALK", "CALL")


def call_cells(call: "Row") -> tuple[str, ...]:
    """A call in a list."""
    return (
        moment(call["start_time"]),
        call["tenant"] or "(none)",
        call["direction"],
        call["caller_id"] or "-",
        call["callee_id"] or "-",
        outcome(call),
        clock(call["talk_seconds"]),
        call["call_sid"],
    )
