"""Numbers that nobody may keep, masked in what services write: cards, Turkish identity numbers, IBANs, and more.

Checksums decide, so that other numbers stay. No I/O, and time in proportion to the text, whatever the text is: the
configured patterns are RE2's, which knows no backtracking. A number that is said over several utterances is not seen.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from itertools import accumulate, pairwise
from re import compile as compiled
from typing import Any, Final, NamedTuple, Protocol, assert_never

from agent.calls.operations import (
    AppendInteractions,
    Json,
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

CARD_LENGTHS: Final = range(13, 20)  # ISO/IEC 7812
TCKN_LENGTH: Final = 11
_AIRLINE_CARD_LENGTH: Final = 15  # UATP, the only cards that begin with 1
IBAN_LENGTHS: Final = {  # the IBAN registry's
    country: int(length)
    for length, countries in {
        "15": "NO", "16": "BE", "18": "DK FI FO GL NL SD FK", "19": "MK SI", "20": "AT BA EE KZ LT LU MN XK",
        "21": "CH HR LI LV", "22": "BG BH CR DE GB GE IE ME RS VA", "23": "AE GI IL IQ OM SO TL",
        "24": "AD CZ ES MD PK RO SA SE SK TN VG", "25": "LY PT ST", "26": "IS TR",
        "27": "BI DJ FR GR IT MC MR SM", "28": "AL AZ BY CY DO GT HN HU LB NI PL SV", "29": "BR EG PS QA UA",
        "30": "JO KW MU YE", "31": "MT SC", "32": "LC", "33": "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip

# What stands between the digits of one number: blanks and dashes, also those that word processors write.
_BETWEEN: Final = r"[ \-\u00a0\u2007\u2009-\u2015\u202f\u2212]{0,3}"
_DIGITS: Final = compiled(rf"\d(?:{_BETWEEN}\d)*")
# People and forms write "IBAN" before it.
_IBAN_HEAD: Final = compiled(rf"(?:IBAN|Iban|iban)?([A-Za-z]){_BETWEEN}([A-Za-z]){_BETWEEN}[0-9]{_BETWEEN}[0-9]")
_IBAN_NEXT: Final = compiled(rf"{_BETWEEN}([0-9A-Za-z])")
_MARK: Final = compiled(r"\[(?:card \*{4}\d{4}|tckn|iban|masked)\]")
_HEX_LETTERS: Final = compiled(r"[a-f]+|[A-F]+")

# What belongs to the form of a task or an interaction, not to what was said: never masked where it is the form's.
_FORMAL_VALUES: Final = frozenset({"id", "type", "start_time", "started_at", "ended_at", "received_at"})
_FORMAL_KEYS: Final = _FORMAL_VALUES | {
    "task_name", "state_data", "speaker", "text", "language", "confidence", "tool", "arguments", "result", "sentiment",
    "service", "variables",
}  # fmt: skip


class _Pattern(Protocol):
    def finditer(self, text: str, /) -> Iterator[Any]:  # Any: the library's own matches
        ...


class _Span(NamedTuple):
    start: int
    end: int
    mark: str


class Masking:
    """The privacy rules of all tenants; called with a call's tenant and an operation, gives the operation to keep."""

    def __init__(self, rules: Iterable[PrivacyRule]) -> None:
        self._rules = tuple(rules)
        self._masks: dict[str | None, Mask] = {}

    def __call__(self, tenant: str | None, operation: Operation) -> Operation:
        """The operation without what the tenant's rules mask; the same one if there is nothing."""
        mask = self.of(tenant)
        return masked(operation, mask) if mask else operation

    def of(self, tenant: str | None) -> "Mask":
        """A tenant's rules and those for all. A call that has no tenant yet may become anybody's: every rule holds."""
        named = tenant if tenant is not None and any(rule.tenant == tenant for rule in self._rules) else None
        key = named if tenant is None or named else "*"
        if key not in self._masks:
            mine = [rule for rule in self._rules if key is None or rule.tenant in {key, "*"}]
            kinds = frozenset(kind for rule in mine for kind in rule.mask)
            patterns = dict.fromkeys(pattern for rule in mine for pattern in rule.patterns)
            self._masks[key] = Mask(kinds, [compile_pattern(pattern) for pattern in patterns])
        return self._masks[key]


