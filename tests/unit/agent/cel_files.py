"""Captured channel event logs (CEL) and what is made of them."""

from collections.abc import Iterable
from typing import Any

from agent.calls.numbers import NumberPlan
from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.cel import CelReader, CelRow
from agent.pbx.asterisk.cel_calls import CelCalls
from config.settings import TenancySettings
from tests.unit.agent.captures import TENANCY, WIRE

TOWN = sorted(
    str(path.relative_to(WIRE)).removesuffix(".cel.csv")
    for path in [*WIRE.glob("*.cel.csv"), *WIRE.glob("asterisk-16/*.cel.csv")]
)
STAGE = sorted(str(path.relative_to(WIRE)).removesuffix(".cel.csv") for path in WIRE.glob("stage/*/*.cel.csv"))
Rows = dict[str, dict[str, Any]]  # Any: columns of many types


def lines(name: str) -> list[bytes]:
    """The lines of one capture, its header left out."""
    return (WIRE / f"{name}.cel.csv").read_bytes().splitlines(keepends=True)[1:]


def cel_rows(told: Iterable[bytes]) -> list[CelRow]:
    """What is read of lines; those that are no row are left out."""
    reader = CelReader(encoding="cp1254")
    return [row for row in map(reader.read, told) if isinstance(row, CelRow)]


def new_calls(tenancy: TenancySettings = TENANCY, **more: Any) -> CelCalls[int]:  # Any: of CelCalls
    """A listener that knows the town's tenants and Turkey's numbers."""
    rules = CallRules(numbers=NumberPlan("TR"))
    return CelCalls(site="here", pbx="main", rules=rules, assign=lambda facts: assign(tenancy, facts), **more)


def close_all(calls: CelCalls[int]) -> None:
    """The PBX lists its channels, twice, and has none."""
    calls.take_list(frozenset())
    calls.take_list(frozenset())


def ended(calls: CelCalls[int], told: Iterable[CelRow], *, first: int = 0) -> Rows:
    """The columns of the calls that ended while those rows were told, by their name."""
    for number, row in enumerate(told, start=first):
        calls.add(row, number)
    return {call.row["call_sid"]: call.row for call in calls.take_ended()}
