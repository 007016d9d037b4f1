"""A line that breaks between any two frames of any capture, with CEL filling in what was not heard: the same calls.

`breaks_of` makes each boundary another kind of break. The database is a real one, and what is compared stands in it.
Every boundary of Asterisk 22 and every third of 16; all of both with SENTIRIC_EVERY_BREAK=1 (about a minute).
"""

import os
from functools import cache

import pytest

from agent.calls.numbers import NumberPlan
from agent.calls.rules import CallRules
from config.settings import TenancySettings
from tests.pbx.stage.truth import CallTruth, differences, load_truths
from tests.unit.agent.captures import WIRE, is_empty, new_model
from tests.unit.agent.cel_files import STAGE, Rows, cel_rows, ended, lines, new_calls
from tests.unit.agent.reconnects import Break, Ledger, breaks_of, disagreements, heard, without
from tests.unit.agent.test_cel_wire import UNTOLD_EVENTS, as_far_as_told

RULES = CallRules(numbers=NumberPlan("TR"))
EVERY = bool(os.environ.get("SENTIRIC_EVERY_BREAK"))
# What CEL cannot tell (test_cel_wire says of which version or capture, and why) is told as far as it was heard.
UNTOLD = {"hold": "hold_seconds", "talk": "talk_seconds"}


def live(name: str, cut: Break | None) -> Rows:
    """What the live feed alone told."""
    model = new_model(TenancySettings(), RULES)
    told: Rows = {}
    for event in heard(name, cut):
        model.apply(event)
        told |= {call.call_sid: call.to_row() for call in model.take_ended()}
    assert is_empty(model)
    return told


@cache
def written_down(name: str) -> Rows:
    """What CEL alone told."""
    return ended(new_calls(TenancySettings()), cel_rows(lines(name)))


def truths_of(name: str) -> tuple[list[CallTruth], list[CallTruth]]:
    """As people know it, and as far as CEL can tell it; holding left out, of which either knows a part."""
    whole = load_truths((WIRE / f"{name}.json").read_text(encoding="utf-8"))
    part = [as_far_as_told(truth, name) for truth in whole]
    return [without(truth, UNTOLD_EVENTS) for truth in whole], [without(truth, UNTOLD_EVENTS) for truth in part]


def test_every_boundary_is_broken_at_in_every_way() -> None:
    cuts = [cut for name in STAGE for cut in breaks_of(name)]

    assert len(STAGE) > 170
    assert len(cuts) > 9_000
    assert len({(cut.lost, cut.before_list) for cut in cuts}) > 100


@pytest.mark.parametrize("name", STAGE)
def test_a_line_that_breaks_anywhere_leaves_no_trace_in_a_call_that_cel_tells(name: str) -> None:
    ledger = Ledger()
    unbroken = ledger.kept(live(name, None), written_down(name))
    whole, part = truths_of(name)
    untold = {UNTOLD.get(column, column) for truth in part for column in truth.open}
    wrong: dict[Break, list[str]] = {}

    for cut in list(breaks_of(name))[:: 1 if EVERY or name.startswith("stage/22/") else 3]:
        calls = ledger.kept(live(name, cut), written_down(name))

        told = [without_row(row) for row in calls.values() if row["call_sid"] in unbroken or row["merged_into"] is None]
        lines_of = disagreements(calls, unbroken, but=untold)
        if differences(whole, told):
            lines_of += differences(part, told)
        if lines_of:
            wrong[cut] = lines_of

    assert not wrong, "\n".join(f"{cut}: {line}" for cut, several in list(wrong.items())[:5] for line in several)


def without_row(row: dict[str, object]) -> dict[str, object]:
    timeline = row["timeline"]
    assert isinstance(timeline, list)
    return row | {"timeline": [entry for entry in timeline if f"{entry['event']} " not in UNTOLD_EVENTS]}
