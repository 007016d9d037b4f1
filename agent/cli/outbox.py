"""`edge-agent outbox` and `edge-agent sync …`: how much waits for the centre, and sending it."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from agent.cli.faults import ExitCode
from agent.cli.output import AsJson, counted, length, moment, say, say_json
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from agent.cli.client import RunningAgent

sync_app = typer.Typer(help="Send calls to the centre.", no_args_is_help=True, rich_markup_mode=None)

_LOOK_SECONDS: Final = 0.1


def show_outbox(*, file: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Show how much waits for the centre, and how much it refused."""
    from agent.cli.local import LocalCalls

    with LocalCalls.of(load_to_look(file)) as calls:
        backlog = calls.backlog()
    refused = backlog["quarantined"]
    if as_json:
        say_json(backlog)
        return
    if backlog["waiting"]:
        waits = (datetime.now(UTC) - backlog["oldest_at"]).total_seconds()
        since = f"{moment(backlog['oldest_at'])} ({length(waits)})"
        say(f"{counted(backlog['waiting'], 'call')} waiting for the centre, the oldest since {since}.")
    else:
        say("Nothing waits for the centre.")
    if refused:
        say(f"{counted(refused, 'call')} refused by the centre: edge-agent quarantine list")
    else:
        say("No call was refused by the centre.")


@sync_app.command("now")
def sync_now(
    *,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for what comes of it.")] = 5.0,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Have the running agent send at once, also out of a pause, and tell what came of it."""
    from agent.cli.client import RunningAgent

    agent = RunningAgent(load_to_look(file).socket_file)
    before = agent.get("/v1/status")
    agent.post("/v1/sync")
    after, outcome = _followed(agent, before, wait)
    waiting, quarantined = after["backlog"]["waiting"], after["backlog"]["quarantined"]
    sent = after["central"]["sent"] - before["central"]["sent"]
    if as_json:
        error = after["central"]["last_error"] if outcome == "failed" else None
        say_json({"outcome": outcome, "sent": sent, "waiting": waiting, "quarantined": quarantined, "error": error})
    elif outcome == "done":
        say(f"Done: {counted(sent, 'call')} sent, nothing waits.")
    elif outcome == "failed":
        say(f"Not sent, {counted(waiting, 'call')} waiting: {after['central']['last_error']}")
    else:
        say(f"Under way: {counted(sent, 'call')} sent so far, {waiting} waiting; see edge-agent status --watch")
    if outcome == "failed":
        raise typer.Exit(ExitCode.ERROR)


def _followed(agent: "RunningAgent", before: dict[str, Any], wait: float) -> tuple[dict[str, Any], str]:
    """The status when it is decided what came of it, or when the time is over."""
    deadline = time.monotonic() + wait
    while True:
        after = agent.get("/v1/status")
        central = after["central"]
        # It is not idle from the wish on until all is done that was wished.
        if not after["backlog"]["waiting"] and central["state"] == "idle":
            return after, "done"
        has_failed = central["state"] in {"waiting", "paused"} and central["last_error"]
        tried_again = central["next_try_at"] != before["central"]["next_try_at"]
        if has_failed and tried_again:
            return after, "failed"
        if time.monotonic() >= deadline:
            return after, "failed" if has_failed else "under way"
        time.sleep(_LOOK_SECONDS)
