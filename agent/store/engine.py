"""Opens the edge database: one process, one writing connection, short readers, and pragmas that keep promises.

Everything written passes through one aiosqlite connection as whole functions, so that a transaction is one hop to
its thread, never mixes with another, and is finished or undone as a whole even if the task that waits for it is
cancelled.

After an unclean stop SQLite itself recovers the WAL. A quick check of the file comes on top: at once while the file is
small, else left to the daemon (`Store.check_due`, `quick_check`), because capturing again matters more.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import aiosqlite
import orjson
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from agent.errors import StoreDamaged
from agent.store import schema
from agent.store.faults import faults_of
from agent.store.filesystem import network_filesystem
from agent.store.lease import Lease
from agent.store.stopping import Stop
from agent.store.swap import finish_swap
from config import failpoints

logger = logging.getLogger(__name__)

WAL_LIMIT_BYTES = 64 * 1024 * 1024
_CHECK_AT_START_BYTES = 32 * 1024 * 1024
_BUSY_SECONDS = 5.0
_READERS = 2

T = TypeVar("T")


class Damage:
    """The first word that the database is damaged, from whichever thread meets it."""

    def __init__(self) -> None:
        self.met = asyncio.Event()
        self.told: str | None = None
        self._loop = asyncio.get_running_loop()

    def note(self, exc: StoreDamaged) -> None:
        """Safe in any thread."""
        if self.told is None:
            self.told = str(exc)
            self._loop.call_soon_threadsafe(self.met.set)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what the block meets, and pass it on."""
        try:
            yield
        except StoreDamaged as exc:
            self.note(exc)
            raise


@dataclass(frozen=True, slots=True)
class Store:
    """An open edge database: `connection` writes, `reader` and `reads` only read."""

    path: Path
    connection: "EdgeConnection"
    reader: "EdgeConnection"
    reads: AsyncEngine
    check_due: bool  # the last stop was unclean and the file too large to be checked before the start
    damage: Damage


@asynccontextmanager
async def open_store(path: Path) -> AsyncIterator[Store]:
    """Open the database for its one writing process, creating or upgrading it as needed.

    Raises StoreHeld while another process has it, StoreUnavailable when it cannot be used.
    """
    path = path.absolute()
    _prepare_directory(path)
    lease = Lease.take(path)
    damage = Damage()
    try:
        finish_swap(path)
        async with AsyncExitStack() as stack:
            connection = await EdgeConnection.open(path, _connect_writer, stack)
            connection.damage = damage
            size = path.stat().st_size
            if not lease.was_clean and size <= _CHECK_AT_START_BYTES:
                await connection.run(partial(_refuse_damaged, path=path))
            reader = await EdgeConnection.open(path, _connect_reader, stack)
            reader.damage = damage
            reads = _read_engine(path)
            stack.push_async_callback(reads.dispose)
            check_due = not lease.was_clean and size > _CHECK_AT_START_BYTES
            yield Store(path, connection, reader, reads, check_due, damage)
        if damage.told is None:
            with suppress(OSError):
                lease.leave_clean()
    finally:
        lease.leave()


async def quick_check(path: Path) -> list[str]:
    """What SQLite's quick check finds wrong, read by a connection of its own; takes about a second per 200 MB.

    Nobody waits for the look but this task: cancelled, it ends the look too. Raises StoreUnavailable.
    """
    stop = Stop()

    def look() -> list[str]:
        with closing(_connect_reader(path)) as connection, stop.ends(connection):
            return problems_of(connection)

    try:
        with faults_of(path):
            return await asyncio.to_thread(look)
    finally:
        stop.tell()


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of one's own for reads, to be used in any thread. Raises StoreUnavailable."""
    with faults_of(path), closing(_connect_reader(path)) as connection:
        yield connection


class EdgeConnection(aiosqlite.Connection):
    """An aiosqlite connection that runs whole functions on its thread, one after the other."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        super().__init__(lambda: connection, iter_chunk_size=64)
        self.path = path
        self.damage: Damage | None = None  # who is told of it, beside the caller

    @classmethod
    async def open(cls, path: Path, connect: Callable[[Path], sqlite3.Connection], stack: AsyncExitStack) -> Self:
        """Connect, to be closed by `stack`."""
        # Connected before aiosqlite has a thread: when its thread fails to connect, nobody can wait for its end.
        with faults_of(path):
            connection = cls(path, await asyncio.to_thread(connect, path))
        await connection
        stack.push_async_callback(connection.close)
        return connection

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns. Raises StoreUnavailable for the world's faults."""
        with self.damage.noted() if self.damage else nullcontext(), faults_of(self.path):
            # aiosqlite has no public way to run a function of ours on its thread; one hop per statement would cost
            # more than the statements, and a cancelled waiter would leave half a transaction open.
            result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]  # untyped there
            return result

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` returns, done in one transaction: all of it is durable afterwards, or nothing has happened."""
        return await self.run(partial(in_transaction, work))


def in_transaction(work: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection) -> T:
    """Run `work` between BEGIN and COMMIT; whatever goes wrong, nothing of it stays."""
    _undo(connection)  # a rollback that could not be done before
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        failpoints.hit("store.commit.before")
        connection.execute("COMMIT")
        failpoints.hit("store.commit.after")
    except BaseException:
        _undo(connection)
        raise
    return result


def new_database(path: Path) -> sqlite3.Connection:
    """A connection to a new, empty database of the present schema, for whoever fills one beside the agent's own."""
    return _connect_writer(path)


def _undo(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")


def _prepare_directory(path: Path) -> None:
    with faults_of(path.parent):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(OSError):
        kind = network_filesystem(path.parent.resolve(), Path("/proc/self/mountinfo").read_text(errors="replace"))
        if kind is not None:
            logger.warning(
                "the database lies on a network file system, where it can be damaged; use a local disk",
                extra={"path": str(path), "filesystem": kind},
            )


def _connect_writer(path: Path) -> sqlite3.Connection:
    # SQLite gives the WAL the database's mode, so the mode is set by creating the file here.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        found = schema.revision_of(connection)
        schema.check_known(found, connection, path)
        if found is None:
            # Only possible before the first table. A call's row is some 2.5 KB: pages of 8 KB hold three of them where
            # 4 KB hold one, which makes a commit of a hundred calls a fifth cheaper and one of a single call no dearer.
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # What is deleted is overwritten, as Debian's SQLite does anyway: an erased number stands in no free page.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}")
        # Foreign keys come last: an upgrade may rebuild a table that others refer to.
        schema.bring_up_to_date(connection, path)
        connection.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_reader(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def _read_engine(path: Path) -> AsyncEngine:
    url = URL.create("sqlite+aiosqlite", database=path.as_uri(), query={"mode": "ro", "uri": "true"})
    return create_async_engine(
        url,
        json_deserializer=orjson.loads,
        json_serializer=lambda value: orjson.dumps(value).decode(),
        connect_args={"timeout": _BUSY_SECONDS},
        pool_size=_READERS,
        max_overflow=0,
    )


def _refuse_damaged(connection: sqlite3.Connection, *, path: Path) -> None:
    problems = problems_of(connection)
    if problems:
        raise StoreDamaged(
            f"{path} is damaged ({problems[0]}); the agent salvages it and keeps it aside, or `edge-agent salvage` does"
        )


def problems_of(connection: sqlite3.Connection) -> list[str]:
    """What SQLite's quick check finds wrong."""
    found = [str(row[0]) for row in connection.execute("PRAGMA quick_check(10)")]
    return [] if found == ["ok"] else found
