"""A status as a person reads it: the verdict first, then what it rests on, in at most nineteen lines."""

from datetime import datetime
from typing import TYPE_CHECKING, Final

from agent.cli.output import Colour, ago, counted, length, painted, printable, size

if TYPE_CHECKING:
    from agent.health import AgentStatus, DatabaseHealth, PbxHealth

MAX_LINES: Final = 19
_FIXED_LINES: Final = 14  # the verdict and the thirteen lines below the PBXes
_COLOURS: Final = {"ok": Colour.GOOD, "degraded": Colour.CAREFUL, "stopped": Colour.BAD}
_UNKNOWN: Final = "unknown: the local database cannot be read"
_CLOCK_SECONDS: Final = 1.0  # below it, two clocks agree as far as calls are concerned


def status_lines(status: "AgentStatus", *, now: datetime) -> list[str]:
    """The lines, the gravest problem in the first."""
    lines = [painted(printable(_verdict(status)), _COLOURS[status.verdict])]
    # Whatever of these lines the PBXes leave is for the problems beyond the first.
    pbx_lines = _pbx_lines(
        status, now=now, room=max(1, MAX_LINES - _FIXED_LINES - min(2, max(0, len(status.problems) - 1)))
    )
    lines += _problem_lines(status.problems[1:], room=MAX_LINES - _FIXED_LINES - len(pbx_lines))
    facts = [
        *pbx_lines,
        ("live calls", _live(status)),
        ("today", _today(status)),
        ("backlog", _backlog(status, now=now)),
        ("quarantine", _quarantine(status)),
        ("gaps", _gaps(status)),
        *_source_lines(status, now=now),
        ("coverage", _coverage(status)),
        ("centre", _centre(status, now=now)),
        ("disk", _disk(status)),
        ("database", _database(status, now=now)),
        ("backup", _backup(status, now=now)),
        ("clock", _clocks(status)),
        ("agent", _agent(status, now=now)),
    ]
    return [*lines, *(f"{printable(name):<12}{printable(text)}" for name, text in facts)]


def _verdict(status: "AgentStatus") -> str:
    if status.problems:
        return f"{status.verdict.upper()}: {status.problems[0]}"
    live, waiting = counted(status.calls.live, "live call"), status.backlog.waiting
    return (
        f"OK: {status.site} captures; {live}, {counted(waiting, 'call') if waiting else 'nothing'} waiting to be sent"
    )


def _problem_lines(problems: tuple[str, ...], *, room: int) -> list[str]:
    shown = problems if len(problems) <= room else problems[: max(0, room - 1)]
    lines = [painted(f"  also: {printable(problem)}", Colour.CAREFUL) for problem in shown]
    if len(shown) < len(problems) and room > 0:
        lines.append(painted(f"  also: {len(problems) - len(shown)} more; see --json", Colour.CAREFUL))
    return lines


def _pbx_lines(status: "AgentStatus", *, now: datetime, room: int) -> list[tuple[str, str]]:
    everyone = sorted(status.pbx, key=lambda pbx: pbx.state == "connected")  # what is not well comes first
    shown = everyone if len(everyone) <= room else everyone[: room - 1]
    lines = [(f"PBX {pbx.name}", _pbx(pbx, now=now)) for pbx in shown]
    if len(shown) < len(everyone):
        rest = everyone[len(shown) :]
        well = sum(pbx.state == "connected" for pbx in rest)
        lines.append(("PBX …", f"{len(rest)} more, {well} of them connected; see --json"))
    return lines or [("PBX", "none is configured")]


def _pbx(pbx: "PbxHealth", *, now: datetime) -> str:
    state = str(pbx.state or "not heard")
    parts = [f"{state}{f' for {length((now - pbx.since).total_seconds())}' if pbx.since else ''}, {pbx.address}"]
    if pbx.version:
        parts.append(pbx.version)
    if pbx.state is not None:
        parts.append(f"last event {ago(pbx.last_heard_at, now=now)}")
    parts.append(f"last call {ago(pbx.last_call_at, now=now)}")
    if pbx.open_gap_since is not None:
        parts.append(f"gap open since {ago(pbx.open_gap_since, now=now)}")
    return ", ".join(parts)


def _live(status: "AgentStatus") -> str:
    store = status.live_store
    if store is None:
        return str(status.calls.live)
    return f"{status.calls.live}, contexts in {store.home}{'' if store.reachable else ' (away)'}"


