"""`edge-agent calls rebuild`: stored calls derived again, by the running agent or without one."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import typer

from agent.cli.client import RunningAgent
from agent.cli.faults import CommandFailed, NotRunning
from agent.cli.output import Colour, counted, moment, painted, printable, say, table, zone

if TYPE_CHECKING:
    from config.settings import Settings

_ANSWER_SECONDS: Final = 120.0  # between two words of progress
_CALLS_SHOWN: Final = 50
_KINDS_SHOWN: Final = 20
Progress = dict[str, Any]  # Any: JSON
_REASONS: Final = {
    "journal_begins_later": "began before the journal does",
    "partly_heard": "the journal does not hold all of them",
    "known_better": "the stored record knows their beginning or end, which the journal does not",
    "other_source": "another source told of them too",
    "still_live": "still going on",
    "not_told": "the journal tells no such call",
    "erased": "their person was erased",
    "clock_set_right": "their times were put right after they had ended, when the clock was",
}


def rebuild(settings: "Settings", *, since: datetime, until: datetime | None, dry_run: bool) -> Progress:
    """Do it, showing on a terminal how far it is; the last word, with every call that is changed in it.

    `still_live` is how many calls of that time the running agent goes on telling by the rules it had.
    """
    if until is not None and since >= until:
        raise CommandFailed("--since has to be before --until")
    collected = _Collected()
    live = 0
    query = {"since": since.astimezone(UTC).isoformat(), "dry_run": "true" if dry_run else "false"}
    if until is not None:
        query["until"] = until.astimezone(UTC).isoformat()
    try:
        for told in RunningAgent(settings.socket_file, timeout=_ANSWER_SECONDS).follow("/v1/calls/rebuild", **query):
            if "error" in told:
                raise CommandFailed(f"{told['error']}; what was changed until then stays, begin again to go on")
            collected.add(told)
        live = _still_live(settings, since, until)
    except NotRunning:
        asyncio.run(_without_agent(settings, since, until, dry_run, collected.add))
    finally:
        collected.clear_line()
    if not collected.last.get("done"):
        raise CommandFailed("the agent broke off; what was changed until then stays, begin again to go on")
    return {**collected.last, "calls": collected.calls, "dry_run": dry_run, "still_live": live}


def _still_live(settings: "Settings", since: datetime, until: datetime | None) -> int:
    calls = RunningAgent(settings.socket_file).get("/v1/calls")["calls"]
    begun = [datetime.fromisoformat(call["call_start_time"]) for call in calls]
    return sum(at >= since and (until is None or at < until) for at in begun)


class _Collected:
    """Words of progress, joined."""

    def __init__(self) -> None:
        self.last: Progress = {}
        self.calls: list[Progress] = []
        self._shows = sys.stderr is not None and sys.stderr.isatty()

    def add(self, told: Progress) -> None:
        self.last = told
        self.calls += told["calls"]
        if self._shows:
            heard = f", at {told['heard_until'][:19].replace('T', ' ')} UTC" if told["heard_until"] else ""
            typer.echo(f"\r\x1b[K{counted(told['looked_at'], 'call')} looked at{heard}", nl=False, err=True)

    def clear_line(self) -> None:
        if self._shows and self.last:
            typer.echo("\r\x1b[K", nl=False, err=True)


async def _without_agent(
    settings: "Settings",
    since: datetime,
    until: datetime | None,
    dry_run: bool,
    tell: Callable[[Progress], None],
) -> None:
    """Holding the database meanwhile."""
    from agent.cli.local import database_of
    from agent.daemon import interpreters_of, rules_of
    from agent.store.engine import open_store
    from agent.store.writer import Writer
    from agent.tracking.rebuild import Rebuild

    async with open_store(database_of(settings)) as store:
        work = Rebuild(
            store=store,
            writer=await Writer.over(store.connection),
            site=settings.site,
            tenancy=settings.tenancy,
            rules=rules_of(settings),
            interpreter=interpreters_of(settings),
            since=since,
            until=until,
            dry_run=dry_run,
            pause_seconds=0,
        )
        async for progress in work.run():
            tell(progress.as_dict())


def say_rebuilt(told: Progress) -> None:
    """What came of it, for people."""
    would = "would be " if told["dry_run"] else ""
    left = sum(told["left_alone"].values())
    say(
        f"{counted(told['looked_at'], 'call')} looked at: {told['changed']} {would}changed, "
        f"{told['unchanged']} as they were, {left} left alone"
    )
    changed = sorted((call for call in told["calls"] if call["fields"]), key=lambda call: str(call["start_time"]))
    for line in _change_lines(changed):
        say(line)
    if left:
        say()
        for reason, count in told["left_alone"].items():
            say(f"left alone, {_REASONS.get(reason, reason)}: {count}")
    for line in _kept_lines([call for call in told["calls"] if call["tenant_kept_from"] is not None]):
        say(painted(line, Colour.CAREFUL))
    if told["not_stored"]:
        say(f"{counted(told['not_stored'], 'call')} in the journal and not in the database; not put back")
    if told["still_live"]:
        one = told["still_live"] == 1
        say(
            f"{counted(told['still_live'], 'call')} still {'goes' if one else 'go'} on; run this again when "
            f"{'it has' if one else 'they have'} ended"
        )


def _change_lines(changed: list[Progress]) -> Iterator[str]:
    """How many calls change in which way, then the oldest of them one by one."""
    if not changed:
        return
    kinds = Counter(_changes(call) for call in changed)
    yield ""
    for kind, count in kinds.most_common(_KINDS_SHOWN):
        yield f"{printable(kind)}: {counted(count, 'call')}"
    if len(kinds) > _KINDS_SHOWN:
        yield f"… and {counted(len(kinds) - _KINDS_SHOWN, 'other kind')} of change"
    yield ""
    headings = (f"STARTED {zone()}", "CALL", "REVISION", "CHANGED")
    yield from table(headings, [_cells(call) for call in changed[:_CALLS_SHOWN]])
    if len(changed) > _CALLS_SHOWN:
        yield f"… and {len(changed) - _CALLS_SHOWN} more; --json tells all"


def _kept_lines(kept: list[Progress]) -> Iterator[str]:
    for call in kept[:_CALLS_SHOWN]:
        yield (
            f"{printable(call['call_sid'])} keeps its tenant {call['tenant']}, although the rules now name "
            f"{call['tenant_kept_from']}: the centre may have it under that name"
        )
    if len(kept) > _CALLS_SHOWN:
        yield f"… and {len(kept) - _CALLS_SHOWN} more keep their tenant; --json tells all"


def _cells(call: Progress) -> tuple[str, str, str, str]:
    start = moment(datetime.fromisoformat(call["start_time"]))
    return start, call["call_sid"], str(call["revision"]), _changes(call)


def _changes(call: Progress) -> str:
    return ", ".join(_field(name, change) for name, change in call["fields"].items())


def _field(name: str, change: dict[str, Any] | None) -> str:  # Any: JSON
    if change is None:
        return name
    before, after = ("none" if value is None else value for value in (change["before"], change["after"]))
    return f"{name} {before} → {after}"
