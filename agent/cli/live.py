"""`edge-agent live`: the calls under way."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent.cli.output import AsJson, clock, counted, say, say_again, say_json, table
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look
from agent.cli.watch import Interval, Watch, show_again_and_again

if TYPE_CHECKING:
    from agent.cli.client import RunningAgent
    from config.settings import Settings


def show_live(
    *,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
    watch: Watch = False,
    interval: Interval = 1.0,
) -> None:
    """Show the calls under way, as services on this machine see them."""
    from agent.cli.client import RunningAgent

    agent = RunningAgent(load_to_look(file).socket_file)
    if watch:
        show_again_and_again(lambda: _show(agent, as_json=as_json, again=True), interval=interval)
    else:
        _show(agent, as_json=as_json)


def _show(agent: "RunningAgent", *, as_json: bool, again: bool = False) -> None:
    told = agent.get("/v1/calls")
    if as_json:
        say_json(told, compact=again)
        return
    text = "\n".join(live_lines(told["calls"], now=datetime.now(UTC)))
    say_again(text) if again else say(text)


def refuse_if_live(settings: "Settings", sid: str) -> None:
    """Raises CommandFailed, saying where to look, if the running agent has a call whose id ends so."""
    from agent.cli.client import RunningAgent
    from agent.cli.faults import CommandFailed

    try:
        live = RunningAgent(settings.socket_file).get("/v1/calls")["calls"]
    except CommandFailed:  # no agent, or none that answers: nothing to add
        return
    found = [call["call_sid"] for call in live if call["call_sid"].endswith(sid)]
    if len(found) == 1:
        raise CommandFailed(f"it still goes on: edge-agent calls explain {found[0]}, or edge-agent live")


def live_lines(calls: list[dict[str, Any]], *, now: datetime) -> list[str]:
    """A line for each call, the longest first."""
    if not calls:
        return ["No call is under way."]
    rows = [_line(call, now) for call in sorted(calls, key=lambda call: str(call["call_start_time"]))]
    return [
        counted(len(calls), "live call"),
        *table(("FOR", "TENANT", "DIRECTION", "CALLER", "CALLEE", "STATE", "WITH", "CALL"), rows),
    ]


def _line(call: dict[str, Any], now: datetime) -> tuple[str, ...]:
    lasted = now - datetime.fromisoformat(call["call_start_time"])
    others = [
        str(party.get("number") or party["channel"])
        for party in call["participants"]
        if party["role"] != "caller" and party["state"] in {"up", "held"}
    ]
    return (
        clock(max(0.0, lasted.total_seconds())),
        call["tenant_id"] or "(none)",
        call["direction"],
        " ".join(word for word in (call["caller_id"] or "-", call["caller_name"]) if word),
        call["callee_id"] or "-",
        call["state"],
        ", ".join(others) or "-",
        call["call_sid"],
    )