def _today(status: "AgentStatus") -> str:
    if not status.database.is_readable:
        return _UNKNOWN
    by_status = ", ".join(f"{count} {word.replace('_', ' ')}" for word, count in sorted(status.calls.today.items()))
    total = sum(status.calls.today.values())
    unassigned = f"; {status.calls.unassigned} unassigned" if status.calls.unassigned else ""
    return f"{counted(total, 'call')}{f': {by_status}' if by_status else ''}{unassigned}"


def _backlog(status: "AgentStatus", *, now: datetime) -> str:
    if not status.database.is_readable:
        return _UNKNOWN
    last = status.central.last_success_at
    acknowledged = f"last acknowledged {ago(last, now=now)}" if last else "none acknowledged since the start"
    if not status.backlog.waiting:
        return f"nothing waits, {acknowledged}" if status.pid else "nothing waits"
    oldest = status.backlog.oldest_at
    since = f", the oldest since {length((now - oldest).total_seconds())}" if oldest else ""
    hours = f", a backlog goes {' and '.join(goes)}" if (goes := status.central.backlog_goes) else ""
    waiting = f"{counted(status.backlog.waiting, 'call')} waiting{since}{hours}"
    return f"{waiting}, {acknowledged}" if status.pid else waiting


def _quarantine(status: "AgentStatus") -> str:
    count = status.backlog.quarantined
    return f"{counted(count, 'call')} refused by the centre: edge-agent quarantine list" if count else "empty"


def _gaps(status: "AgentStatus") -> str:
    blind = [pbx for pbx in status.pbx if pbx.unfilled_gaps]
    if not blind:
        return "none in the last 7 days that is not filled"
    count, seconds = sum(pbx.unfilled_gaps for pbx in blind), sum(pbx.unfilled_seconds for pbx in blind)
    told = f"{counted(count, 'gap')} of the last 7 days not filled, {length(seconds)} in all"
    without = [pbx.name for pbx in blind if not pbx.has_second_source]
    if not without:
        return f"{told}; why: edge-agent gaps backfill"
    names = f"PBX {without[0]}" if len(without) == 1 else f"{len(without)} PBXes"
    return f"{told}; no second source for {names}: edge-agent gaps list"


def _source_lines(status: "AgentStatus", *, now: datetime) -> list[tuple[str, str]]:
    told = [
        f"{source.name} of {pbx.name} read until {ago(source.read_until, now=now)} "
        f"({counted(source.records, 'record')})" if source.read_until
        else f"{source.name} of {pbx.name} not read to its end yet"
        for pbx in status.pbx for source in pbx.sources
    ]  # fmt: skip
    if not told:
        return []
    rejects = sum(source.rejects for pbx in status.pbx for source in pbx.sources)
    aside = f"; {counted(rejects, 'record')} set aside: edge-agent gaps rejects" if rejects else ""
    more = f" and {len(told) - 2} more" if len(told) > 2 else ""
    return [("sources", f"{', '.join(told[:2])}{more}{aside}")]


def _coverage(status: "AgentStatus") -> str:
    """The days that were verified last, what is not well first."""
    told = [(_rank(pbx), _covered(pbx, is_only=len(status.pbx) == 1)) for pbx in status.pbx]
    shown = [text for _, text in sorted(told, key=lambda one: one[0])]
    more = f" and {len(shown) - 2} more: edge-agent verify --history" if len(shown) > 2 else ""
    return f"{'; '.join(shown[:2])}{more}" if shown else "no PBX is configured"


def _rank(pbx: "PbxHealth") -> int:
    covered = pbx.coverage
    if not pbx.has_second_source or covered is None:
        return 2
    if covered.trouble is not None:
        return 1
    return 0 if covered.missing or covered.extra or covered.differing else 3


def _covered(pbx: "PbxHealth", *, is_only: bool) -> str:
    of = "" if is_only else f"{pbx.name} "
    covered = pbx.coverage
    if not pbx.has_second_source:
        return f"{of}NOT VERIFIED, since no second source is configured: docs/sources.md"
    if covered is None:
        return f"{of}no day verified yet"
    if covered.trouble is not None:
        return f"{of}{covered.day} could not be verified: {covered.trouble}"
    wrong = [f"{getattr(covered, name)} {name}" for name in ("missing", "extra", "differing") if getattr(covered, name)]
    held = covered.known - covered.missing
    told = f"{held:,} calls of the PBX's {covered.known:,}, {', '.join(wrong) or 'nothing missing'}"
    return f"{of}{covered.day}: {told}{': edge-agent verify' if wrong else ''}"


