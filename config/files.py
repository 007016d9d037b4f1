"""Reading small UTF-8 files that people wrote, with an answer for each way that fails."""

import codecs
from pathlib import Path

_OTHER_ENCODINGS = ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


class Unreadable(Exception):
    """The file cannot be had as text; the message names it and says what to do."""


def read_text(file: Path, *, max_bytes: int) -> str:
    """The whole file, without a byte order mark."""
    try:
        with file.open("rb") as stream:
            content = stream.read(max_bytes + 1)
    except FileNotFoundError:
        raise Unreadable(f"{file} is not there") from None
    except IsADirectoryError:
        raise Unreadable(f"{file} is a directory; name the file in it") from None
    except PermissionError:
        raise Unreadable(f"{file} cannot be read by this user; change its owner or mode") from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "the name is no file name"
        raise Unreadable(f"{file} cannot be read: {reason}") from exc
    if len(content) > max_bytes:
        raise Unreadable(f"{file} is larger than {max_bytes // 1024} KiB; it cannot be what is meant")
    return _decode(content, file)


def _decode(content: bytes, file: Path) -> str:
    for mark, name in _OTHER_ENCODINGS:
        if content.startswith(mark):
            raise Unreadable(f"{file} is {name}; save it as UTF-8")
    try:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as exc:
        line = exc.object.count(b"\n", 0, exc.start) + 1
        raise Unreadable(
            f"{file} is not UTF-8 in line {line} (perhaps ISO-8859-9 or Windows-1254); save it as UTF-8"
        ) from None
