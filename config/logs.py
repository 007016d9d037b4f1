"""How logs are written: for a terminal, for systemd's journal, or as JSON; with every record's extras, no secret."""

import json
import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO, assert_never

from pydantic import SecretStr

from config.settings import LogFormat, LogSettings

MASK: Final = "********"
# A shorter secret would blot out innocent text, and is lost anyway.
MIN_HIDDEN_LENGTH: Final = 4
# Libraries tell more than an operator needs, some of them on every step.
QUIET: Final[Mapping[str, int]] = {
    "aiosqlite": logging.WARNING,
    "alembic": logging.WARNING,
    "apscheduler": logging.WARNING,
    "asyncio": logging.WARNING,
    "fakeredis": logging.WARNING,
    "httpcore": logging.WARNING,
    "httpx": logging.WARNING,
    "redis": logging.WARNING,
    "sqlalchemy": logging.WARNING,
    "uvicorn": logging.WARNING,
}
_HANDLER: Final = "sentiric-edge"
# Priorities of syslog, which the journal takes at the beginning of a line.
_PRIORITIES: Final = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_SECRET_NAMES: Final = re.compile(r"secret|password|passwd|token|credential|authorization", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_BUT_LINES: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN_VALUE: Final = re.compile(r"[^\s\"=\\]+")


def set_up_logging(
    settings: LogSettings,
    *,
    secrets: Iterable[SecretStr] = (),
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> None:
    """Send every logger's records to `stream` (stderr), replacing what was set up before."""
    stream = stream or sys.stderr
    chosen = settings.format
    if chosen is LogFormat.AUTO:
        chosen = LogFormat.JOURNAL if _goes_to_journal(stream, environ or {}) else LogFormat.TEXT
    handler = logging.StreamHandler(stream)
    handler.set_name(_HANDLER)
    handler.setFormatter(_formatter(chosen, secrets))
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == _HANDLER]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(settings.level.upper())
    for name, level in QUIET.items():
        logging.getLogger(name).setLevel(level)


class Formatter(logging.Formatter):
    """What the formats share: a record's extras, one line for one record, and no secret in either."""

    def __init__(self, secrets: Iterable[SecretStr] = ()) -> None:
        super().__init__()
        hidden = {secret.get_secret_value() for secret in secrets}
        # A list in an extra shows its texts by repr(), and may then be written as JSON.
        spelt = {form for secret in hidden for once in _spellings(secret) for form in _spellings(once)}
        words = sorted((word for word in spelt if len(word) >= MIN_HIDDEN_LENGTH), key=len, reverse=True)
        self._hidden = re.compile("|".join(map(re.escape, words))) if words else None

    def format(self, record: logging.LogRecord) -> str:
        """The record as text to be written, several lines only for a traceback."""
        text = self.lay_out(record)
        return self._hidden.sub(MASK, text) if self._hidden else text

    def lay_out(self, record: logging.LogRecord) -> str:
        """The record in this format; secrets are hidden afterwards."""
        raise NotImplementedError

    def message(self, record: logging.LogRecord) -> str:
        """The message on one line: what a PBX or a caller sends must not forge lines or steer a terminal."""
        return _CONTROL.sub(_escaped, record.getMessage())

    def trace(self, record: logging.LogRecord) -> str:
        """The traceback and stack, an empty text without."""
        parts = [self.formatException(record.exc_info)] if record.exc_info else []
        if record.stack_info:
            parts.append(self.formatStack(record.stack_info))
        return _CONTROL_BUT_LINES.sub(_escaped, "\n".join(parts))


class TextFormatter(Formatter):
    """Time, level, logger, message, extras."""

    def lay_out(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).astimezone().isoformat(sep=" ", timespec="milliseconds")
        head = f"{moment} {record.levelname:<7} {record.name}: {self.message(record)}{_pairs(record)}"
        trace = self.trace(record)
        return f"{head}\n{trace}" if trace else head


class JournalFormatter(Formatter):
    """A priority before each line; the journal itself knows when and who."""

    def lay_out(self, record: logging.LogRecord) -> str:
        priority = next(number for level, number in _PRIORITIES if record.levelno >= level)
        lines = [f"{record.name}: {self.message(record)}{_pairs(record)}", *self.trace(record).splitlines()]
        return "\n".join(f"<{priority}>{line}" for line in lines)


class JsonFormatter(Formatter):
    """One JSON object a line."""

    def lay_out(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        # An extra never replaces what the record itself says.
        told = dict(extras(record)) | told
        if trace := self.trace(record):
            told["traceback"] = trace
        return json.dumps(told, default=str, ensure_ascii=True)


def extras(record: logging.LogRecord) -> Mapping[str, Any]:
    """What the caller gave in `extra`, masked where the name says that it is a secret."""
    return {
        name: MASK if _SECRET_NAMES.search(name) and value is not None else value
        for name, value in vars(record).items()
        if name not in _STANDARD and not name.startswith("_")
    }


def _formatter(chosen: LogFormat, secrets: Iterable[SecretStr]) -> Formatter:
    match chosen:
        case LogFormat.TEXT | LogFormat.AUTO:
            return TextFormatter(secrets)
        case LogFormat.JOURNAL:
            return JournalFormatter(secrets)
        case LogFormat.JSON:
            return JsonFormatter(secrets)
        case _:
            assert_never(chosen)


def _spellings(text: str) -> set[str]:
    written = (json.dumps(text), json.dumps(text, ensure_ascii=False), repr(text))
    return {text, *(form[1:-1] for form in written)}


def _goes_to_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """systemd tells which device and inode the journal's end of our stderr has; a redirected stream differs."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _pairs(record: logging.LogRecord) -> str:
    pairs = (f"{name}={_pair_value(value)}" for name, value in extras(record).items() if value is not None)
    text = " ".join(pairs)
    return f" {text}" if text else ""


def _pair_value(value: Any) -> str:
    text = str(value)
    if _PLAIN_VALUE.fullmatch(text) and not _CONTROL.search(text):
        return text
    return _CONTROL.sub(_escaped, json.dumps(text, ensure_ascii=False))


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