class Mask:
    """What is masked, in any text or JSON."""

    def __init__(self, kinds: Iterable[MaskKind] = (), patterns: Sequence[_Pattern] = ()) -> None:
        self._kinds = frozenset(kinds)
        self._patterns = patterns
        self._checks = tuple(check for kind, check in _CHECKS.items() if kind in self._kinds)

    def __bool__(self) -> bool:
        return bool(self._kinds or self._patterns)

    def text(self, text: str) -> str:
        """The text with marks in place of what is masked."""
        return _marked(self._without_numbers(text), self._configured)

    def value(self, value: Any) -> Any:  # Any: JSON
        """JSON of the same shape; texts, keys and whole numbers are masked. The same object if there was nothing."""
        match value:
            case str():
                masked_text = self.text(value)
                return masked_text if masked_text != value else value
            case bool() | None:
                return value
            case int() | float():
                return self._number(value)
            case Mapping():
                return self._object(value)
            case list() | tuple():
                items = [self.value(item) for item in value]
                return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
            case _:
                return value

    def entry(self, entry: Json) -> Json:
        """A task or an interaction: the members of its form stay."""
        return self._object(entry, formal_values=_FORMAL_VALUES)

    def entries(self, entries: Sequence[Json]) -> Sequence[Json]:
        """Several."""
        masked_entries = [self.entry(entry) for entry in entries]
        return (
            masked_entries if any(new is not old for new, old in zip(masked_entries, entries, strict=True)) else entries
        )

    def members(self, members: Json) -> Json:
        """Changes of a context's or a task's members."""
        return self._object(members, formal_values=_FORMAL_VALUES)

    def _object(self, members: Json, *, formal_values: frozenset[str] = frozenset()) -> Json:
        formal_keys = _FORMAL_KEYS if formal_values else frozenset[str]()
        changed: dict[str, Any] = {}  # Any: JSON
        is_same = True
        for name, value in members.items():
            new_name = name if name in formal_keys else _free(self.text(name), changed)
            new_value = value if name in formal_values else self.value(value)
            is_same = is_same and new_name == name and new_value is value
            changed[new_name] = new_value
        return members if is_same else changed

    def _number(self, value: float) -> int | float | str:
        if isinstance(value, float) and not value.is_integer():
            return value
        digits = str(int(value))
        masked_text = self._without_numbers(digits)
        return masked_text if masked_text != digits else value

    def _without_numbers(self, text: str) -> str:
        # One after the other: what stands beside an IBAN is looked at as it will be told.
        if MaskKind.IBAN in self._kinds:
            text = _marked(text, _ibans)
        return _marked(text, self._in_digits) if self._checks else text

    def _in_digits(self, text: str) -> Iterator[_Span]:
        return _in_digits(text, self._checks)

    def _configured(self, text: str) -> Iterator[_Span]:
        for pattern in self._patterns:
            for match in pattern.finditer(text):
                if match.end() > match.start():
                    yield _Span(match.start(), match.end(), "[masked]")


def masked(operation: Operation, mask: Mask) -> Operation:  # noqa: PLR0911 - one for each kind
    """The operation with what the mask says; ids, types and moments stay."""
    match operation:
        case Patch():
            return replace(operation, changes=mask.members(operation.changes))
        case PushTask():
            return replace(operation, task=mask.entry(operation.task))
        case UpdateTask():
            return replace(operation, changes=mask.members(operation.changes))
        case PopTask() | Recall():  # what is recalled was masked when it was written
            return operation
        case AppendInteractions():
            return replace(operation, interactions=mask.entries(operation.interactions))
        case SetTranscript():
            told = operation.transcript
            return replace(operation, transcript=None if told is None else mask.entries(told))
        case TakeOver():
            told = operation.transcript
            return replace(
                operation,
                patch=mask.members(operation.patch),
                pushed=mask.entries(operation.pushed),
                updated=mask.entries(operation.updated),
                interactions=mask.entries(operation.interactions),
                transcript=None if told is None else mask.entries(told),
            )
    assert_never(operation)


