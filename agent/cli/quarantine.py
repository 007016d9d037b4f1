"""`edge-agent quarantine …`: calls that the centre refused, and what becomes of them."""

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.faults import CommandFailed, NotRunning
from agent.cli.output import AsJson, counted, json_text, moment, note, printable, say, say_json, table, zone
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look
from agent.cli.who import who

if TYPE_CHECKING:
    from agent.cli.local import LocalCalls
    from config.settings import Settings

app = typer.Typer(
    help="Calls that the centre refused: see them, send them again, or give them up.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SHOWN: Final = 20
_ANSWER_SECONDS: Final = 60.0
_NUMBERS: Final = ("caller_id", "caller_e164", "callee_id", "callee_e164", "answered_by", "last_answered_by")
_TOLD_BY_SIZE: Final = ("legs", "timeline", "full_transcript", "tasks", "interactions")
_LAST_DIGITS: Final = 2

OneCall = Annotated[str | None, typer.Argument(metavar="[CALL]", help="One call, by its id or how that ends.")]
OfCode = Annotated[str | None, typer.Option("--code", metavar="CODE", help="Those that were refused with this code.")]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@app.command("list")
def list_refused(*, code: OfCode = None, file: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Show which calls the centre refused, when and why, the latest first."""
    from agent.cli.local import LocalCalls

    with LocalCalls.of(load_to_look(file)) as calls:
        found = [row for row in calls.refused() if code in {None, row["code"]}]
    if as_json:
        say_json(found)
        return
    if not found:
        say("No call was refused by the centre." if code is None else f"No call was refused with {printable(code)}.")
        return
    rows = [(moment(row["at"]), row["tenant"] or "-", row["call_sid"], row["code"], row["reason"]) for row in found]
    for line in table((f"REFUSED {zone()}", "TENANT", "CALL", "CODE", "REASON"), rows[:_SHOWN]):
        say(line)
    if len(rows) > _SHOWN:
        say(f"… and {len(rows) - _SHOWN} more; see --json")
    say("When the cause is mended: edge-agent quarantine retry --all; to give one up: edge-agent quarantine drop CALL")


@app.command("show")
def show(
    call: Annotated[str, typer.Argument(metavar="CALL", help="By its id or how that ends.")],
    *,
    full: Annotated[bool, typer.Option("--full", help="With numbers, names and what was said.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Show one refused call: code and reason, and the record as it would be sent, by default without personal data."""
    from agent.cli.local import LocalCalls

    with LocalCalls.of(load_to_look(file)) as calls:
        row = _refused(calls, call)
        record = _record(calls, row["call_sid"], full=full)
    if as_json:
        say_json({**row, "record": record})
        return
    say(f"{row['call_sid']}, revision {row['revision']}, of {row['tenant'] or 'no tenant'}")
    say(f"refused {moment(row['at'])} {zone()}: {printable(row['reason'])} ({printable(row['code'])})")
    say(json_text(record))


@app.command("retry")
def retry(
    call: OneCall = None,
    *,
    code: OfCode = None,
    everything: All = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Send refused calls again, for example after the centre was mended."""
    settings = load_to_look(file)
    query = _chosen(settings, call, code, everything=everything)
    count = _done(settings, "retry", query)
    if as_json:
        say_json({"requeued": count})
    else:
        say(f"{counted(count, 'call')} will be sent again.")


@app.command("drop")
def drop(
    call: OneCall = None,
    *,
    code: OfCode = None,
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Give refused calls up: they stay here, and are not sent unless they change. Who did it is kept."""
    settings = load_to_look(file)
    query = _chosen(settings, call, code, everything=everything)
    if not yes and not (
        sys.stdin.isatty() and typer.confirm(f"Never send {_in_words(query)}? This cannot be undone", err=True)
    ):
        raise CommandFailed("nothing was given up; --yes does it without asking")
    count = _done(settings, "drop", {**query, "by": who()})
    if as_json:
        say_json({"dropped": count})
    else:
        say(f"{counted(count, 'call')} will not be sent.")


@app.command("export")
def export(
    output: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Readable for you only; stdout if none.")
    ] = None,
    *,
    code: OfCode = None,
    file: ConfigFile = DEFAULT_FILE,
) -> None:
    """Write refused calls as JSON lines: what the centre said, and the whole record with all personal data."""
    from agent.cli.local import LocalCalls

    with LocalCalls.of(load_to_look(file)) as calls:
        found = [row for row in calls.refused() if code in {None, row["code"]}]
        if output is None:
            _write(calls, found, sys.stdout)
            return
        try:
            with open(output, "w", encoding="utf-8", opener=_private) as stream:
                _write(calls, found, stream)
        except OSError as exc:
            raise CommandFailed(f"{output} cannot be written: {exc.strerror}") from None
    note(f"edge-agent: {counted(len(found), 'call')} written to {output}")


def _private(path: str, flags: int) -> int:
    import os

    return os.open(path, flags, 0o600)


def _write(calls: "LocalCalls", found: list[dict[str, Any]], stream: IO[str]) -> None:
    for row in found:
        with suppress(LookupError):  # sent or given up meanwhile
            stream.write(json_text({**row, "record": _record(calls, row["call_sid"], full=True)}, compact=True) + "\n")


def _record(calls: "LocalCalls", sid: str, *, full: bool) -> dict[str, Any]:  # Any: JSON
    from agent.store.quarantine import refused_record

    record = refused_record(calls.connection, sid)
    if record is None:
        raise LookupError(sid)
    told: dict[str, Any] = record._asdict()
    for name in _TOLD_BY_SIZE:
        # As it is kept; what is wrong with it may be that it cannot be read.
        with suppress(ValueError):
            told[name] = json.loads(told[name])
    return told if full else _masked(told)


def _masked(told: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    masked = {name: _mask(told[name]) for name in _NUMBERS}
    masked |= {name: f"({_size(told[name])}; --full shows it)" for name in _TOLD_BY_SIZE if told[name]}
    for name in ("caller_name", "recording"):
        masked[name] = "(--full shows it)" if told[name] else told[name]
    return {**told, **masked}


def _size(value: Any) -> str:  # Any: JSON
    return counted(len(value), "element") if isinstance(value, list) else counted(len(value), "character")


def _mask(number: str | None) -> str | None:
    """All but the last digits."""
    if number is None:
        return None
    return re.sub(r"\w", "*", number[:-_LAST_DIGITS]) + number[-_LAST_DIGITS:]


def _chosen(settings: "Settings", call: str | None, code: str | None, *, everything: bool) -> dict[str, str]:
    """What is asked of the agent: exactly one way to say which."""
    if (call is not None) + (code is not None) + everything != 1:
        raise CommandFailed("say which: CALL, --code CODE or --all; see edge-agent quarantine list")
    if call is not None:
        from agent.cli.local import LocalCalls

        with LocalCalls.of(settings) as calls:
            return {"call_sid": _refused(calls, call)["call_sid"]}
    return {"code": code} if code is not None else {}


def _in_words(query: dict[str, str]) -> str:
    if "call_sid" in query:
        return query["call_sid"]
    return f"any of the calls refused with {query['code']}" if "code" in query else "any of the refused calls"


def _refused(calls: "LocalCalls", sid: str) -> dict[str, Any]:  # Any: columns
    found = [row for row in calls.refused() if row["call_sid"].endswith(sid)]
    found = [row for row in found if row["call_sid"] == sid] or found
    if len(found) != 1:
        what = "several refused calls have ids that end" if found else "no refused call has an id that ends"
        raise CommandFailed(f"{what} in {sid!r}; see edge-agent quarantine list")
    return found[0]


def _done(settings: "Settings", what: str, query: dict[str, str]) -> int:
    """By the running agent, else here."""
    from agent.cli.client import RunningAgent

    try:
        agent = RunningAgent(settings.socket_file, timeout=_ANSWER_SECONDS)
        return int(agent.post(f"/v1/quarantine/{what}", **query)["calls"])
    except NotRunning:
        import asyncio

        return asyncio.run(_without_agent(settings, what, **query))


async def _without_agent(
    settings: "Settings", what: str, *, call_sid: str | None = None, code: str | None = None, by: str = ""
) -> int:
    """Holding the database meanwhile."""
    from agent.cli.local import database_of
    from agent.store.engine import open_store
    from agent.store.outbox import SqliteOutbox
    from agent.store.quarantine import Chosen
    from agent.store.writer import Writer

    async with open_store(database_of(settings)) as store:
        outbox = SqliteOutbox(store, await Writer.over(store.connection), site=settings.site)
        chosen = Chosen(call_sid, code)
        return await (outbox.drop(chosen, by=by) if what == "drop" else outbox.retry(chosen))
