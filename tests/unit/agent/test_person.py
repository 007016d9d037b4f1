"""A person's number is found however it is written, and nobody else's is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.numbers import NumberPlan
from agent.calls.person import ERASED, Person, plain_number

PLANS = [NumberPlan("TR", ("9",))]
AYSE = Person("0532 123 45 67", PLANS)
WRITTEN = [
    "+905321234567", "905321234567", "00905321234567", "05321234567", "5321234567", "905321234567", "9 0532 123 45 67",
    "+90 (532) 123-45-67", "0 532 123 45 67", "sip:+905321234567@trunk.example", "0090 532 123 4567",
]  # fmt: skip


@pytest.mark.parametrize("written", WRITTEN)
def test_the_number_is_found_however_it_is_written(written: str) -> None:
    assert AYSE.e164 == "+905321234567"
    for text in (written, f"CallerIDNum: {written}\r\n", f'"Ayşe" <{written}>', f"call me at {written}, please"):
        assert AYSE.stands_in(text)
        assert "1234567" not in "".join(filter(str.isdecimal, AYSE.without(text)))


@pytest.mark.parametrize(
    "text",
    ["05321234568", "1790005321234567.12", "532123456", "53212345678", "+15321234567", "05311234567", "1532 123 45 67"],
)
def test_other_numbers_stay(text: str) -> None:
    assert not AYSE.stands_in(text)
    assert AYSE.without(text) == text


def test_a_number_beside_another_is_cut_out_alone() -> None:
    assert AYSE.without("12 0532 123 45 67 8") == f"12 {ERASED} 8"
    assert AYSE.without("a 05321234567;+905321234567 b") == f"a {ERASED};{ERASED} b"


def test_json_keeps_its_shape() -> None:
    told = {"05321234567": [5321234567, "x 905321234567", None, True, 1.5], "n": {"a": 7}}
    assert AYSE.without_in(told) == {ERASED: [ERASED, f"x {ERASED}", None, True, 1.5], "n": {"a": 7}}


def test_an_extension_is_found_only_by_itself() -> None:
    person = Person("1001", PLANS)
    assert not person.is_telling
    assert person.stands_in("PJSIP/1001-0000001a")
    assert person.stands_in("CallerIDNum: 1001\r\n")
    assert not any(person.stands_in(text) for text in ("10010", "11001", "1001a", "+1001", "1790001001.7"))


@pytest.mark.parametrize("number", ["", "anonymous", "+", "  "])
def test_what_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(ValueError, match="no number"):
        Person(number, PLANS)


@given(st.text(max_size=40))
def test_what_was_erased_is_not_found_again(text: str) -> None:
    assert not AYSE.stands_in(AYSE.without(f"{text}05321234567{text}")) or "5321234567" in text


def test_every_form_as_one_word_is_among_the_forms() -> None:
    assert {plain_number(written) for written in WRITTEN} <= AYSE.forms()
