"""`edge-agent status`: how the agent is, at a glance."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli.faults import ExitCode, NotRunning
from agent.cli.output import AsJson, note, say, say_again, say_json
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look
from agent.cli.watch import Interval, Watch, show_again_and_again

if TYPE_CHECKING:
    from agent.health import AgentStatus


def show_status(
    *,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
    watch: Watch = False,
    interval: Interval = 2.0,
    fail_on_warning: Annotated[
        bool, typer.Option("--fail-on-warning", help="Exit with 1 if a person should look.")
    ] = False,
) -> None:
    """Show how the agent is: its PBXes, calls, backlog, centre, disk and database.

    Exits with 0 while an agent runs and with 3 if none does; then what the local database knows is shown.
    """
    if watch:
        show_again_and_again(lambda: _show(read_status(file), as_json=as_json, again=True), interval=interval)
        return
    status = read_status(file)
    _show(status, as_json=as_json)
    code = _code(status, fail_on_warning=fail_on_warning)
    if code is ExitCode.NOT_RUNNING:
        note("edge-agent: no agent is running; this is what the local database knows")
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _show(status: "AgentStatus", *, as_json: bool, again: bool = False) -> None:
    if as_json:
        say_json(status.model_dump(mode="json"), compact=again)
        return
    from agent.cli.status_text import status_lines

    text = "\n".join(status_lines(status, now=datetime.now(UTC)))
    say_again(text) if again else say(text)


def read_status(file: Path) -> "AgentStatus":
    """What the running agent says of itself, else what can be known without it."""
    from agent.cli.client import RunningAgent
    from agent.health import AgentStatus

    settings = load_to_look(file)
    try:
        return AgentStatus.model_validate(RunningAgent(settings.socket_file).get("/v1/status"))
    except NotRunning:
        from agent.cli.stopped import status_without_agent

        return status_without_agent(settings)


def _code(status: "AgentStatus", *, fail_on_warning: bool) -> ExitCode:
    from agent.health import Verdict

    if status.verdict is Verdict.STOPPED:
        return ExitCode.NOT_RUNNING
    return ExitCode.WARNING if fail_on_warning and status.verdict is not Verdict.OK else ExitCode.OK
