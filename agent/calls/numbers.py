"""Numbers as PBXes write them, read as public numbers: E.164 by a country's numbering plan, never a guess.

A PBX tells a number as somebody dialled it or as a trunk delivered it: `0212 555 10 01`, `902125551001`, `+90…`,
`0090…`, `9` and then any of these. What is no valid number of the plan (an extension, a service code, a name) has no
E.164 form; the number itself is kept as told beside it. The plans are those of the `phonenumbers` library, which is
loaded with the first number: it costs some 30 ms and 3 MB.
"""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from sync.models import Presentation

if TYPE_CHECKING:
    from phonenumbers import PhoneNumber

MAX_LENGTH: Final = 256  # characters of a number with its URI; longer ones are nobody's
_E164_LENGTH: Final = 16  # + and 15 digits
_MAX_DIGITS: Final = 24  # with the prefixes before it
# A number without +, 00 or trunk prefix may as well be an extension (up to six digits) or a subscriber's number without
# its area code (up to eight), and is read as a public one only if it is longer.
_LONGEST_EXTENSION: Final = 6
_LONGEST_LOCAL: Final = 8
_REMEMBERED: Final = 2048  # numbers, some 300 bytes each

# What people and machines put between digits, beside blanks and dashes of any kind.
_SEPARATORS: Final = frozenset("-.()/\u2060")
_SEPARATOR_CATEGORIES: Final = frozenset({"Zs", "Pd", "Cf"})
_SCHEME: Final = re.compile(r"\s*<?\s*(?:sips?|tel|callto):", re.IGNORECASE)
_PHONE_CONTEXT: Final = re.compile(r";phone-context=(\+[0-9]{1,15})(?:[;>]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NumberPlan:
    """How numbers are written at one PBX.

    `country` is ISO 3166-1 alpha-2 ("TR"); with None only numbers that begin with + or 00 can be read.
    `outside_line_prefixes` is what phones dial before a public number ("9", "0"), if the PBX wants that.
    """

    country: str | None = None
    outside_line_prefixes: tuple[str, ...] = ()

    def e164(self, number: str | None, *, dialled: bool = False) -> str | None:
        """The number in E.164 (`+902125551001`), or None if it is no valid public number by the plan.

        `dialled`: a phone of this PBX dialled it, so what may be an outside line prefix is taken for one first; else
        only if the number makes no sense with it. Never raises, whatever a stranger's PBX calls a number.
        """
        if not number or len(number) > MAX_LENGTH:
            return None
        return _e164(number, self.country, self.outside_line_prefixes, dialled)


def presentation(number: str | None, name: str | None) -> Presentation:
    """Whether the caller showed a number, by what stands where a number and a name should.

    Carriers and PBXes write words there: "anonymous", "Restricted", "unknown". A number that is told beside the name
    "Anonymous" (RFC 3323) was withheld from whoever is called and told to the PBX alone.
    """
    told, called = _word(number), _word(name)
    if told in _RESTRICTED or called == "anonymous":
        return Presentation.RESTRICTED
    if told not in _UNAVAILABLE and told.strip("+0"):
        return Presentation.ALLOWED
    return Presentation.RESTRICTED if called in _RESTRICTED else Presentation.UNAVAILABLE


_RESTRICTED: Final = frozenset(
    {
        "anonymous", "anonym", "anonim", "anonymous.invalid", "restricted", "private", "privatenumber",
        "privatecaller", "withheld", "numberwithheld", "withheldnumber", "blocked", "blockedcaller", "hidden",
        "hiddennumber", "suppressed", "unterdrueckt", "unterdruckt", "gizli", "gizlinumara", "ozel", "ozelnumara",
        "p",
    }
)  # fmt: skip
# "asterisk" is what chan_sip calls callers of whom it knows nothing; "o" (out of area) and "p" are analog lines' marks.
_UNAVAILABLE: Final = frozenset(
    {
        "", "unknown", "unknownnumber", "unknowncaller", "unavailable", "notavailable", "outofarea", "noid", "nonumber",
        "none", "null", "asterisk", "unbekannt", "bilinmeyen", "bilinmeyennumara", "bilinmiyor", "o", "s",
    }
)  # fmt: skip


def _word(text: str | None) -> str:
    """As little of the text as tells one word from another: no address around it, no case, accents or separators."""
    if not text or len(text) > MAX_LENGTH:
        return "" if not text else "longer than any word of these"
    text = _SCHEME.sub("", text).partition("@")[0].partition(";")[0].replace("ı", "i")
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(char for char in plain if char.isalnum() or char in "+*#.")


@lru_cache(maxsize=_REMEMBERED)
def _e164(number: str, country: str | None, prefixes: tuple[str, ...], dialled: bool) -> str | None:
    digits = _digits(number)
    if digits is None:
        return None
    behind_prefix = [
        digits[len(prefix) :]
        for prefix in sorted(prefixes, key=len, reverse=True)
        if prefix and not digits.startswith("+") and digits.startswith(prefix)
    ]
    readings = [*behind_prefix, digits] if dialled else [digits, *behind_prefix]
    for reading in readings:
        for public in _public_numbers(reading, country):
            return public
    return None


def _digits(number: str) -> str | None:
    """Digits, * and #, with a + before them or not; None if there is anything else but what stands between digits."""
    if number.isdecimal() and number.isascii() and len(number) <= _MAX_DIGITS:
        return number  # as most are
    context = _PHONE_CONTEXT.search(number)
    number = _SCHEME.sub("", number).partition("@")[0].partition(";")[0].strip("<> \t")
    kept: list[str] = []
    for char in number:
        if char in "+＋" and not kept:
            kept.append("+")
        elif (digit := unicodedata.decimal(char, None)) is not None:
            kept.append(str(digit))
        elif char in "*#":
            kept.append(char)
        elif char not in _SEPARATORS and unicodedata.category(char) not in _SEPARATOR_CATEGORIES:
            return None
    if context is not None and kept and kept[0] != "+":
        kept.insert(0, context[1])
    return "".join(kept) if 0 < len(kept) <= _MAX_DIGITS else None


def _public_numbers(digits: str, country: str | None) -> Iterator[str]:
    """What the digits can mean, the likeliest first."""
    if not digits.removeprefix("+").isdecimal():
        return
    if digits.startswith(("+", "00")):
        yield from _valid("+" + digits.removeprefix("+").removeprefix("00"), None)
    if digits.startswith("+") or country is None or len(digits) <= _LONGEST_EXTENSION:
        return
    import phonenumbers

    code = phonenumbers.country_code_for_region(country)
    if digits.startswith(str(code)) and len(digits) > _LONGEST_LOCAL:
        yield from _valid(f"+{digits}", None)  # as trunks deliver it, without its +
    yield from _valid(digits, country)


def _valid(digits: str, country: str | None) -> Iterator[str]:
    import phonenumbers

    try:
        number = phonenumbers.parse(digits, country, keep_raw_input=True)
    except phonenumbers.NumberParseException:
        return
    if phonenumbers.is_valid_number(number) and not (country and _may_be_local(digits, number, country)):
        public = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        if len(public) <= _E164_LENGTH:  # Germany's plan allows more
            yield public


def _may_be_local(digits: str, number: "PhoneNumber", country: str) -> bool:
    """Whether digits of a national number might be a subscriber's number without its area code.

    Not if the trunk prefix shows that the area code is there, not where there is no such prefix or no longer number
    (all numbers are whole there), and not for a number of the whole country (444 in Turkey).
    """
    import phonenumbers

    if number.country_code_source != phonenumbers.CountryCodeSource.FROM_DEFAULT_COUNTRY:
        return False
    trunk_prefix = phonenumbers.ndd_prefix_for_region(country, True)
    if len(digits) > _LONGEST_LOCAL or not trunk_prefix or digits.startswith(trunk_prefix):
        return False
    plan = phonenumbers.PhoneMetadata.metadata_for_region(country)
    if (
        plan is not None
        and plan.fixed_line is not None
        and len(digits) >= max(plan.fixed_line.possible_length, default=0)
    ):
        return False
    return bool(phonenumbers.number_type(number) != phonenumbers.PhoneNumberType.UAN)