def _centre(status: "AgentStatus", *, now: datetime) -> str:
    central = status.central
    if central.address is None:
        return "none is configured, calls stay here"
    parts = [central.address] if status.pid is None else [f"{central.state}, {central.address}"]
    if central.troubled_since is not None and central.state in {"waiting", "paused"}:
        parts.append(f"since {ago(central.troubled_since, now=now).removesuffix(' ago')}")
    elif central.lease_until is not None:
        parts.append("speaks for this site")
    if central.next_try_at is not None and central.state in {"waiting", "paused"}:
        parts.append(f"next try in {length((central.next_try_at - now).total_seconds())}")
    if central.last_error and central.state != "idle":
        parts.append(central.last_error)
    return ", ".join(parts)


def _disk(status: "AgentStatus") -> str:
    disk = status.database
    if not disk.disk_total:
        return "unknown"
    parts = [f"{size(disk.disk_free)} of {size(disk.disk_total)} free"]
    if disk.budget:
        parts.append(f"{disk.used / disk.budget:.0%} of the budget of {size(disk.budget)} used")
    if disk.days_left is not None:
        days = f"{disk.days_left:,.0f}" if disk.days_left >= 10 else f"{disk.days_left:.1f}"
        parts.append(f"room for {days} days of calls without the centre")
    kept = {"spill": disk.spill_size, "reserve": disk.reserve_size, "backups": disk.backups_size}
    parts += [f"{name} {size(count)}" for name, count in kept.items() if count]
    return ", ".join([*parts, *disk.on_full])


def _database(status: "AgentStatus", *, now: datetime) -> str:
    database = status.database
    if not database.size:
        return f"{database.file}: none yet" if not database.error else f"{database.file}: {database.error}"
    sizes = f"{size(database.size)} (WAL {size(database.wal_size)}, journal {size(database.journal_size)})"
    commit = f", last commit {ago(database.last_commit_at, now=now)}" if database.last_commit_at else ""
    error = f", {database.error}" if database.error else ""
    return f"{database.file}, {sizes}{commit}, {_checked(database, now=now)}{error}"


def _checked(database: "DatabaseHealth", *, now: datetime) -> str:
    if database.checked_at is None:
        return "not looked through yet"
    return f"looked through {ago(database.checked_at, now=now)}: {database.check_found or 'sound'}"


def _backup(status: "AgentStatus", *, now: datetime) -> str:
    backup = status.backup
    if backup is None:
        return "none while the database cannot be used"
    if not (backup.every_hours or backup.last_at):
        return "none is made by the clock: store.backup_every_hours"
    last = (
        f"{ago(backup.last_at, now=now)}, {size(backup.last_size)}, {backup.last_file}" if backup.last_at else "never"
    )
    parts = [f"last {last}"]
    if backup.next_at is not None:
        wait = (backup.next_at - now).total_seconds()
        parts.append(f"next in {length(wait)}" if wait > 0 else "next is due")
    if backup.trouble:
        parts.append(f"TROUBLE: {backup.trouble}")
    return ", ".join(parts)


def _clocks(status: "AgentStatus") -> str:
    known = {pbx.name: pbx.clock_offset_seconds for pbx in status.pbx if pbx.clock_offset_seconds is not None}
    off = [f"PBX {name} {'ahead' if offset > 0 else 'behind'} by {abs(offset):.1f} s"
           for name, offset in known.items() if abs(offset) >= _CLOCK_SECONDS]  # fmt: skip
    return ", ".join(off) or ("agrees with the PBX" if known else "not compared yet")


def _agent(status: "AgentStatus", *, now: datetime) -> str:
    parts = [status.version]
    if status.pid is None:
        parts.append("not running")
    else:
        parts.append(f"pid {status.pid}")
    if status.started_at is not None:
        parts.append(f"up {length((now - status.started_at).total_seconds())}")
    if status.resident_bytes is not None:
        parts.append(size(status.resident_bytes))
    return ", ".join([*parts, f"settings {status.settings_hash}"])
