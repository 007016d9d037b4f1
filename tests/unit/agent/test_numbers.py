"""Numbers as PBXes write them, read as public numbers."""

import phonenumbers
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.calls.numbers import MAX_LENGTH, NumberPlan, presentation
from config.countries import COUNTRIES
from sync.models import Presentation

TURKEY, GERMANY, AMERICA, BRITAIN = NumberPlan("TR"), NumberPlan("DE"), NumberPlan("US"), NumberPlan("GB")
MOBILE, OFFICE = "+905321234567", "+902125551001"


@pytest.mark.parametrize(
    ("plan", "told", "public"),
    [
        (TURKEY, "+905321234567", MOBILE),
        (TURKEY, "00905321234567", MOBILE),
        (TURKEY, "905321234567", MOBILE),  # as trunks deliver it
        (TURKEY, "05321234567", MOBILE),
        (TURKEY, "5321234567", MOBILE),
        (TURKEY, "2125551001", OFFICE),
        (TURKEY, "0212 555 10 01", OFFICE),
        (TURKEY, "(0212) 555-10.01", OFFICE),
        (TURKEY, "0212\u00a0555\u201110\u200b01", OFFICE),
        (TURKEY, "+90 (0) 532 123 45 67", MOBILE),
        (TURKEY, "٠٢١٢٥٥٥١٠٠١", OFFICE),
        (TURKEY, "＋９０５３２１２３４５６７", MOBILE),
        (TURKEY, "sip:+905321234567@192.0.2.1;user=phone", MOBILE),
        (TURKEY, "<sip:905321234567@pbx>", MOBILE),
        (TURKEY, "tel:+90-532-123-45-67", MOBILE),
        (TURKEY, "tel:5551001;phone-context=+90212", OFFICE),
        (TURKEY, "444 0 444", "+904440444"),
        (TURKEY, "08502220000", "+908502220000"),
        (TURKEY, "9001234567", "+909001234567"),
        (TURKEY, "00493012345678", "+493012345678"),
        (TURKEY, "+442079460958", "+442079460958"),
        (GERMANY, "030123456", "+4930123456"),
        (GERMANY, "+49 (0)30 123456", "+4930123456"),
        (GERMANY, "4930123456", "+4930123456"),
        (GERMANY, "0151 12345678", "+4915112345678"),
        (GERMANY, "15112345678", "+4915112345678"),
        (GERMANY, "4915112345678", "+4915112345678"),
        (GERMANY, "00905321234567", MOBILE),
        (AMERICA, "2125551001", "+12125551001"),
        (AMERICA, "12125551001", "+12125551001"),
        (AMERICA, "(212) 555-1001", "+12125551001"),
        (AMERICA, "011493012345678", "+493012345678"),
        (AMERICA, "00905321234567", MOBILE),  # no way to dial it there, but a way to deliver it
        (BRITAIN, "020 7946 0958", "+442079460958"),
        (BRITAIN, "2079460958", "+442079460958"),
        (BRITAIN, "442079460958", "+442079460958"),
        (NumberPlan("IT"), "0612345678", "+390612345678"),  # the zero stays
        (NumberPlan("LU"), "27123456", "+35227123456"),  # no trunk prefix: a short number is whole
        (NumberPlan(None), "+905321234567", MOBILE),
        (NumberPlan(None), "0090 532 123 45 67", MOBILE),
    ],
)
def test_a_public_number_is_known_however_it_is_written(plan: NumberPlan, told: str, public: str) -> None:
    assert plan.e164(told) == public


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        *((TURKEY, told) for told in ("101", "1001", "20001", "112", "155", "11880", "*8", "*6705321234567", "#31#")),
        *((TURKEY, told) for told in ("5551001", "18881234567", "4915112345678", "+90", "+", "0", "00", "0000000000")),
        *((TURKEY, told) for told in ("anonymous", "Ali", "sip:ali@pbx", "s", "", "<unknown>", "05321234567x3", "٫٫")),
        *(
            (TURKEY, told)
            for told in ("+9053212345678901", "1" * MAX_LENGTH, "+" * 40, "½", "²²²²²²²²²²", "\0", "\ud83d")
        ),
        *((GERMANY, told) for told in ("110", "115", "1001", "20112", "4012345")),  # the last: no area code
        *((AMERICA, told) for told in ("911", "411", "101", "5551001")),
        *((BRITAIN, told) for told in ("999", "101", "123456")),
        *((NumberPlan(None), told) for told in ("05321234567", "905321234567", "2125551001", "101")),
    ],
)
def test_what_is_no_number_of_the_plan_has_no_public_form(plan: NumberPlan, told: str) -> None:
    assert plan.e164(told) is None


