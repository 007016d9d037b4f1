"""Turns SQLite's and the system's complaints into one sentence an operator can act on."""

import errno
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from agent.errors import StoreDamaged, StoreUnavailable

# Faults of the world, by SQLite's primary result code. What is not here (a missing column, a broken constraint) is a
# bug and passes through as it is.
_SENTENCES = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, nothing committed so far is lost",
    sqlite3.SQLITE_IOERR: "the disk reports an error; look at the system's log, and at free space and quotas",
    sqlite3.SQLITE_READONLY: "it cannot be written; check owner and mode of the file and of its directory",
    sqlite3.SQLITE_PERM: "access is denied; check owner and mode of the file and of its directory",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that it is a file in a directory this user may write",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database; an agent that starts over it salvages it and keeps it aside",
    sqlite3.SQLITE_CORRUPT: "it is damaged; the agent salvages it and keeps it aside, or `edge-agent salvage` does",
    sqlite3.SQLITE_BUSY: "another program holds it; close whatever else has it open",
    sqlite3.SQLITE_LOCKED: "another program holds it; close whatever else has it open",
    sqlite3.SQLITE_PROTOCOL: "its lock does not work; keep it on a local file system",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}


_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """Raise StoreUnavailable for what the world does to the database at `path`; bugs pass through."""
    try:
        yield
    except (sqlite3.Error, DBAPIError) as exc:
        sentence = _sentence(exc)
        if sentence is None:
            raise
        kind = StoreDamaged if _code(exc) in _DAMAGE else StoreUnavailable
        raise kind(f"{path}: {sentence} ({_cause(exc)})") from exc
    except OSError as exc:
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StoreUnavailable(
                f"{exc.filename or path}: {_SENTENCES[sqlite3.SQLITE_FULL]} ({exc.strerror})"
            ) from exc
        raise StoreUnavailable(f"{exc.filename or path} cannot be used: {exc.strerror or exc}; {_HINT}") from exc


_HINT = "name a state_directory on a local disk that this user may write"


def _cause(exc: BaseException) -> BaseException:
    return exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc


def _sentence(exc: BaseException) -> str | None:
    code = _code(exc)
    return _SENTENCES.get(code) if code is not None else None


def _code(exc: BaseException) -> int | None:
    """SQLite's primary result code."""
    code: int | None = getattr(_cause(exc), "sqlite_errorcode", None)
    return code & 0xFF if code is not None else None