def _free(name: str, taken: Mapping[str, object]) -> str:
    """Two numbers that end alike must not become one member."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name} {number}"
    return free


def _marked(text: str, find: Callable[[str], Iterator[_Span]]) -> str:
    """Marks that are there already stay as they are."""
    pieces, last = [], 0
    for mark in _MARK.finditer(text):
        pieces += [_replaced(text[last : mark.start()], find), mark[0]]
        last = mark.end()
    pieces.append(_replaced(text[last:], find))
    return "".join(pieces)


def _replaced(text: str, find: Callable[[str], Iterator[_Span]]) -> str:
    spans = reduce(_joined, sorted(find(text)), list[_Span]())
    pieces, last = [], 0
    for span in spans:
        pieces += [text[last : span.start], span.mark]
        last = span.end
    return "".join([*pieces, text[last:]])


def _joined(spans: list[_Span], span: _Span) -> list[_Span]:
    """Spans that overlap become one, with the mark of the longer: no digit of either is left."""
    if spans and span.start < spans[-1].end:
        other = spans[-1]
        longer = max(other, span, key=lambda each: each.end - each.start)
        spans[-1] = _Span(other.start, max(other.end, span.end), longer.mark)
    else:
        spans.append(span)
    return spans


# Cards and identity numbers


class _Run:
    """Digits with nothing but blanks and dashes between them; a number in it begins and ends where a group does."""

    def __init__(self, digits: Sequence[int], places: Sequence[int]) -> None:
        self.digits = digits
        self.places = places
        borders = [number for number, (left, right) in enumerate(pairwise(places), start=1) if right - left > 1]
        self.starts = [0, *borders]
        self.ends = frozenset([*borders, len(digits)])
        # Luhn's sums of all digits up to each place: doubled where the place is even, and where it is odd.
        doubled = [digit * 2 - 9 * (digit > 4) for digit in digits]
        self._sums = [
            [0, *accumulate(doubled[place] if place % 2 == odd else digits[place] for place in range(len(digits)))]
            for odd in (0, 1)
        ]

    def luhn(self, start: int, end: int) -> bool:
        sums = self._sums[end % 2]
        return (sums[end] - sums[start]) % 10 == 0


def _in_digits(text: str, checks: "Sequence[_Check]") -> Iterator[_Span]:
    matches = list(_DIGITS.finditer(text))
    for number, match in enumerate(matches):
        places = [place for place, char in enumerate(match[0]) if char.isdecimal()]
        if len(places) < TCKN_LENGTH:
            continue
        run = _Run([int(match[0][place]) for place in places], places)
        # An id in hexadecimal digits is no number, whatever its digits come to.
        after_hex = number > 0 and _is_hex(text[matches[number - 1].end() : match.start()])
        before_hex = number + 1 < len(matches) and _is_hex(text[match.end() : matches[number + 1].start()])
        for start in run.starts[after_hex:]:
            for check in checks:
                for end, mark in check(run, start):
                    if not (before_hex and end == len(places)):
                        yield _Span(match.start() + places[start], match.start() + places[end - 1] + 1, mark)


def _is_hex(gap: str) -> bool:
    return _HEX_LETTERS.fullmatch(gap) is not None


def _cards(run: _Run, start: int) -> Iterator[tuple[int, str]]:
    """By Luhn; nothing that begins with 0, as numbers with a prefix do, or with 1, as moments in milliseconds do."""
    first = run.digits[start]
    for length in CARD_LENGTHS if first > 1 else (_AIRLINE_CARD_LENGTH,) if first == 1 else ():
        end = start + length
        if end in run.ends and run.luhn(start, end):
            yield end, f"[card ****{''.join(map(str, run.digits[end - 4 : end]))}]"


def _tckns(run: _Run, start: int) -> Iterator[tuple[int, str]]:
    end = start + TCKN_LENGTH
    if run.digits[start] != 0 and end in run.ends:
        digits = run.digits[start:end]
        tenth = (7 * sum(digits[0:9:2]) - sum(digits[1:8:2])) % 10
        if digits[9] == tenth and digits[10] == sum(digits[:10]) % 10:
            yield end, "[tckn]"


_Check = Callable[[_Run, int], Iterator[tuple[int, str]]]  # where a number that begins here ends, and its mark
_CHECKS: Final[dict[MaskKind, _Check]] = {MaskKind.CARD: _cards, MaskKind.TCKN: _tckns}


# IBANs


def _ibans(text: str) -> Iterator[_Span]:
    place = last = 0
    while (head := _IBAN_HEAD.search(text, place)) is not None:
        place = head.end(1)
        length = IBAN_LENGTHS.get(f"{head[1]}{head[2]}".upper())
        if length is None or (head.start() > last and text[head.start() - 1].isalpha()):
            continue
        end = _end_of_iban(text, head.start(1), length)
        if end is not None:
            yield _Span(head.start(1), end, "[iban]")
            place = last = end


def _end_of_iban(text: str, start: int, length: int) -> int | None:
    signs, place = [text[start]], start + 1
    while len(signs) < length and (following := _IBAN_NEXT.match(text, place)) is not None:
        signs.append(following[1])
        place = following.end()
    goes_on = signs[-1].isdecimal() and text[place : place + 1].isdecimal()
    if len(signs) < length or goes_on:
        return None
    number = "".join(str(int(sign, 36)) for sign in [*signs[4:], *signs[:4]])
    return place if int(number) % 97 == 1 else None
