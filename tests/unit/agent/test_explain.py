"""Explaining a call: every entry of its timeline is led back to a message, and every decision to a rule."""

from functools import partial

import pytest

from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.tracking.derive import Derivation
from agent.tracking.explain import Explanation, explain
from config.settings import TenancySettings
from tests.unit.agent.captures import TENANCY, frames, truths
from tests.unit.agent.test_wire import WHOLE


def explained(name: str, *, rules: CallRules | None = None, tenancy: TenancySettings = TENANCY) -> list[Explanation]:
    """Every call of a capture."""
    told = []
    for true in truths(name):
        derivation = Derivation(
            site="here",
            pbx="main",
            rules=rules or CallRules(),
            assign=partial(assign, tenancy),
            interpreter=AsteriskInterpreter(),
        )
        heard = [(frame.raw, frame.arrived_at) for frame in frames(name)]
        found = explain(heard, derivation, f"here:main:{true['native_id']}")
        assert found is not None
        told.append(found)
    return told


def words(name: str, *, rules: CallRules | None = None, tenancy: TenancySettings = TENANCY) -> dict[str, str]:
    (told,) = explained(name, rules=rules, tenancy=tenancy)
    return told.rules(tenancy)


@pytest.mark.parametrize("name", WHOLE)
def test_every_entry_of_the_timeline_comes_from_a_message(name: str) -> None:
    for told in explained(name):
        entries = [id(entry) for step in told.steps for entry in step.entries]
        gone = {id(entry) for step in told.steps for entry in step.taken_back}
        assert {entry for entry in entries if entry not in gone} == {id(entry) for entry in told.call.timeline}
        assert told.derived is not None
        assert told.derived.is_whole
        direction = [step.direction for step in told.steps if step.direction is not None]
        assert direction[-1] == told.call.direction()


def test_a_call_that_was_not_heard_is_not_explained() -> None:
    derivation = Derivation(
        site="here",
        pbx="main",
        rules=CallRules(),
        assign=partial(assign, TENANCY),
        interpreter=AsteriskInterpreter(),
    )

    assert explain([], derivation, "here:main:1.1") is None


def test_the_rules_that_decided_are_told_in_words() -> None:
    assert words("inbound_answered") == {
        "direction": 'inbound: it began on PJSIP/trunk-acme, a trunk by the pattern "*trunk*"',
        "tenant": "acme: rule 1 (did_prefix 9021255510) is the first that fits",
        "outcome": "completed / answered: a person, a far end or an answering service answered",
    }
    assert words("outbound_answered")["direction"].endswith(
        'PJSIP/trunk-globex was dialled, a trunk by the pattern "*trunk*"'
    )
    assert words("internal_busy")["direction"].startswith("internal: it began on PJSIP/1")


def test_a_context_is_a_reason_too() -> None:
    told = words("inbound_answered", rules=CallRules(trunks=("SIP/none",)))

    assert told["direction"] == (
        'inbound: it began in the context from-trunk-acme, an inbound one by the pattern "from-trunk*"'
    )


def test_a_default_tenant_and_none_are_told() -> None:
    assert words("inbound_answered", tenancy=TenancySettings(default="x"))["tenant"] == (
        "x: by tenancy.default, since no rule fits"
    )
    assert words("inbound_answered", tenancy=TenancySettings())["tenant"].startswith("nobody's: no rule fits")
