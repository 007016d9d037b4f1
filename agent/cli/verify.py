"""`edge-agent verify`: whether every call that a PBX wrote down itself is held here."""

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.client import RunningAgent
from agent.cli.faults import CommandFailed, ExitCode, NotRunning
from agent.cli.output import AsJson, counted, moment, note, say, say_json, table, zone
from agent.cli.second_sources import HOW_TO_ADD, leave_alone, pbxes_named, sources_for
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from agent.cli.import_target import Target
    from agent.coverage.days import Day
    from agent.coverage.verifying import Comparison, Finding, Verification
    from agent.store.coverage import DayCounts
    from agent.store.merge import MergeResult
    from config.settings import PbxSettings, Settings

_SHOWN: Final = 50
_DAYS: Final = {"today": 0, "yesterday": 1}
_WHAT: Final = {
    "missing": "known to the PBX and missing here",
    "extra": "held here and unknown to the PBX",
    "differing": "told otherwise by the PBX",
}


def verify(
    *,
    day: Annotated[str, typer.Option(metavar="DAY", help="yesterday, today or 2026-11-22, by the PBX's clock.")] = (
        "yesterday"
    ),
    pbx: Annotated[str | None, typer.Option(metavar="NAME", help="Only this PBX.")] = None,
    heal: Annotated[bool, typer.Option("--heal", help="Take in what is missing or differs.")] = False,
    history: Annotated[bool, typer.Option("--history", help="Only list what was verified day by day.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Hold a day's calls against what the PBX wrote down itself (its CDRs or CEL), and tell what is missing here.

    The sources below [[pbx]] in the settings are read anew for it, with their rotated files. Exits with 0 if both
    sides hold the same, with 1 if something is missing, extra or differs, with 2 if that cannot be found out.
    """
    settings = load_to_look(file)
    pbxes = pbxes_named(settings, pbx)
    if history:
        _tell_history(settings, pbx=pbx, as_json=as_json)
        return
    told, code = [], ExitCode.OK
    for each in pbxes:
        result = _verify(settings, each, day, heal=heal, as_json=as_json)
        told.append(result)
        code = max(code, ExitCode.ERROR if "trouble" in result else ExitCode(int(not result["is_equal"])))
    if as_json:
        say_json(told)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _verify(settings: "Settings", pbx: "PbxSettings", named: str, *, heal: bool, as_json: bool) -> dict[str, Any]:
    """What was found, for JSON; for people it is said here."""
    from agent.coverage.days import Day
    from agent.coverage.errors import NotVerifiable
    from agent.coverage.verifying import Verification
    from agent.sources.opening import zone_of

    now, clock = datetime.now(UTC), zone_of(pbx.time_zone)
    day = Day.of(_date(named, now=now, clock=clock), clock)
    try:
        with Verification.of(sources_for(settings, pbx), day, now=now, rest=leave_alone) as verification:
            verification.read()
            comparison, healed = _compare(settings, verification, heal=heal)
    except NotVerifiable as exc:
        if not as_json:
            _say_trouble(pbx, day, str(exc))
        return {"pbx": pbx.name, "day": day.name, "trouble": str(exc)}
    _keep(settings, comparison.counts(at=now), day, now=now)
    if not as_json:
        _say(comparison, healed)
    return comparison.as_dict() | ({"healed": healed.as_dict()} if healed is not None else {})


def _compare(
    settings: "Settings", verification: "Verification", *, heal: bool
) -> "tuple[Comparison, MergeResult | None]":
    """What was found; if it was to be healed, then after that."""
    from agent.cli.local import LocalCalls

    with LocalCalls.of(settings) as local:
        comparison = verification.compare(local.connection)
    if not heal or not (comparison.missing or comparison.differing):
        return comparison, None
    from agent.cli.import_target import target

    with target(settings, dry_run=False) as goal:
        healed = _heal(verification, goal)
    with LocalCalls.of(settings) as local:
        return verification.compare(local.connection), healed


def _heal(verification: "Verification", goal: "Target") -> "MergeResult":
    from agent.cli.import_target import told_text_of
    from agent.store.merge import MergeResult

    done = MergeResult()
    for part in verification.wanted(at_once=goal.at_once):
        done.add(goal.tell(told_text_of(part)))
    return done


def _date(named: str, *, now: datetime, clock: tzinfo) -> date:
    today = now.astimezone(clock).date()
    word = named.strip().lower()
    if word in _DAYS:
        return today - timedelta(days=_DAYS[word])
    try:
        found = date.fromisoformat(word)
    except ValueError:
        raise CommandFailed(f"{named!r} is no day; write today, yesterday or 2026-11-22") from None
    if found > today:
        raise CommandFailed(f"{named} is still to come on the PBX's clock")
    return found


def _keep(settings: "Settings", counts: "DayCounts", day: "Day", *, now: datetime) -> None:
    """Of a day that is over, so that `status` tells the latest; a stopped agent's database is left alone."""
    if day.end > now:
        return
    import orjson

    try:
        RunningAgent(settings.socket_file).tell("/v1/coverage", orjson.dumps(counts.as_dict()))
    except NotRunning:
        return
    except CommandFailed as exc:
        note(f"edge-agent: the result is not kept: {exc}")


def _say_trouble(pbx: "PbxSettings", day: "Day", trouble: str) -> None:
    note(f"edge-agent: {pbx.name}, {day.name}: it cannot be verified: {trouble}")
    if not pbx.has_second_source:
        note("If Asterisk writes CDRs to a file, add below its [[pbx]] section (CEL and others: docs/sources.md):")
        for line in HOW_TO_ADD:
            note(line)


def _say(found: "Comparison", healed: "MergeResult | None") -> None:
    until = f", calls that ended before {moment(found.until)}" if found.until is not None else ""
    say(f"{found.pbx}, {found.day}, by {found.source}{until}")
    say(f"  {counted(found.known, 'call')} known to the PBX, {found.held} held here: {_verdict(found)}")
    if healed is not None:
        say(f"  taken in: {counted(healed.new, 'call')} new, {healed.amended} amended")
    notes = [(count, f"held, but no matter: {reason}") for reason, count in sorted(found.untold.items())]
    notes += [
        (found.waiting, "left out: still going on, or ended just now"),
        (found.before, "left out: ended before the agent was set up (edge-agent import takes them)"),
        (found.gone, "left out: the centre confirmed calls of that time, and they are not kept here any longer"),
        (found.nameless, "CDRs without an id, which can be joined with nothing: loguniqueid = yes in cdr.conf"),
    ]
    for count, text in notes:
        if count:
            say(f"  {count} {text}")
    for kind, calls in found.shown.items():
        if calls:
            _say_calls(kind, calls, total=getattr(found, kind))
    if found.missing:
        say("Take in what is missing: edge-agent verify --heal with the same day")


def _verdict(found: "Comparison") -> str:
    parts = [f"{getattr(found, kind)} {kind}" for kind in _WHAT if getattr(found, kind)]
    return ", ".join(parts) if parts else "nothing missing, nothing differs"


def _say_calls(kind: str, calls: "list[Finding]", *, total: int) -> None:
    say()
    say(f"{counted(total, 'call')} {_WHAT[kind]}:")
    rows = [
        (moment(call.start_time), call.caller_id or "-", call.callee_id or "-", call.disposition or "-", call.call_sid,
         "; ".join(f"{each.column}: {_value(each.ours)}, theirs {_value(each.theirs)}" for each in call.differing))
        for call in sorted(calls, key=lambda call: call.start_time)[:_SHOWN]
    ]  # fmt: skip
    headings = (f"BEGAN ({zone()})", "FROM", "TO", "DISPOSITION", "ID", "OURS, THEIRS" if kind == "differing" else "")
    for line in table(headings, rows):
        say(f"  {line}")
    if total > _SHOWN:
        say(f"  … and {total - _SHOWN} more; --json tells {counted(len(calls), 'call')}")


def _value(value: Any) -> str:  # Any: a column's
    if value is None:
        return "-"
    return f"{value.astimezone():%H:%M:%S.%f}"[:-3] if isinstance(value, datetime) else str(value)


def _tell_history(settings: "Settings", *, pbx: str | None, as_json: bool) -> None:
    from agent.cli.local import LocalCalls
    from agent.store import coverage

    with LocalCalls.of(settings) as local:
        found = coverage.history(local.connection, pbx=pbx)
    if as_json:
        say_json([each.as_dict() for each in found])
        return
    if not found:
        say("No day was verified yet. The running agent does it every night; edge-agent verify does it now.")
        return
    rows = [
        (each.day, each.pbx, str(each.known), str(each.held), str(each.missing), str(each.extra), str(each.differing),
         each.trouble or f"by {each.source}")
        for each in found
    ]  # fmt: skip
    for line in table(("DAY", "PBX", "KNOWN", "HELD", "MISSING", "EXTRA", "DIFFERING", "REMARK"), rows):
        say(line)
