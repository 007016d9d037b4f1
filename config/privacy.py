"""What a tenant may have masked, and which patterns of its own: RE2's, whose time grows with the text and no faster."""

from enum import StrEnum
from functools import cache
from typing import Any, Final

MAX_PATTERNS: Final = 32  # of a tenant
MAX_PATTERN_LENGTH: Final = 256
_MAX_MEMORY: Final = 1 << 20  # of a compiled pattern, in bytes


class MaskKind(StrEnum):
    """Numbers that are told by their checksums."""

    CARD = "card"
    TCKN = "tckn"
    IBAN = "iban"


@cache
def compile_pattern(pattern: str) -> Any:  # Any: the library has no types
    """The compiled pattern. Raises ValueError for one that RE2 does not take, or that matches where nothing stands."""
    import re2  # a tenant in many has patterns; the library costs some megabytes

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        found = re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0].decode(errors="replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise ValueError(f"this is no pattern of RE2 (look-around and back-references are none): {reason}") from None
    if found.search("") is not None:
        raise ValueError("the pattern matches where nothing stands, so it would mask nothing or everything")
    return found
