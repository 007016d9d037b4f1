"""Whose call it is."""

from datetime import timedelta
from typing import Any

import pytest

from agent.calls.events import ChannelUp
from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts, assign, facts_of, matches
from config.settings import TenancySettings, TenantRule
from sync.models import Call, Direction
from tests.unit.agent.captures import WIRE, events, frames, is_empty, new_model, played
from tests.unit.agent.stories import NOON, Story, tell

INBOUND = CallFacts(
    pbx="main",
    direction=Direction.INBOUND,
    callee="902125551001",
    context="from-trunk-acme",
    accountcode="7",
    endpoints=frozenset({"PJSIP/trunk-acme", "PJSIP/101"}),
    trunks=frozenset({"PJSIP/trunk-acme"}),
    extensions=frozenset({"101"}),
)
OUTBOUND = CallFacts(
    pbx="main", direction=Direction.OUTBOUND, callee="902125551001", extensions=frozenset({"150", "ayse", "9" * 5000})
)


def rule(**conditions: Any) -> TenantRule:  # Any: conditions are of several types
    return TenantRule(tenant="acme", **conditions)


@pytest.mark.parametrize(
    "condition",
    [
        {"pbx": "main"},
        {"context": "from-trunk-*"},
        {"accountcode": "7"},
        {"trunk": "PJSIP/trunk-acme"},
        {"endpoint": "PJSIP/1*"},
        {"did_prefix": "90212555"},
        {"did_prefix": "+90212555"},
        {"did_range": ("902125551000", "902125551099")},
        {"did_range": ("+902125551001", "+902125551001")},
        {"extension_range": (100, 199)},
        {"pbx": "main", "did_prefix": "90212", "context": "from-trunk-acme"},
    ],
)
def test_a_rule_whose_conditions_all_hold_matches(condition: dict[str, Any]) -> None:
    assert matches(rule(**condition), INBOUND)


@pytest.mark.parametrize(
    "condition",
    [
        {"pbx": "other"},
        {"context": "from-trunk"},
        {"context": "FROM-TRUNK-ACME"},
        {"accountcode": "77"},
        {"trunk": "PJSIP/101"},
        {"endpoint": "PJSIP/2*"},
        {"did_prefix": "212555"},
        {"did_range": ("902125551002", "902125551099")},
        {"did_range": ("0001", "9999")},
        {"extension_range": (102, 199)},
        {"pbx": "main", "did_prefix": "444"},
    ],
)
def test_a_rule_with_a_condition_that_does_not_hold_does_not_match(condition: dict[str, Any]) -> None:
    assert not matches(rule(**condition), INBOUND)


def test_a_number_called_from_inside_is_no_did() -> None:
    assert not matches(rule(did_prefix="90212"), OUTBOUND)
    assert not matches(rule(did_range=("902125551000", "902125551099")), OUTBOUND)


def test_a_did_counts_while_the_direction_is_not_known() -> None:
    assert matches(rule(did_prefix="90212"), CallFacts(pbx="main", callee="+902125551001"))


def test_an_outbound_call_is_its_caller_s_and_odd_numbers_are_no_extensions() -> None:
    assert matches(rule(extension_range=(100, 199)), OUTBOUND)
    assert not matches(rule(extension_range=(200, 10**9)), OUTBOUND)


def test_nothing_known_matches_nothing() -> None:
    for condition in ({"context": "*"}, {"trunk": "*"}, {"endpoint": "*"}, {"did_prefix": "0"}, {"accountcode": ""}):
        assert not matches(rule(**condition), CallFacts(pbx="main"))


def test_the_first_rule_that_matches_wins() -> None:
    tenancy = TenancySettings(
        default="rest",
        rules=(
            TenantRule(tenant="never", pbx="other"),
            TenantRule(tenant="acme", did_prefix="90212"),
            TenantRule(tenant="globex", context="from-trunk-*"),
        ),
    )

    assert assign(tenancy, INBOUND) == Assignment("acme", 1)


