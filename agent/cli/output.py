"""How commands write: plain aligned text for people, JSON for programs, colours only where they are wanted."""

import json
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Any, Final

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Write JSON for programs.")]

_UNITS: Final = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))
# What JSON leaves as it is and terminals may obey: more control characters, and turns of the writing's direction.
_TROUBLEMAKERS: Final = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CLEAR: Final = "\x1b[H\x1b[J"


class Colour(Enum):
    """What colours say."""

    GOOD = "32"
    CAREFUL = "33"
    BAD = "31"
    FAINT = "2"


def say(text: str = "") -> None:
    """A line for the person (or program) that asked."""
    typer.echo(text)


def note(text: str) -> None:
    """A line about the answer, on stderr."""
    typer.echo(text, err=True)


def say_json(value: Any, *, compact: bool = False) -> None:  # Any: whatever JSON can hold
    """A JSON document; compact ones stand on one line."""
    say(json_text(value, compact=compact))


def json_text(value: Any, *, compact: bool = False) -> str:  # Any: as above
    """The same as text, for documents that are written piece by piece."""
    text = json.dumps(value, ensure_ascii=False, indent=None if compact else 2, default=_as_json)
    return _TROUBLEMAKERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def painted(text: str, colour: Colour) -> str:
    """The text in a colour, where colours are wanted."""
    return f"\x1b[{colour.value}m{text}\x1b[0m" if has_colours() else text


def is_terminal() -> bool:
    """Whether a person looks at what is written."""
    return sys.stdout is not None and sys.stdout.isatty()


def has_colours() -> bool:
    """Whether colours are wanted (https://no-color.org)."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def say_again(text: str) -> None:
    """A new picture in the old one's place; one after the other where there is no terminal."""
    say((_CLEAR if is_terminal() else "") + text)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned columns. What callers told is made harmless for terminals first."""
    texts = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*texts, strict=True)]
    lines = ["  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
             for row in texts]  # fmt: skip
    return [painted(lines[0], Colour.FAINT), *lines[1:]]


def printable(text: str) -> str:
    """Text from outside, in which no control character can move the cursor or turn the writing around."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "�" for char in text)


def moment(value: datetime | None) -> str:
    """A moment on the clock of whoever reads it."""
    return f"{value.astimezone():%Y-%m-%d %H:%M:%S}" if value is not None else "-"


def zone() -> str:
    """The zone of `moment`: "UTC+03:00"."""
    return f"UTC{datetime.now(UTC).astimezone():%:z}" if sys.version_info >= (3, 12) else _zone()


def _zone() -> str:
    digits = f"{datetime.now(UTC).astimezone():%z}"
    return f"UTC{digits[:3]}:{digits[3:5]}"


def ago(value: datetime | None, *, now: datetime) -> str:
    """How long ago, in at most two units."""
    return f"{length((now - value).total_seconds())} ago" if value is not None else "never"


def length(seconds: float) -> str:
    """A length of time in at most two units: "3 min 5 s", "2 d 4 h"."""
    rest = max(0, int(seconds))
    for place, (name, size) in enumerate(_UNITS):
        if rest >= size:
            count, rest = divmod(rest, size)
            smaller = _UNITS[place + 1] if place + 1 < len(_UNITS) else None
            more = rest // smaller[1] if smaller else 0
            return f"{count} {name} {more} {smaller[0]}" if smaller and more else f"{count} {name}"
    return "0 s"


def clock(seconds: float) -> str:
    """A length of time as telephones show it: "3:05", "1:02:03"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: int) -> str:
    """Bytes in the unit that suits them."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def counted(count: int, noun: str) -> str:
    """ "1 call", "2 calls"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(char) else 1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def _as_json(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")
