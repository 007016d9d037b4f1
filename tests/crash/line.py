"""A TCP line of ours between two parts, that cuts, resets, stalls and lets answers come late and out of order."""

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, Self

_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER for no time: the connection is reset instead of closed
_READ_BYTES: Final = 65_536
_END_SECONDS: Final = 10


class TroubledLine:
    """Listens on a port of this machine and carries bytes to another, which may move.

    Answers pass in their order on each connection; while `late_seconds` is set, each connection's are held back for a
    time of its own, so that what was asked first on one connection is answered after what was asked later on another.
    """

    def __init__(self, target: Callable[[], int], dice: random.Random) -> None:
        self._target = target
        self._dice = dice
        self._connections: set[_Connection] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._nobody_left = asyncio.Event()
        self._nobody_left.set()
        self.refuses = False
        self.late_seconds = 0.0
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Callable[[], int], dice: random.Random) -> AsyncIterator[Self]:
        """A line that is gone in the end."""
        line = cls(target, dice)
        server = await asyncio.start_server(line._serve, "127.0.0.1", 0)
        line.port = server.sockets[0].getsockname()[1]
        try:
            yield line
        finally:
            server.close()
            line.calm()
            line.cut()
            async with asyncio.timeout(_END_SECONDS):
                await line._nobody_left.wait()

    def cut(self) -> None:
        """Close every connection, in the middle of whatever is said."""
        for connection in list(self._connections):
            connection.end(reset=False)

    def reset(self) -> None:
        """The same with RST: nothing that is under way arrives."""
        for connection in list(self._connections):
            connection.end(reset=True)

    def cut_in(self, bytes_more: int) -> None:
        """Let each connection carry so many bytes more, either way, and then reset it: a cut within a message."""
        for connection in self._connections:
            connection.left = bytes_more

    def stall(self) -> None:
        """Carry nothing, either way, and accept without a word, until `go_on`."""
        self._open.clear()

    def go_on(self) -> None:
        """Carry again, what was held back first."""
        self._open.set()

    def calm(self) -> None:
        """No trouble any more."""
        self.refuses, self.late_seconds = False, 0.0
        for connection in self._connections:
            connection.left = None
        self.go_on()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(writer)
        self._connections.add(connection)
        self._nobody_left.clear()
        try:
            if self.refuses:
                connection.end(reset=True)
                return
            await self._open.wait()
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target())
            connection.ends.append(inner_writer)
            # The first that ends takes the other with it, as neither side here uses a half-closed connection.
            both = [
                asyncio.create_task(self._carry(connection, reader, inner_writer, is_answer=False)),
                asyncio.create_task(self._carry(connection, inner_reader, writer, is_answer=True)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        except OSError:
            connection.end(reset=True)
        finally:
            connection.end(reset=False)
            self._connections.discard(connection)
            if not self._connections:
                self._nobody_left.set()

    async def _carry(
        self, connection: "_Connection", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                await self._open.wait()
                if is_answer and self.late_seconds:
                    await asyncio.sleep(self._dice.uniform(0, self.late_seconds))
                if connection.left is not None:
                    connection.left -= len(data)
                    if connection.left < 0:
                        writer.write(data[: connection.left])
                        connection.end(reset=True)
                        return
                writer.write(data)
                await writer.drain()


class _Connection:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.ends = [writer]
        self.left: int | None = None

    def end(self, *, reset: bool) -> None:
        for writer in self.ends:
            sock = writer.get_extra_info("socket")
            if reset and sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            else:
                writer.close()
