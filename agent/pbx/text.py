"""Bytes of a PBX as text, whatever phones and carriers made of them; never an error, and nothing vanishes.

PBXes pass names through as they came. Most are UTF-8. Old phones and trunks send a Windows or ISO byte set, some
gateways read UTF-8 as such a byte set and encode it once more ("AyÅŸe"), and buffers cut names within a letter.

ftfy would repair more, but takes 80 ms and 8 MB, and aims at prose; here a wrong repair is worse than none, so only
what can hardly be anything else is taken for UTF-8 read twice. Whether letters are composed (NFC) or not (NFD) stays
as told.
"""

import codecs
from functools import lru_cache
from typing import Final

DEFAULT_ENCODING: Final = "cp1252"
MAX_NAME_LENGTH: Final = 255  # characters; what is longer is no name
# Stands for what cannot be told: bytes without a letter, a letter that was cut.
UNTOLD: Final = "\ufffd"
_CUT: Final = "…"

_REPAIRS: Final = 3  # how often a name may have been encoded again
_CERTAIN_BY_NUMBER: Final = 3  # so many repaired letters cannot be chance, whatever they are


def decoded(raw: bytes, encoding: str = DEFAULT_ENCODING) -> str:
    """UTF-8; bytes that are none are read as `encoding`, so that a value may even mix the two."""
    try:
        return raw.decode()
    except UnicodeDecodeError as exc:
        if exc.reason == "unexpected end of data" and not raw[: exc.start].isascii():
            return raw[: exc.start].decode() + UNTOLD  # UTF-8 that was cut, since there is some before
        return raw.decode("utf-8", _handler(encoding))


def name_of(text: str) -> str:
    """A name for people to read: repaired where that is certain, and not longer than a name can be."""
    if not text.isascii():
        text = repaired(text)
    return text if len(text) <= MAX_NAME_LENGTH else text[: MAX_NAME_LENGTH - 1] + _CUT


def repaired(text: str) -> str:
    """UTF-8 that was read as a Windows or ISO byte set and encoded again becomes what it was.

    Only if the whole text goes back to bytes and these are UTF-8 without exception, and only if that gives what names
    are written with in Latin letters, or so much that it cannot be chance. "CAFÉ®" and "Ö…" are valid UTF-8 by chance
    and stay; a word in capitals that ends in "Ã" before a "–" would not, but for that there is no name.
    """
    best = text
    for _ in range(_REPAIRS):
        try:
            text = bytes(_BYTES[char] for char in text).decode()
        except (KeyError, UnicodeDecodeError):
            break
        if _is_certain(text):
            best = text
    return best


def _is_certain(text: str) -> bool:
    letters = [char for char in text if not char.isascii()]
    if not letters or any("\x80" <= char < "\xa0" for char in letters):  # control characters
        return False
    return (
        all(char in _USUAL for char in letters)
        or len(letters) >= _CERTAIN_BY_NUMBER
        or max(letters) > "\uffff"  # four bytes in a row
    )


@lru_cache(maxsize=16)
def _handler(encoding: str) -> str:
    """The name of an error handler that reads what is no UTF-8 as `encoding`."""
    decode = codecs.lookup(encoding).decode

    def read(exc: UnicodeError) -> tuple[str, int]:
        if not isinstance(exc, UnicodeDecodeError):
            raise exc
        return decode(exc.object[exc.start : exc.end], "replace")[0], exc.end

    name = f"sentiric-{encoding}"
    codecs.register_error(name, read)
    return name


def _byte_set() -> dict[str, int]:
    """Each letter's byte in ISO-8859-1, Windows-1252 or Windows-1254, which agree but for six letters of Turkish."""
    known = {chr(byte): byte for byte in range(256)}
    for encoding in ("cp1252", "cp1254"):
        for byte in range(128, 256):
            char = bytes([byte]).decode(encoding, "replace")
            if char != UNTOLD:
                known.setdefault(char, byte)
    return known


_BYTES: Final = _byte_set()
# Latin letters of Europe's languages, accents as NFD has them, and signs in names and prose.
_USUAL: Final = frozenset(
    [
        *map(chr, range(0xA0, 0x180)),
        *"ȘșȚț",
        *"\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327\u0328",
        *map(chr, range(0x2010, 0x2028)),
        *"€™",
    ]
)
