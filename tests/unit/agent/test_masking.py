"""What tenants may have masked: found by its checksum in any text, and nothing else touched."""

import json
import string
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.calls.masking import IBAN_LENGTHS, Mask, Masking, masked
from agent.calls.operations import (
    AppendInteractions,
    Operation,
    Patch,
    PopTask,
    PushTask,
    Recall,
    SetTranscript,
    TakeOver,
    UpdateTask,
)
from config.privacy import MaskKind, compile_pattern
from config.settings import PrivacyRule

ALL = Mask(MaskKind)
SEPARATORS = st.sampled_from(["", " ", "-", "\u00a0", " - ", "\u2011"])


def with_luhn(head: str) -> str:
    """The digits with the one that makes them a card's."""
    total = 0
    for place, char in enumerate(reversed(head)):
        doubled = int(char) * (1 if place % 2 else 2)
        total += doubled - 9 * (doubled > 9)
    return f"{head}{-total % 10}"


def with_checks(nine: str) -> str:
    """The digits with the two that make them a TCKN."""
    digits = [int(char) for char in nine]
    tenth = (7 * sum(digits[0::2]) - sum(digits[1::2])) % 10
    return f"{nine}{tenth}{(sum(digits) + tenth) % 10}"


def with_iban_checks(country: str, rest: str) -> str:
    """The account's number as an IBAN."""
    digits = "".join(str(int(char, 36)) for char in f"{rest}{country}00")
    return f"{country}{98 - int(digits) % 97:02}{rest}"


@st.composite
def grouped(draw: st.DrawFn, number: str, *, size: int = 4) -> str:
    """As people write a number: in groups, or in one."""
    between = draw(SEPARATORS)
    width = draw(st.integers(1, size + 2))
    return between.join(number[place : place + width] for place in range(0, len(number), width))


@st.composite
def cards(draw: st.DrawFn) -> str:
    head = draw(st.sampled_from("23456789")) + draw(st.text("0123456789", min_size=11, max_size=17))
    return with_luhn(head)


TCKNS = st.builds(
    lambda first, rest: with_checks(first + rest),
    st.sampled_from("123456789"),
    st.text("0123456789", min_size=8, max_size=8),
)


@st.composite
def ibans(draw: st.DrawFn) -> str:
    country = draw(st.sampled_from(sorted(IBAN_LENGTHS)))
    size = IBAN_LENGTHS[country] - 4
    return with_iban_checks(
        country, draw(st.text(string.digits + string.ascii_uppercase, min_size=size, max_size=size))
    )


# What may stand beside a number without being a part of it.
AROUND = st.text(st.characters(exclude_categories=("Nd", "L", "Cs", "Pd", "Zs")), max_size=5).filter(
    lambda text: not set(text) & set("-\u2212")
)
WORDS = st.builds(" ".join, st.lists(st.sampled_from(["kartım", "no:", "şudur", "(yani)", "[x]", "12:30"]), max_size=3))


@given(st.data(), AROUND, AROUND, WORDS)
def test_every_card_is_masked_whatever_stands_around_it(data: st.DataObject, left: str, right: str, word: str) -> None:
    card = data.draw(cards())
    text = f"{word} {left}{data.draw(grouped(card))}{right} {word}"

    result = ALL.text(text)

    assert "[card ****" in result
    assert card[:-4] not in "".join(filter(str.isdecimal, result))


@given(st.data(), AROUND, AROUND)
def test_every_tckn_is_masked_whatever_stands_around_it(data: st.DataObject, left: str, right: str) -> None:
    assert ALL.text(f"{left}{data.draw(grouped(data.draw(TCKNS)))}{right}") == f"{left}[tckn]{right}"


@given(st.data(), AROUND, AROUND, st.booleans())
def test_every_iban_is_masked_whatever_stands_around_it(
    data: st.DataObject, left: str, right: str, is_lower: bool
) -> None:
    written = data.draw(grouped(data.draw(ibans())))
    text = f"{left}{written.lower() if is_lower else written}{right}"

    assert Mask([MaskKind.IBAN]).text(text) == f"{left}[iban]{right}"


@given(cards(), st.integers(1, 9))
def test_a_card_with_a_wrong_digit_stays(card: str, change: int) -> None:
    wrong = card[:-1] + str((int(card[-1]) + change) % 10)
    assert Mask([MaskKind.CARD]).text(f"no {wrong}.") == f"no {wrong}."


@given(TCKNS, st.integers(1, 9))
def test_a_tckn_with_a_wrong_digit_stays(tckn: str, change: int) -> None:
    wrong = tckn[:-1] + str((int(tckn[-1]) + change) % 10)
    assert ALL.text(f"no {wrong}.") == f"no {wrong}."


@given(ibans(), st.integers(1, 9))
def test_an_iban_with_a_wrong_check_stays(iban: str, change: int) -> None:
    wrong = f"{iban[:3]}{(int(iban[3]) + change) % 10}{iban[4:]}"
    assert Mask([MaskKind.IBAN]).text(wrong) == wrong


@pytest.mark.parametrize(
    "text",
    [
        "0532 123 45 67", "+90 532 123 45 67", "905321234567", "0090 212 555 10 01", "1763855106123",
        "2026-11-22T23:45:06.123456+00:00", "4f1c41111111111111111aa2", "192.168.100.200", "0.9871234567890123",
    ],
)  # fmt: skip
def test_telephone_numbers_moments_and_ids_stay(text: str) -> None:
    assert ALL.text(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kart4111111111111111", "kart[card ****1111]"),
        ("4111 1111 1111 1111 12/26 123", "[card ****1111] 12/26 123"),
        ("Amex 3782-822463-10005'i", "Amex [card ****0005]'i"),
        ("٤١١١١١١١١١١١١١١١", "[card ****1111]"),
        ("IBANTR33 0006 1005 1978 6457 8413 26, tamam", "IBAN[iban], tamam"),
        ("10000000146 ve 4111-1111-1111-1111", "[tckn] ve [card ****1111]"),
    ],
)  # fmt: skip
def test_numbers_as_people_write_them(text: str, expected: str) -> None:
    assert ALL.text(text) == expected


