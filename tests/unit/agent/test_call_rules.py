"""What a site tells of its PBX, and what names and dial strings tell by themselves."""

import pytest

from agent.calls.numbers import NumberPlan
from agent.calls.rules import (
    CallRules,
    dialled_endpoints,
    dialled_number,
    endpoint_of,
    extension_of,
    queue_name,
    resource_of,
)
from agent.daemon import rules_of
from config.settings import AsteriskSettings, Settings


@pytest.mark.parametrize(
    ("channel", "endpoint"),
    [
        ("PJSIP/101-0000001a", "PJSIP/101"),
        ("PJSIP/trunk-acme-0000001a", "PJSIP/trunk-acme"),
        ("Local/101@phones-00000001;2", "Local/101@phones"),
        ("DAHDI/i1/5551234-2", "DAHDI/i1/5551234"),
        ("odd", "odd"),
        ("", ""),
    ],
)
def test_a_channel_is_a_channel_of_its_endpoint(channel: str, endpoint: str) -> None:
    assert endpoint_of(channel) == endpoint


def test_a_phone_s_endpoint_is_named_after_its_extension() -> None:
    assert extension_of("PJSIP/101") == "101"
    assert extension_of("PJSIP/ayse") is None
    assert resource_of("Local/101@phones") == "101"


@pytest.mark.parametrize(
    ("data", "endpoints"),
    [
        ("PJSIP/101,30,tT", ["PJSIP/101"]),
        ("PJSIP/101&PJSIP/102&SIP/103,30", ["PJSIP/101", "PJSIP/102", "SIP/103"]),
        ("PJSIP/05321112233@trunk-acme,60", ["PJSIP/trunk-acme"]),
        ("SIP/trunk-acme/05321112233,60", ["SIP/trunk-acme"]),
        ("Local/101@phones/n", ["Local/101"]),
        ("nonsense", []),
        ("", []),
    ],
)
def test_the_endpoints_of_a_dial_are_read_from_its_arguments(data: str, endpoints: list[str]) -> None:
    assert dialled_endpoints(data) == endpoints


@pytest.mark.parametrize(
    ("dial_string", "number"),
    [
        ("101", "101"),
        ("PJSIP/101", "101"),
        ("05321112233@trunk-acme", "05321112233"),
        ("trunk-acme/05321112233", "05321112233"),
        ("trunk-acme/sip:+905321112233@192.0.2.1", "+905321112233"),
        ("ayse", None),
        ("", None),
    ],
)
def test_the_number_is_read_from_a_dial_string(dial_string: str, number: str | None) -> None:
    assert dialled_number(dial_string) == number


def test_a_queue_is_the_first_argument() -> None:
    assert [queue_name(data) for data in ("sales", "sales,,,,30", "")] == ["sales", "sales", None]


def test_a_site_s_patterns_tell_trunks_and_inbound_contexts() -> None:
    rules = CallRules(trunks=("PJSIP/ttnet*", "DAHDI/*"), inbound_contexts=("ext-did*",))

    assert rules.is_trunk("PJSIP/ttnet-1")
    assert rules.is_trunk("DAHDI/i1/555")
    assert not rules.is_trunk("PJSIP/101")
    assert rules.is_inbound_context("ext-did-0001")
    assert not rules.is_inbound_context("from-internal")


@pytest.mark.parametrize("name", ["trunks", "inbound_contexts", "answering_applications", "voicemail_applications"])
def test_what_a_site_does_not_tell_is_as_its_settings_have_it(name: str) -> None:
    assert getattr(CallRules(), name) == getattr(AsteriskSettings(name="main", username="u", secret="geheim"), name)


def test_a_site_without_trunks_has_none() -> None:
    rules = CallRules(trunks=(), inbound_contexts=())

    assert not rules.is_trunk("PJSIP/trunk-acme")
    assert not rules.is_inbound_context("from-trunk")


def test_applications_are_known_without_their_case() -> None:
    rules = CallRules(answering_applications=("Stasis", "AGI"), voicemail_applications=("VoiceMail",))

    assert rules.is_answering("stasis")
    assert rules.is_answering("AGI")
    assert not rules.is_answering("Background")
    assert rules.is_voicemail("voicemail")


def test_numbers_are_those_of_the_pbx_s_own_country_or_else_the_site_s() -> None:
    pbxes = [
        {"name": "istanbul", "username": "u", "secret": "geheim"},
        {"name": "berlin", "username": "u", "secret": "geheim", "country": "DE", "outside_line_prefixes": ["0"]},
    ]
    settings = Settings.model_validate({"site": "here", "country": "TR", "pbx": pbxes})

    plans = {name: rules.numbers for name, rules in rules_of(settings).items()}

    assert plans == {"istanbul": NumberPlan("TR"), "berlin": NumberPlan("DE", ("0",))}
