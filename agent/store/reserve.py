"""A file of some megabytes that only keeps room: given up when the disk is full, made again when there is enough."""

import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.store.files import reserve_file

log = logging.getLogger(__name__)

# So many times its size has to be free before it is made: it must not be what fills the disk.
_AMPLE: Final = 4
_NOTHING_BYTES: Final = 1 << 20


class Reserve:
    """Its methods block for some milliseconds at most, and never fail: without a reserve the agent goes on as well."""

    def __init__(self, database: Path, *, megabytes: int) -> None:
        self._path = reserve_file(database)
        self._bytes = megabytes << 20

    @property
    def size(self) -> int:
        """Bytes that are kept free by it now."""
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def make(self) -> None:
        """Make it, of the size it has to be, if there is ample room. Its blocks are really taken."""
        if self.size == self._bytes:
            return
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
            if not self._bytes or shutil.disk_usage(self._path.parent).free < _AMPLE * self._bytes:
                return
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, self._bytes)
            except OSError:
                self._path.unlink()
            finally:
                os.close(handle)

    def release_if_full(self) -> bool:
        """Give it up if nothing is left beside it; whether that has made room."""
        held = self.size
        if not held or shutil.disk_usage(self._path.parent).free >= _NOTHING_BYTES:
            return False
        self.release()
        return not self.size

    def release(self) -> None:
        """Give the room to whoever needs it at once."""
        try:
            self._path.unlink()
        except OSError:
            return
        log.warning("the disk is full: the reserve is given up", extra={"file": str(self._path), "bytes": self._bytes})
