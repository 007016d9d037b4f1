"""One process per database: a lock beside the file, held while the process lives, that tells who holds it.

The kernel lets go of the lock with the process, so a dead holder is never in the way. What the file tells outlives
the holder unless it stopped cleanly; that is how the next one knows that the last stop was none.
"""

import fcntl
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from agent.errors import StoreHeld
from agent.store.faults import faults_of
from config import failpoints

_CLEAN = b"\n"


class Lease:
    """The right to write one database. `was_clean` tells whether the last holder stopped in good order."""

    def __init__(self, handle: int, *, was_clean: bool) -> None:
        self._handle = handle
        self.was_clean = was_clean

    @classmethod
    def take(cls, database: Path) -> Self:
        """Take the lease. Raises StoreHeld, naming the holder, while another living process has it."""
        path = lock_file(database)
        with faults_of(path):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = os.pread(handle, 4096, 0)
            failpoints.hit("lease.taken")
            _tell(handle, _about_this_process())
        except BlockingIOError as exc:
            holder = _who(os.pread(handle, 4096, 0))
            os.close(handle)
            raise StoreHeld(f"{database} is in use by {holder}; stop it first, or use its command line") from exc
        except OSError as exc:
            os.close(handle)
            with faults_of(path):
                raise exc
        return cls(handle, was_clean=not last.strip())

    def leave_clean(self) -> None:
        """Let go, telling the next holder that everything is in good order."""
        # If even this cannot be written, the next start merely looks more closely.
        if self._handle >= 0:
            _tell(self._handle, _CLEAN)
        self.leave()

    def leave(self) -> None:
        """Let go; safe to call twice. Without `leave_clean` before it, the next start looks more closely."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def lock_file(database: Path) -> Path:
    """The lock file that goes with a database."""
    return database.with_name(database.name + ".lock")


def _tell(handle: int, words: bytes) -> None:
    """In place, and never nothing: so the file keeps its block, and a full disk is in no start's way."""
    os.pwrite(handle, words, 0)
    os.ftruncate(handle, len(words))


def _about_this_process() -> bytes:
    facts = {"pid": os.getpid(), "program": Path(sys.argv[0]).name, "since": datetime.now(UTC).isoformat()}
    return json.dumps(facts).encode()


def _who(told: bytes) -> str:
    try:
        facts = json.loads(told)
        holder = f"process {facts['pid']} ({facts['program']}), since {facts['since'][:19]} UTC"
        if _is_frozen(facts["pid"]):
            holder += f", which is frozen (kill -CONT {facts['pid']} lets it go on)"
        return holder
    except (ValueError, KeyError, TypeError):  # the holder is just writing its name
        return "another process"


def _is_frozen(pid: int) -> bool:
    """Whether SIGSTOP or a debugger holds the process."""
    try:
        told = Path(f"/proc/{pid:d}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:  # it has just ended, or is none of ours to look at
        return False
    return told.rpartition(")")[2].split()[:1] in (["T"], ["t"])
