"""Ends work in another thread soon after nobody wants it any more, and lets it rest meanwhile."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Nobody waits for the end of this work."""


class Stop:
    """Told by one thread, obeyed by the one that works."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._lock = threading.Lock()
        self._at_work: list[sqlite3.Connection] = []
        self._since = time.monotonic()

    def tell(self) -> None:
        """Have the work end. Safe in any thread, and when it has ended already."""
        self._told.set()
        with self._lock:
            for connection in self._at_work:
                connection.interrupt()

    @contextmanager
    def ends(self, connection: sqlite3.Connection) -> Iterator[None]:
        """What SQLite does in the block is ended as well. Raises Stopped."""
        with self._lock:
            self._at_work.append(connection)
        try:
            self.look()
            yield
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
                raise Stopped from exc
            raise
        finally:
            with self._lock:
                self._at_work.remove(connection)

    def look(self) -> None:
        """Raise Stopped if told to."""
        if self._told.is_set():
            raise Stopped

    def rest(self, at_least: float) -> None:
        """Rest for as long as was worked since the last rest, in seconds, so that others come first. Raises Stopped."""
        if self._told.wait(max(at_least, time.monotonic() - self._since)):
            raise Stopped
        self._since = time.monotonic()
