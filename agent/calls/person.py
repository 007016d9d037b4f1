"""A person's number, found wherever it stands and however it is written: in a column, a text, JSON or a PBX's frame.

A public number is known in every form that the sites' number plans allow: national, international, behind a prefix for
an outside line, with blanks, dashes and brackets. What is no public number (an extension) is found only as it is.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from agent.calls.numbers import NumberPlan

ERASED: Final = "[erased]"
_BETWEEN: Final = " \\-.()/\\u00a0\\u2007\\u2009-\\u2015\\u202f"
_GAP: Final = f"[{_BETWEEN}]{{0,3}}"
_SEPARATOR: Final = re.compile(f"[{_BETWEEN}]")
_MAX_PREFIX: Final = 10  # digits before a national number
_LONGEST_EXTENSION: Final = 6  # as `numbers` has it


class Person:
    """Whoever has this number. Raises ValueError for what is no number."""

    def __init__(self, number: str, plans: Iterable[NumberPlan]) -> None:
        plans = tuple(plans) or (NumberPlan(),)
        self.e164 = next(filter(None, (plan.e164(number) for plan in plans)), None)
        self.number = self.e164 or _plain(number)
        if not any(char.isdecimal() for char in self.number):
            raise ValueError("this is no number; write digits, as 05321234567, +905321234567 or 1001")
        if self.e164 is None:
            self._prefixes = frozenset({""})
            self._pattern = re.compile(rf"(?<![0-9A-Za-z+]){re.escape(self.number)}(?![0-9A-Za-z])")
            return
        import phonenumbers  # loaded by the plan already

        parsed = phonenumbers.parse(self.e164)
        self._national = phonenumbers.national_significant_number(parsed)
        code = str(parsed.country_code)
        region = phonenumbers.region_code_for_number(parsed)
        trunk = (phonenumbers.ndd_prefix_for_region(region, True) if region else None) or "0"
        outside = {"", *(prefix for plan in plans for prefix in plan.outside_line_prefixes)}
        public = ("", trunk, code, f"00{code}", f"+{code}")
        self._prefixes = frozenset(f"{line}{prefix}" for line in outside for prefix in public)
        self._pattern = re.compile(rf"{_GAP.join(self._national)}(?![0-9])")

    @property
    def is_public(self) -> bool:
        """Whether the number is one of the public network, known in all its forms."""
        return self.e164 is not None

    @property
    def is_telling(self) -> bool:
        """Whether the digits can hardly be anything else: an extension's may be a price or a room."""
        return self.is_public or len(self.number.lstrip("+")) > _LONGEST_EXTENSION

    def forms(self) -> frozenset[str]:
        """Every way the number may be told as one word."""
        if self.e164 is None:
            return frozenset({self.number})
        return frozenset(f"{prefix}{self._national}" for prefix in self._prefixes)

    def stands_in(self, text: str) -> bool:
        """Whether a text holds the number."""
        return next(self._spans(text), None) is not None

    def without(self, text: str) -> str:
        """The text with a mark in the number's place; the same one if it does not hold it."""
        pieces, last = [], 0
        for start, end in self._spans(text):
            pieces += [text[last:start], ERASED]
            last = end
        return "".join([*pieces, text[last:]]) if pieces else text

    def without_in(self, value: Any) -> Any:  # Any: JSON
        """JSON of the same shape; texts, keys and whole numbers that hold the number are marked."""
        match value:
            case str():
                return self.without(value)
            case bool() | None:
                return value
            case int():
                told = self.without(str(value))
                return value if told == str(value) else told
            case Mapping():
                return {self.without(str(name)): self.without_in(inner) for name, inner in value.items()}
            case list() | tuple():
                return [self.without_in(inner) for inner in value]
            case _:
                return value

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        for match in self._pattern.finditer(text):
            start = match.start() if self.e164 is None else self._begins(text, match.start())
            if start is not None:
                yield start, match.end()

    def _begins(self, text: str, place: int) -> int | None:
        """Where the number begins whose national part begins at `place`; None if other digits stand before it."""
        found = place if not _ends_in_digit(text, place) else None
        prefix = ""
        while place > 0 and len(prefix) < _MAX_PREFIX:
            char = text[place - 1]
            if char.isdecimal() or char == "+":
                prefix = char + prefix
            elif _SEPARATOR.fullmatch(char) is None or _ends_in_three(text, place):
                break
            place -= 1
            if prefix in self._prefixes and prefix and prefix[0] == char and not _ends_in_digit(text, place):
                found = place
            if char == "+":
                break
        return found


def plain_number(told: str) -> str:
    """A told number as one word, to be compared with `Person.forms`."""
    return _plain(told)


def _plain(number: str) -> str:
    kept = re.sub(r"[^0-9+*#]", "", number.partition("@")[0])
    return kept[:1] + kept[1:].replace("+", "")


def _ends_in_digit(text: str, place: int) -> bool:
    return place > 0 and text[place - 1].isdecimal()


def _ends_in_three(text: str, place: int) -> bool:
    """Whether more stands before this place than belongs between digits of one number."""
    return place >= 4 and all(_SEPARATOR.fullmatch(char) for char in text[place - 4 : place])
