"""`edge-agent record`: what the agent heard, out of its journal, as one file for support."""

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.cli.faults import CommandFailed
from agent.cli.output import counted, moment, note, size
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from agent.cli.recording import Recorder
    from config.settings import Settings

_LOOK_SECONDS: Final = 0.2
_MOMENTS: Final = "2026-11-22, '2026-11-22 14:30', today, yesterday, 30min, 2h or 7d"


def record(
    output: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; must not be there yet.")],
    *,
    pbx: Annotated[str | None, typer.Option(help="This PBX only.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="WHEN", help=f"What was heard then or later: {_MOMENTS}; else from now on.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="What was heard before; else up to now.")] = None,
    follow_for: Annotated[
        str | None, typer.Option("--for", metavar="TIME", help="Follow for so long, as 10min; else until Ctrl-C.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Take the place of a file that is there.")] = False,
    file: ConfigFile = DEFAULT_FILE,
) -> None:
    """Write what the agent heard into a file that edge-agent replay makes calls of.

    With --since it is taken out of the journal as far as that goes back, else what the running agent hears from now on
    is followed. The PBX notices nothing. The file holds personal data: numbers, names, who called whom and when.
    """
    from agent.cli.recording import Recorder, wanted_pbxes
    from agent.cli.times import parse_length, parse_moment

    if str(output) == "-":
        raise CommandFailed("a recording does not go to stdout; name a file")
    now = datetime.now().astimezone()
    begin = parse_moment(since, now=now) if since is not None else None
    end = parse_moment(until, now=now) if until is not None else None
    length = parse_length(follow_for) if follow_for is not None else None
    _check(begin=begin, end=end, follows=length is not None)
    settings = load_to_look(file)
    names = wanted_pbxes(settings, pbx)
    if begin is None:
        _must_run(settings)
    with Recorder.of(settings, names, output, force=force) as recorder:
        if begin is not None:
            recorder.take_past(begin, end)
        if begin is None or length is not None:
            _follow(recorder, length.total_seconds() if length is not None else None)
        if begin is not None and not recorder.frames:
            recorder.discard()
            raise CommandFailed(recorder.nothing_told())
    span = f", from {moment(recorder.first_at)} to {moment(recorder.last_at)}" if recorder.first_at else ""
    note(f"{counted(recorder.frames, 'message')} ({size(recorder.frame_bytes)}){span} in {output}")
    if recorder.journal_begins_later:
        note(f"note: {recorder.extent()}, so what was heard before is missing")
    note("It holds personal data (numbers, names, who called whom and when); only its owner can read it.")


def _check(*, begin: datetime | None, end: datetime | None, follows: bool) -> None:
    if end is not None and begin is None:
        raise CommandFailed("--until needs --since: without it what comes is followed; see --for")
    if end is not None and follows:
        raise CommandFailed("--until ends in the past and --for in the future; give one of them")
    if begin is not None and end is not None and begin >= end:
        raise CommandFailed("--since has to be before --until")


def _must_run(settings: "Settings") -> None:
    """Nothing grows without an agent. Raises NotRunning."""
    from agent.cli.client import RunningAgent

    RunningAgent(settings.socket_file).get("/v1/status")


def _follow(recorder: "Recorder", seconds: float | None) -> None:
    """Until Ctrl-C, which is the ordinary way to end it, or until the time is over."""
    note("Recording what the agent hears; calls that began before are not told whole. Ctrl-C ends it.")
    deadline = None if seconds is None else time.monotonic() + seconds
    try:
        while deadline is None or time.monotonic() < deadline:
            recorder.take_new()
            time.sleep(_LOOK_SECONDS if deadline is None else max(0.0, min(_LOOK_SECONDS, deadline - time.monotonic())))
    except KeyboardInterrupt:
        note("")
    recorder.take_new()
