"""uvicorn's HTTP/1.1 with bounds it lacks: on connections, and on the time until a request's headers are there."""

import asyncio
import socket
from asyncio import sslproto
from typing import Any, Final
from weakref import WeakSet

from uvicorn.protocols.http.h11_impl import H11Protocol

from sync.hub.limits import Limits

_TOLD = b'{"title":"Service Unavailable","status":503,"code":"busy","detail":"too many connections"}'
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/problem+json\r\nContent-Length: %d\r\n\r\n%b" % (len(_TOLD), _TOLD)
)
# So many more than may stay are let in to be told so; what comes beyond them is closed unheard.
_TOLD_AT_ONCE: Final = 64
# What asyncio sets aside for a TLS connection to receive into, whether or not anything ever comes: a little more than
# the longest TLS record instead of its 256 KiB, which two thousand idle sites would make half a gibibyte.
_TLS_BUFFER_BYTES: Final = 32 * 1024


class BoundedListener(socket.socket):
    """Accepts no more connections than there may be, counted before TLS, of which the protocol hears only afterwards.

    `accepted` may be shared by several listeners.
    """

    def __init__(self, listener: socket.socket, limits: Limits, accepted: WeakSet[socket.socket]) -> None:
        super().__init__(fileno=listener.detach())
        self._most = limits.connections + _TOLD_AT_ONCE
        self._accepted = accepted
        self._unread_ms = int(limits.body_seconds * 1000)

    def accept(self) -> tuple[socket.socket, Any]:  # Any: an address, as the family has it
        """The next connection; raises ConnectionAbortedError, which event loops pass over, if it is one too many."""
        connection, address = super().accept()
        if len(self._accepted) >= self._most:
            for gone in [one for one in self._accepted if one.fileno() < 0]:
                self._accepted.discard(gone)
        if len(self._accepted) >= self._most:
            connection.close()
            raise ConnectionAbortedError
        # Who reads nothing of what we say, or is gone, is cut by the kernel; closing would wait for him for ever.
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._unread_ms)
        self._accepted.add(connection)
        return connection, address


def spare_memory_for_tls() -> None:
    """Let TLS connections made from now on, in this process, set aside little."""
    sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES


def bounded_protocol(limits: Limits) -> type[H11Protocol]:
    """The protocol class for a server with these limits.

    A connection that has no request under way for `header_seconds` after its first byte, or after it was made, is cut.
    So is one that goes on sending a body when its answer has long been given, and one that reads so slowly that what
    waits for it does not shrink in `body_seconds`.
    """

    class Bounded(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None
        _unread: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.write(_FULL)
                transport.close()
                return
            self._arm()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._arm()
            else:
                self._disarm()

        def on_response_complete(self) -> None:
            # uvicorn's own timer runs from here until the next byte.
            self._disarm()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            self._stop_waiting_for_reader()
            super().connection_lost(exc)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._unread = self.loop.call_later(limits.body_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            self._stop_waiting_for_reader()
            super().resume_writing()

        def _stop_waiting_for_reader(self) -> None:
            if self._unread is not None:
                self._unread.cancel()
                self._unread = None

        def _arm(self) -> None:
            if self._deadline is None:
                self._deadline = self.loop.call_later(limits.header_seconds, self._cut)

        def _disarm(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _cut(self) -> None:
            if not self.transport.is_closing():
                self.transport.abort()

        def _unsupported_upgrade_warning(self) -> None:
            """Nobody needs to know that somebody asked for WebSockets."""

    return Bounded
