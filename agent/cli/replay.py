"""`edge-agent replay`: the calls of a recording or a capture, derived as the agent derives them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.faults import CommandFailed
from agent.cli.output import AsJson, counted, json_text, moment, note, say, table
from agent.cli.settings import DEFAULT_FILE, FILE_VARIABLE

if TYPE_CHECKING:
    from agent.cli.replay_input import Source
    from agent.tracking.replay import Replayed


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, or a captured AMI session.")],
    *,
    times: Annotated[
        Path | None,
        typer.Option(metavar="INDEX", help="When a capture's bytes came; else FILE.times, FILE.index or FILE.idx."),
    ] = None,
    site: Annotated[str | None, typer.Option(help="The site's name in call ids.")] = None,
    pbx: Annotated[str | None, typer.Option(help="Whose capture it is; of a recording, this PBX only.")] = None,
    trunk: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Channels that lead to the public network: PJSIP/trunk-*."),
    ] = None,
    country: Annotated[
        str | None, typer.Option(metavar="XX", help="Whose plan of telephone numbers holds: TR, DE, GB …")
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--config", "-c", envvar=FILE_VARIABLE, metavar="FILE", help="Settings for what the file does not tell."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Derive the calls of a recording or of a captured AMI session, and show them.

    A capture is what the PBX sent, byte for byte, from the banner on. Nothing is kept and nothing is sent: the calls
    are derived in a temporary directory, which is removed afterwards. Rules are those in the recording, else those of
    the settings, else the defaults.
    """
    import asyncio
    import tempfile

    from agent.cli.replay_input import Options, opened, settings_beside

    options = Options(
        site=_name("--site", site),
        pbx=_name("--pbx", pbx),
        trunks=tuple(trunk or ()),
        country=_country(country),
        times=times,
    )
    with _ended_by_sigterm(), tempfile.TemporaryDirectory(prefix="edge-agent-replay-") as directory:
        database = Path(directory) / "edge.db"
        with opened(file, options, partial(settings_beside, settings_file, DEFAULT_FILE)) as source:
            result = asyncio.run(_derive(source, database))
        if result.not_understood:
            source.notes.append(
                f"{counted(result.not_understood, 'message')} could not be replayed; please report this"
            )
        if as_json:
            _write_json(file, source, result, database)
        else:
            _write_table(source, result, database)


def _name(option: str, value: str | None) -> str | None:
    """A site's or PBX's name as in the settings; it becomes part of every call's id."""
    from pydantic import TypeAdapter, ValidationError

    from config.settings import PlainName

    try:
        return TypeAdapter[str](PlainName).validate_python(value) if value is not None else None
    except ValidationError as exc:
        what = exc.errors()[0]["msg"].removeprefix("Value error, ")
        raise CommandFailed(f"{option} {value!r}: {what}") from None


def _country(value: str | None) -> str | None:
    from config.countries import known_country

    try:
        return known_country(value) if value is not None else None
    except ValueError as exc:
        raise CommandFailed(f"--country {value!r}: {exc}") from None


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the command as Ctrl-C does, so that nothing personal stays behind."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def _derive(source: "Source", database: Path) -> "Replayed":
    from agent.calls.tenancy import assign
    from agent.store.engine import open_store
    from agent.store.writer import Writer
    from agent.tracking.derive import Derivation
    from agent.tracking.replay import replay as derive

    derivations = {
        pbx: Derivation(
            site=source.site,
            pbx=pbx,
            rules=rules,
            assign=lambda facts: assign(source.tenancy, facts),
            interpreter=source.interpreters[pbx],
        )
        for pbx, rules in source.rules.items()
    }
    async with open_store(database) as store:
        writer = await Writer.over(store.connection)
        return await derive(source.heard, derivations, writer, lengths_known=source.lengths_known)


def _write_json(file: Path, source: "Source", result: "Replayed", database: Path) -> None:
    """Call by call, since there may be more than fit into memory."""
    from agent.cli.local import Filter, LocalCalls

    facts: dict[str, Any] = {  # Any: JSON
        "file": str(file),
        "kind": source.kind,
        "site": source.site,
        "pbx": list(source.rules),
        "times_from": source.clock,
        "lengths_known": source.lengths_known,
        "first_at": result.first_at,
        "last_at": result.last_at,
        "frames": result.frames,
        "frame_bytes": result.frame_bytes,
        "ended": result.ended,
        "in_progress": result.live,
        "begun_before": result.parts,
        "notes": source.notes,
    }
    with LocalCalls.at(database) as calls:
        say(f'{{\n"replay": {json_text(facts)},\n"calls": [')
        comma = ""
        for call in calls.all(Filter()):
            record = call | {"tasks": [], "interactions": [], "sync": {"state": "replayed"}}
            say(f"{comma}{json_text(record)}")
            comma = ",\n"
        say("]\n}")


def _write_table(source: "Source", result: "Replayed", database: Path) -> None:
    from agent.cli.calls import call_cells, headings
    from agent.cli.local import Filter, LocalCalls

    with LocalCalls.at(database) as calls:
        rows = [call_cells(call) for call in calls.all_briefly(Filter())]
    if not source.lengths_known:
        rows = [(*cells[:-2], "?", cells[-1]) for cells in rows]
    for line in table(headings(), rows) if rows else ["No calls."]:
        say(line)
    said = f"{counted(result.frames, 'message')} of {', '.join(source.rules) or 'no PBX'}"
    if result.first_at is not None:
        said += f", from {moment(result.first_at)} to {moment(result.last_at)}"
    note(f"{counted(result.ended, 'call')}, {result.live} still in progress; {said}")
    if result.parts:
        note(f"note: {counted(result.parts, 'call')} began before what was heard and cannot be told whole")
    for line in source.notes:
        note(f"note: {line}")
