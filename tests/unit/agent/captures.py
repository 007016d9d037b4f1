"""What real Asterisks said (tests/wire), played to the call model, and what Asterisk itself holds to be true of it."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.calls.events import CallEvent
from agent.calls.live_call import LiveCall
from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.pbx.asterisk.protocol import AmiFramer, AmiMessage
from config.settings import TenancySettings, TenantRule

WIRE = Path(__file__).parents[2] / "wire"

# The two tenants of the town where the captures were made.
TENANCY = TenancySettings(
    rules=(
        TenantRule(tenant="acme", did_prefix="9021255510"),
        TenantRule(tenant="globex", did_prefix="9031244420"),
        TenantRule(tenant="acme", extension_range=(100, 199)),
        TenantRule(tenant="globex", extension_range=(200, 299)),
    )
)


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame and when it came: AMI's lists and answers bear no time, they came after what stands before them."""

    raw: bytes
    arrived_at: datetime


def frames(name: str) -> list[Frame]:
    """The frames of one capture, the banner left out."""
    _, _, stream = (WIRE / f"{name}.ami").read_bytes().partition(b"\n")
    raws = AmiFramer().feed(stream)
    stamps = [AmiMessage(raw).get("timestamp") for raw in raws]
    first = next((stamp for stamp in stamps if stamp), "0")
    arrived = datetime.fromtimestamp(float(first), UTC)
    timed = []
    for raw, stamp in zip(raws, stamps, strict=True):
        arrived = datetime.fromtimestamp(float(stamp), UTC) if stamp else arrived
        timed.append(Frame(raw, arrived))
    return timed


def events(played: Iterable[Frame]) -> Iterator[CallEvent]:
    """What the call model is told of frames."""
    interpreter = AsteriskInterpreter("cp1254")
    for frame in played:
        event = interpreter.interpret(frame.raw, frame.arrived_at)
        if event is not None:
            yield event


def new_model(tenancy: TenancySettings = TENANCY, rules: CallRules | None = None) -> CallModel:
    """A model that knows the town's tenants."""
    return CallModel(site="here", pbx="main", rules=rules or CallRules(), assign=lambda facts: assign(tenancy, facts))


def played(told: Iterable[CallEvent]) -> CallModel:
    """A model that heard all that."""
    model = new_model()
    for event in told:
        model.apply(event)
    return model


def is_empty(model: CallModel) -> bool:
    """Whether nothing is remembered but ids of what is gone."""
    return not (model._by_channel or model._by_linked or model._bridges or model.live_calls())


def truths(name: str) -> list[dict[str, Any]]:
    """Asterisk's own account of the calls, from its CEL and CDR."""
    told: list[dict[str, Any]] = json.loads((WIRE / f"{name}.json").read_text())
    for call in told:
        for key in ("start_time", "pbx_answer_time", "answer_time", "end_time"):
            call[key] = datetime.fromisoformat(call[key]) if call[key] else None
    return told


def account(call: LiveCall) -> dict[str, Any]:
    """The record of an ended call in the words of the truth."""
    row = call.to_row()
    return {
        "native_id": call.native_id,
        "tenant": call.assignment.tenant,
        "direction": row["direction"],
        "caller": row["caller_id"] or "",
        "caller_name": row["caller_name"] or "",
        "callee": row["callee_id"],
        "talk_seconds": row["talk_seconds"],
    } | {
        key: row[key]
        for key in (
            "status", "disposition", "start_time", "pbx_answer_time", "answer_time", "end_time", "answered_by", "queue",
            "hangup_cause",
        )
    }  # fmt: skip


def disagreements(
    ours: dict[str, Any], truth: dict[str, Any], *, but: Iterable[str] = (), within: timedelta = timedelta(seconds=0.05)
) -> list[str]:
    """A line for each thing told differently; moments may differ a little, talk time as much as twice that."""
    lines = []
    for key, told in ours.items():
        true = truth[key]
        # Where the caller's leg tells no cause, ours is another leg's.
        if key in but or (key == "hangup_cause" and not true):
            same = True
        elif key == "talk_seconds":
            same = abs(told - (true or 0.0)) <= 2 * within.total_seconds()
        elif isinstance(told, datetime) and isinstance(true, datetime):
            same = abs(told - true) <= within
        else:
            same = told == true
        if not same:
            lines.append(f"{key}: true is {true!r}, told was {told!r}")
    return lines