def test_only_what_the_rule_names_is_masked() -> None:
    text = "4111111111111111 10000000146"
    assert Mask([MaskKind.TCKN]).text(text) == "4111111111111111 [tckn]"
    assert Mask([MaskKind.CARD]).text(text) == "[card ****1111] 10000000146"


PIECES = st.one_of(
    st.text(max_size=8),
    cards(),
    TCKNS,
    ibans(),
    st.sampled_from([" ", "-", "a", "[card ****1111]", "[tckn]", "f", "é"]),
)
TEXTS = st.builds("".join, st.lists(PIECES, max_size=8))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(TEXTS)
@settings(max_examples=300)
def test_masking_twice_is_masking_once(text: str) -> None:
    once = ALL.text(text)
    assert ALL.text(once) == once


def shape(value: Any) -> Any:
    match value:
        case dict():
            return [shape(inner) for inner in value.values()]
        case list():
            return [shape(inner) for inner in value]
        case _:
            return None


@given(VALUES)
def test_json_keeps_its_shape_and_holds_no_number_any_more(value: Any) -> None:
    result = ALL.value(value)

    assert shape(result) == shape(value)
    assert ALL.value(result) == result
    json.dumps(result)


def test_keys_and_whole_numbers_are_masked_and_two_alike_stay_two() -> None:
    value = {"4111111111111111": 1, "5105105105105100": {"pan": 4111111111111111}, "4012888888881881": [10000000146]}
    other = {"4111111111111111": 1, "4000000000001000": 2, "6011000990139424": 3, "6011601160111111": 4}

    assert ALL.value(value) == {
        "[card ****1111]": 1, "[card ****5100]": {"pan": "[card ****1111]"}, "[card ****1881]": ["[tckn]"],
    }  # fmt: skip
    assert len(ALL.value(other)) == len(other)


@pytest.mark.parametrize("unit", ["1", "1 ", "4-", "TR33 ", "TR33", "41111111 ", "a1", "12345678901 "])
def test_hostile_texts_take_time_in_proportion_to_their_length(unit: str) -> None:
    text = (unit * 65_536)[:65_536]
    began = time.process_time()
    ALL.text(text)
    assert time.process_time() - began < 2.0


def test_a_pattern_that_would_take_forever_elsewhere_takes_no_time() -> None:
    mask = Mask(patterns=[compile_pattern(r"(a+)+\$")])
    began = time.process_time()
    assert mask.text("a" * 65_536) == "a" * 65_536
    assert time.process_time() - began < 1.0


def test_configured_patterns_leave_the_marks_alone() -> None:
    mask = Mask([MaskKind.CARD], [compile_pattern(r"MRN-\d{6}"), compile_pattern("(?i)card")])
    assert mask.text("ş MRN-123456, Card 4111111111111111") == "ş [masked], [masked] [card ****1111]"


RULES = Masking(
    [
        PrivacyRule(tenant="acme", mask=(MaskKind.CARD,)),
        PrivacyRule(tenant="globex", patterns=("secret",)),
        PrivacyRule(tenant="*", mask=(MaskKind.TCKN,)),
    ]
)
SAID = {"id": "4111111111111111", "type": "utterance", "text": "4111111111111111 10000000146 secret"}


@pytest.mark.parametrize(
    ("tenant", "expected"),
    [
        ("acme", "[card ****1111] [tckn] secret"),
        ("globex", "4111111111111111 [tckn] [masked]"),
        ("initech", "4111111111111111 [tckn] secret"),
        (None, "[card ****1111] [tckn] [masked]"),
    ],
)
def test_a_tenants_rules_and_those_for_all_hold_and_all_of_them_before_the_tenant_is_known(
    tenant: str | None, expected: str
) -> None:
    kept = RULES(tenant, AppendInteractions([SAID]))

    assert isinstance(kept, AppendInteractions)
    assert kept.interactions == [SAID | {"text": expected}]


CARD = "4111111111111111"
MARK = "[card ****1111]"


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (Patch({"variables": {"pan": CARD, CARD: 1}}), Patch({"variables": {"pan": MARK, MARK: 1}})),
        (
            PushTask({"id": CARD, "task_name": "pay", "state_data": {"pan": CARD}}),
            PushTask({"id": CARD, "task_name": "pay", "state_data": {"pan": MARK}}),
        ),
        (UpdateTask(CARD, {"state_data": {"pan": CARD}}), UpdateTask(CARD, {"state_data": {"pan": MARK}})),
        (PopTask(CARD), PopTask(CARD)),
        (SetTranscript([{"text": CARD}]), SetTranscript([{"text": MARK}])),
        (SetTranscript(None), SetTranscript(None)),
        (
            TakeOver(7, {"a": CARD}, [{"id": CARD, "task_name": CARD}], [], [CARD], [{"id": "1", "text": CARD}]),
            TakeOver(7, {"a": MARK}, [{"id": CARD, "task_name": MARK}], [], [CARD], [{"id": "1", "text": MARK}]),
        ),
        (Recall([], [], None), Recall([], [], None)),
    ],
)  # fmt: skip
def test_every_kind_of_operation_is_masked_but_for_its_ids(operation: Operation, expected: Operation) -> None:
    assert masked(operation, Mask([MaskKind.CARD])) == expected
