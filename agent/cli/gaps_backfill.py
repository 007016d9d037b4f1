"""`edge-agent gaps backfill`: read second sources now for the time of gaps, and take in what is found."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.faults import CommandFailed, ExitCode
from agent.cli.output import AsJson, counted, moment, note, say, say_json
from agent.cli.second_sources import HOW_TO_ADD, leave_alone, pbxes_named, sources_for
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look
from agent.cli.times import parse_moment

if TYPE_CHECKING:
    from agent.cli.import_target import Target
    from agent.coverage.backfill import Backfill, Stretch
    from config.settings import PbxSettings, Settings, SourceSettings

_Gap = dict[str, Any]  # Any: columns
_CALLS_IN_FILES: Final = frozenset({"cdr-csv", "cel-csv"})


def backfill(
    gaps: Annotated[
        list[int] | None, typer.Argument(metavar="GAP-ID…", help="As gaps list tells; else all open.")
    ] = None,
    *,
    from_at: Annotated[str | None, typer.Option("--from", metavar="TIME", help="Of what was later than this.")] = None,
    to_at: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Of what was earlier than this.")] = None,
    pbx: Annotated[str | None, typer.Option(metavar="NAME", help="Only this PBX.")] = None,
    files: Annotated[
        list[Path] | None, typer.Option("--file", metavar="FILE", help="Read this instead: an old Master.csv.5.gz.")
    ] = None,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Read the second sources now for the time of open gaps, take in what is found, and mark as filled what is.

    The running agent does so all the time; this is for what it could not read, as a file that was compressed before it
    was read (--file), and to see why a gap stays open. --from and --to also take a time in which no gap is known. It
    works while the agent runs and while it is stopped, and doing it again changes nothing. Exits with 1 if a gap stays
    open.
    """
    from agent.cli.import_target import target

    settings = load_to_look(file)
    now = datetime.now(UTC)
    first = parse_moment(from_at, now=now.astimezone()).astimezone(UTC) if from_at is not None else None
    last = parse_moment(to_at, now=now.astimezone()).astimezone(UTC) if to_at is not None else None
    if first is not None and first >= (last or now):
        raise CommandFailed("--from has to be earlier than --to, and than now")
    pbxes = pbxes_named(settings, pbx)
    if files and len(pbxes) > 1:
        raise CommandFailed("say with --pbx whose files these are")
    told: list[_Gap] = []
    with target(settings, dry_run=False) as goal:
        for each in pbxes:
            wanted = _wanted(settings, each, gaps or [], first, last, now=now)
            told += _fill(settings, each, wanted, files or [], goal, now=now)
    unknown = set(gaps or []) - {gap["id"] for gap in told}
    if unknown:
        raise CommandFailed(f"there is no gap {min(unknown)}; see edge-agent gaps list")
    if as_json:
        say_json(told)
    else:
        _say(told, settings)
    if any(gap["why_open"] for gap in told):
        raise typer.Exit(ExitCode.WARNING)


def _wanted(
    settings: "Settings",
    pbx: "PbxSettings",
    ids: list[int],
    first: datetime | None,
    last: datetime | None,
    *,
    now: datetime,
) -> list[_Gap]:
    """Gaps of that choice, the earliest first; a time in which none is known stands for itself, without an id."""
    from agent.cli.local import LocalCalls

    with LocalCalls.of(settings) as calls:
        found = calls.gaps(pbx=pbx.name, unfilled=not ids)
    chosen = [
        gap
        for gap in reversed(found)
        if (not ids or gap["id"] in ids)
        and (first is None or (gap["to_at"] or now) > first)
        and (last is None or gap["from_at"] < last)
    ]
    if not chosen and not ids and first is not None:
        return [{"id": None, "pbx": pbx.name, "from_at": first, "to_at": last or now, "backfilled_at": None}]
    return chosen