@pytest.mark.parametrize(
    ("told", "dialled", "public"),
    [
        ("9 0532 123 45 67", True, MOBILE),
        ("9444 0 444", True, "+904440444"),
        ("9 00 44 20 7946 0958", True, "+442079460958"),
        ("9112", True, None),
        ("05321234567", True, MOBILE),
        # 0 for the line and 0532…, or 00 and a number in Cuba: that depends on who writes it.
        ("005321234567", True, MOBILE),
        ("005321234567", False, "+5321234567"),
        ("+5321234567", True, "+5321234567"),
        ("94440444", False, "+904440444"),  # put before a caller's number, so that it can be called back
    ],
)
def test_an_outside_line_prefix_is_taken_away(told: str, dialled: bool, public: str | None) -> None:
    plan = NumberPlan("TR", outside_line_prefixes=("9", "0"))

    assert plan.e164(told, dialled=dialled) == public


def test_no_number_has_no_public_form() -> None:
    assert TURKEY.e164(None) is None


plans = st.builds(
    NumberPlan,
    st.sampled_from(["TR", "DE", "US", "GB", "IT", "AR", "RU", None]),
    st.sampled_from([(), ("9",), ("0", "9"), ("*9",)]),
)
numbers = st.one_of(
    st.text(alphabet=st.characters(codec=None), max_size=40),
    st.text(alphabet="+0123456789*# -()", max_size=30),
    st.from_regex(r"(\+|00|0|9|)(90|49|1|44|)[1-9][0-9]{5,10}", fullmatch=True),
    st.from_regex(r"<?(sip|tel):\+?[0-9]{3,15}(;phone-context=\+?[0-9]{0,9})?(@[a-z]{1,5})?>?", fullmatch=True),
)


@given(plans, numbers, st.booleans())
@example(TURKEY, "9" * 10_000, False)
@example(TURKEY, "\ud800+90", True)
@example(GERMANY, "30000000000000", False)
def test_whatever_a_number_is_reading_it_never_fails_and_a_public_one_stays_itself(
    plan: NumberPlan, told: str, dialled: bool
) -> None:
    public = plan.e164(told, dialled=dialled)

    assert public is None or (
        public.startswith("+") and public[1:].isdecimal() and public.isascii() and len(public) <= 16
    )
    for again in (True, False):
        assert plan.e164(public, dialled=again) == public


@pytest.mark.parametrize("country", sorted(COUNTRIES))
def test_every_country_s_numbers_are_known_as_they_are_dialled_there(country: str) -> None:
    number = phonenumbers.example_number(country)
    assert number is not None
    public = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    national = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
    plan = NumberPlan(country)

    assert [plan.e164(told) for told in (public, public.replace("+", "00"), public[1:])] == [public] * 3
    # Some islands' whole numbers are as short as extensions; Mongolia has longer ones beside those without a prefix.
    is_short = sum(char.isdecimal() for char in national) <= 6 or country == "MN"
    assert plan.e164(national) == (None if is_short else public)


def test_the_countries_that_settings_know_are_those_that_have_a_plan() -> None:
    assert COUNTRIES <= phonenumbers.SUPPORTED_REGIONS


@pytest.mark.parametrize(
    ("number", "name", "expected"),
    [
        ("05321234567", "Ayşe", Presentation.ALLOWED),
        ("101", None, Presentation.ALLOWED),
        ("ali", None, Presentation.ALLOWED),
        ("+905321234567", "Unknown", Presentation.ALLOWED),
        ("anonymous", "Anonymous", Presentation.RESTRICTED),
        ("Anonymous", None, Presentation.RESTRICTED),
        ("sip:anonymous@anonymous.invalid", None, Presentation.RESTRICTED),
        ("anonymous.invalid", None, Presentation.RESTRICTED),
        ("RESTRICTED", "", Presentation.RESTRICTED),
        ("private", "", Presentation.RESTRICTED),
        ("withheld", "", Presentation.RESTRICTED),
        ("GİZLİ NUMARA", "", Presentation.RESTRICTED),
        ("Unterdrückt", "", Presentation.RESTRICTED),
        (None, "Private Number", Presentation.RESTRICTED),
        ("", "Caller ID Withheld", Presentation.UNAVAILABLE),
        ("05321234567", "Anonymous", Presentation.RESTRICTED),
        (None, None, Presentation.UNAVAILABLE),
        ("", "", Presentation.UNAVAILABLE),
        ("<unknown>", "<unknown>", Presentation.UNAVAILABLE),
        ("unavailable", None, Presentation.UNAVAILABLE),
        ("Unknown", None, Presentation.UNAVAILABLE),
        ("Bilinmeyen Numara", None, Presentation.UNAVAILABLE),
        ("0000000000", None, Presentation.UNAVAILABLE),
        (None, "Ayşe", Presentation.UNAVAILABLE),
    ],
)
def test_a_caller_shows_a_number_withholds_it_or_has_none(
    number: str | None, name: str | None, expected: Presentation
) -> None:
    assert presentation(number, name) is expected


@given(st.none() | numbers, st.none() | st.text(alphabet=st.characters(codec=None), max_size=300))
def test_whatever_stands_for_a_caller_is_one_of_the_three(number: str | None, name: str | None) -> None:
    assert presentation(number, name) in Presentation
