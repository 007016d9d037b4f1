"""Simulated calls played in no time, and what the product makes of what was told about them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.simulator.events import Event
from agent.simulator.exchange import Exchange
from agent.simulator.plan import CallPlan
from agent.simulator.playing import PlayedCall
from agent.simulator.scenarios import queue_members
from agent.simulator.truth import SimulatedCall
from config.settings import TenancySettings, TenantRule

START_US = 1_795_366_000_000_000
SECOND_US = 1_000_000

TENANCY = TenancySettings(
    rules=(TenantRule(tenant="acme", context="*-acme"), TenantRule(tenant="globex", context="*-globex"))
)

# What the truth calls so, and what a row of the product calls it.
FIELDS = {
    "tenant": "tenant",
    "direction": "direction",
    "caller": "caller_id",
    "caller_name": "caller_name",
    "callee": "callee_id",
    "answered_by": "answered_by",
    "queue": "queue",
    "status": "status",
    "disposition": "disposition",
    "start_time": "start_time",
    "pbx_answer_time": "pbx_answer_time",
    "answer_time": "answer_time",
    "end_time": "end_time",
}


@dataclass(frozen=True, slots=True)
class Played:
    """What the PBX said, and what was true."""

    events: list[Event]
    truths: list[SimulatedCall]

    @property
    def stream(self) -> bytes:
        return b"".join(event.block for event in self.events)


def new_exchange(*, pace: float = 1.0) -> Exchange:
    return Exchange(now_us=START_US, pace=pace, members=queue_members())


def play(plans: Iterable[CallPlan], *, pace: float = 1.0, apart_seconds: float = 0.2) -> Played:
    """All calls, one beginning so long after the other."""
    exchange = new_exchange(pace=pace)
    for number, plan in enumerate(plans):
        exchange.begin(PlayedCall(exchange, plan), at_us=START_US + int(number * apart_seconds * SECOND_US))
    return Played(play_on(exchange), exchange.take_ended())


def play_on(exchange: Exchange, *, until_us: int | None = None) -> list[Event]:
    """What happens until a moment, or until nothing more does."""
    events: list[Event] = []
    while (due := exchange.next_due()) is not None and (until_us is None or due <= until_us):
        events += exchange.advance(due)
    return events


def rows_of(events: Iterable[Event]) -> dict[str, dict[str, Any]]:
    """The product's rows of ended calls by their native id; fails if it holds a call for alive."""
    model = CallModel(site="here", pbx="sim", rules=CallRules(), assign=partial(assign, TENANCY))
    interpreter = AsteriskInterpreter()
    for event in events:
        told = interpreter.interpret(event.block.removesuffix(b"\r\n\r\n"), datetime.now(UTC))
        if told is not None:
            model.apply(told)
    assert model.live_calls() == []
    return {call.native_id: call.to_row() | {"tenant": call.assignment.tenant} for call in model.take_ended()}


def differences(truth: SimulatedCall, row: dict[str, Any]) -> dict[str, tuple[object, object]]:
    """Where a row is not as it should be: field, truth, row. Talk time may differ by what lies between two events."""
    found = {
        name: (getattr(truth, name), row[column])
        for name, column in FIELDS.items()
        if getattr(truth, name) != row[column]
    }
    if abs(truth.talk_seconds - row["talk_seconds"]) > 0.01:
        found["talk_seconds"] = (truth.talk_seconds, row["talk_seconds"])
    return found