def _fill(
    settings: "Settings", pbx: "PbxSettings", gaps: list[_Gap], files: list[Path], goal: "Target", *, now: datetime
) -> list[_Gap]:
    """What became of each."""
    from agent.coverage.backfill import Backfill, Stretch
    from agent.coverage.errors import NotVerifiable
    from agent.coverage.verifying import sources_of

    if not gaps:
        return []
    of = sources_for(settings, pbx)
    try:
        sources = [_source_of(pbx, path) for path in files] or sources_of(of)
    except NotVerifiable as exc:
        return [_told(gap, 0, "", why_open=str(exc)) for gap in gaps]
    stretches = [Stretch(gap["from_at"], gap["to_at"] or now) for gap in gaps]
    with Backfill.of(of, sources, stretches, now=now, rest=leave_alone) as read:
        return [_fill_one(gap, stretch, read, goal, now=now) for gap, stretch in zip(gaps, stretches, strict=True)]


def _fill_one(gap: _Gap, stretch: "Stretch", read: "Backfill", goal: "Target", *, now: datetime) -> _Gap:
    from agent.cli.import_target import told_text_of
    from agent.coverage.errors import NotVerifiable
    from agent.store.filling import Filling
    from agent.store.merge import MergeResult

    done = MergeResult()
    for part in read.calls(stretch, at_once=goal.at_once):
        done.add(goal.tell(told_text_of(part)))
    found = done.new + done.amended
    try:
        by = read.told_by(stretch, now=now)
    except NotVerifiable as exc:
        return _told(gap, found, "", why_open=str(exc) if gap["backfilled_at"] is None else "")
    if gap["id"] is None:
        return _told(gap, found, by)
    if gap["to_at"] is None:
        return _told(gap, found, "", why_open="it goes on: the PBX is not heard")
    filling = Filling(gap["pbx"], by, known_from=gap["from_at"], known_until=gap["to_at"], found={gap["id"]: found})
    is_filled = goal.fill(filling) > 0 or gap["backfilled_at"] is not None
    return _told(gap, found, by, why_open="" if is_filled else "a call that began in it still goes on")


def _told(gap: _Gap, found: int, by: str, *, why_open: str = "") -> _Gap:
    names = ("id", "pbx", "from_at", "to_at")
    return {name: gap[name] for name in names} | {"found": found, "by": by, "why_open": why_open}


def _source_of(pbx: "PbxSettings", path: Path) -> "SourceSettings":
    """A file that was given, read as the configured one that it was before it was rotated."""
    from config.settings import SourceKind, SourceSettings

    if not path.is_file():
        raise CommandFailed(f"{path} is no file")
    alike = [source for source in pbx.sources if source.kind in _CALLS_IN_FILES and source.path is not None]
    named = [source for source in alike if source.path is not None and path.name.startswith(source.path.name)]
    for source in (*named, *alike):
        return source.model_copy(update={"path": path.absolute(), "name": path.name})
    return SourceSettings(kind=SourceKind.CDR_CSV, path=path.absolute(), name=None)


def _say(told: list[_Gap], settings: "Settings") -> None:
    if not told:
        say("There is no open gap of that time.")
    for gap in told:
        what = f"gap {gap['id']} of {gap['pbx']}" if gap["id"] is not None else gap["pbx"]
        until = moment(gap["to_at"]) if gap["to_at"] is not None else "now"
        say(f"{what}, {moment(gap['from_at'])} to {until}: {counted(gap['found'], 'call')} found, {_became(gap)}")
    without = {pbx.name for pbx in settings.pbx if not pbx.has_second_source}
    if any(gap["why_open"] and gap["pbx"] in without for gap in told):
        note("If Asterisk writes CDRs to a file, add below its [[pbx]] section (CEL and others: docs/sources.md):")
        for line in HOW_TO_ADD:
            note(line)


def _became(gap: _Gap) -> str:
    if gap["why_open"]:
        return f"it stays open: {gap['why_open']}"
    return f"filled by {gap['by']}" if gap["id"] is not None else f"by {gap['by']}"