def test_a_call_that_no_rule_matches_is_the_default_tenant_s_or_nobody_s() -> None:
    assert assign(TenancySettings(default="rest"), INBOUND) == Assignment("rest", None)
    assert assign(TenancySettings(), INBOUND) == Assignment(None, None)


# While a call lasts

BY_PHONE = TenancySettings(default="rest", rules=(TenantRule(tenant="acme", endpoint="PJSIP/101"),))


def assignment(model: CallModel) -> Assignment:
    (call,) = model.live_calls()
    return call.assignment


def test_the_default_is_provisional_until_a_rule_matches() -> None:
    model, story = new_model(BY_PHONE), Story().from_trunk()
    tell(model, story)
    assert assignment(model) == Assignment("rest", None)

    tell(model, Story().dials("x", "PJSIP/101"))

    assert assignment(model) == Assignment("acme", 0)


def test_the_first_rule_wins_though_a_later_one_matched_first() -> None:
    model = new_model(
        TenancySettings(
            rules=(TenantRule(tenant="globex", endpoint="PJSIP/201"), TenantRule(tenant="acme", did_prefix="90212"))
        )
    )
    tell(model, Story().from_trunk())
    assert assignment(model) == Assignment("acme", 1)

    tell(model, Story().dials("x", "PJSIP/201"))

    assert assignment(model) == Assignment("globex", 0)


def test_a_call_that_another_was_merged_into_is_asked_about_at_once() -> None:
    model = new_model(BY_PHONE)
    tell(model, Story().from_trunk())
    tell(model, Story("2", at=NOON + timedelta(seconds=1)).opens("a", "PJSIP/101"))

    model.apply(ChannelUp(NOON + timedelta(seconds=2), "2.a", "1.a"))

    assert assignment(model) == Assignment("acme", 0)


def test_a_call_without_a_tenant_is_kept_unassigned() -> None:
    model = new_model(TenancySettings())

    (call,) = tell(model, Story().from_trunk().hangs_up("a").closes("a"))

    assert call.assignment == Assignment()
    assert is_empty(model)


def test_rules_mended_while_a_call_lasts_count_for_it() -> None:
    model = new_model(TenancySettings())
    tell(model, Story().from_trunk())

    model.assign = lambda facts: assign(BY_PHONE, facts)
    tell(model, Story().dials("x", "PJSIP/101"))

    assert assignment(model) == Assignment("acme", 0)


CAPTURES = sorted(path.stem for path in WIRE.glob("*.ami"))


@pytest.mark.parametrize("name", CAPTURES)
@pytest.mark.parametrize("missed", [0, 12, 40], ids=lambda missed: f"{missed}_missed")
def test_a_stored_call_tells_tenant_rules_what_the_live_one_told(name: str, missed: int) -> None:
    for call in played(list(events(frames(name)))[missed:]).take_ended():
        assert facts_of(Call(**call.to_row()), CallRules()) == call.facts()


def test_a_call_whose_caller_was_never_seen_tells_the_same_stored_and_live() -> None:
    story = Story().opens("x", "PJSIP/101", number="101", context="phones", age_seconds=5.0, up=True).closes("x")

    (call,) = tell(new_model(), story)

    facts = facts_of(Call(**call.to_row()), CallRules())
    assert facts == call.facts() == CallFacts("main", Direction.INTERNAL, endpoints=frozenset({"PJSIP/101"}))


def test_the_caller_s_leg_is_told_first_and_marked() -> None:
    (call,) = tell(new_model(), Story().from_trunk().dials("x", "PJSIP/101").closes("x").closes("a"))

    assert [(leg["channel"], leg.get("caller")) for leg in call.to_row()["legs"]] == [("1.a", True), ("1.x", None)]


@pytest.mark.parametrize("number", ["", "abc", "+90 212 555", "(0212)555", "0212-555"])
def test_a_number_that_nobody_can_dial_is_refused_in_a_rule(number: str) -> None:
    with pytest.raises(ValueError, match="as it is dialled"):
        rule(did_prefix=number)
