"""A PBX's end of the line, played word by word by a test."""

import asyncio
import contextlib
import hashlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from types import TracebackType
from typing import Self

from agent.calls.events import CallEvent
from agent.pbx.asterisk.connector import AsteriskConnector
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.feed import Blind
from config.settings import AsteriskSettings
from sync.backoff import Backoff

DEADLINE_SECONDS = 10.0
USER, SECRET = "edge", "gizli-söz"
CHALLENGE = "840415273"


class Exchange:
    """One connection as the PBX sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *lines: str) -> None:
        self._writer.write("\r\n".join([*lines, "", ""]).encode())

    def send_raw(self, data: bytes) -> None:
        self._writer.write(data)

    def greet(self) -> None:
        self.send_raw(b"Asterisk Call Manager/11.0.0\r\n")

    async def asked(self) -> AmiMessage:
        """The next action of the agent."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return AmiMessage((await self._reader.readuntil(b"\r\n\r\n")).removesuffix(b"\r\n\r\n"))

    async def asked_for(self, name: str) -> AmiMessage:
        """The next action of that name; pings on the way are answered."""
        while (action := await self.asked()).get("action") != name:
            if action.get("action") == "Ping":
                self.pong(action)
        return action

    def answer(self, action: AmiMessage, response: str = "Success", *lines: str) -> None:
        self.send(f"Response: {response}", f"ActionID: {action.get('actionid')}", *lines)

    def pong(self, action: AmiMessage, *, clock_ahead: float = 0.0) -> None:
        self.answer(action, "Success", "Ping: Pong", f"Timestamp: {time.time() + clock_ahead:.6f}")

    async def log_in(self) -> None:
        """As Asterisk does it, with either kind of log-in; the proof has to be right."""
        self.greet()
        action = await self.asked()
        if action.get("action") == "Challenge":
            self.answer(action, "Success", f"Challenge: {CHALLENGE}")
            action = await self.asked()
            assert action.get("key") == hashlib.md5((CHALLENGE + SECRET).encode()).hexdigest()
        else:
            assert action.get("secret") == SECRET
        assert (action.get("action"), action.get("username")) == ("Login", USER)
        self.answer(action, "Success", "Message: Authentication accepted")
        self.send("Event: FullyBooted", "Status: Fully Booted")

    async def list_channels(self, *channels: str, clock_ahead: float = 0.0) -> None:
        """Answer the list that the agent asks for after each log-in, and the ping behind it."""
        action = await self.asked_for("CoreShowChannels")
        self.answer(action, "Success", "EventList: start", "Message: Channels will follow")
        for channel in channels:
            self.send(
                "Event: CoreShowChannel", "Channel: PJSIP/101-00000001", f"Uniqueid: {channel}", f"Linkedid: {channel}",
                "Duration: 00:00:09",
            )  # fmt: skip
        self.send("Event: CoreShowChannelsComplete", "EventList: Complete", f"ListItems: {len(channels)}")
        self.pong(await self.asked_for("Ping"), clock_ahead=clock_ahead)

    async def keep_answering(self) -> None:
        """Pings and lists, until the agent goes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                action = await self._reader.readuntil(b"\r\n\r\n")
                message = AmiMessage(action.removesuffix(b"\r\n\r\n"))
                if message.get("action") == "Ping":
                    self.pong(message)
                else:
                    self.answer(message)

    async def wait_until_left(self) -> None:
        """Until the agent has closed the connection."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            with contextlib.suppress(ConnectionError):
                while await self._reader.read(65536):
                    pass

    def hang_up(self) -> None:
        self._writer.close()

    def break_off(self) -> None:
        self._writer.transport.abort()


class Pbx:
    """Listens on a free port; the test takes each connection as it comes."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._connections: asyncio.Queue[Exchange] = asyncio.Queue()
        self._exchanges: list[Exchange] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for exchange in self._exchanges:
            exchange.break_off()
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        exchange = Exchange(reader, writer)
        self._exchanges.append(exchange)
        self._connections.put_nowait(exchange)

    async def called(self) -> Exchange:
        """The next connection of the agent."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self._connections.get()


class Ear:
    """A feed that remembers what it heard."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.events: list[CallEvent] = []
        self.blind: list[Blind] = []
        self.clock_steps: list[float] = []
        self._room = asyncio.Event()
        self._room.set()

    def heard(self, frame: bytes, event: CallEvent | None, at: datetime, *, blind: Blind | None = None) -> None:
        assert at.tzinfo is not None
        self.frames.append(frame)
        if blind is not None:
            self.blind.append(blind)
        if event is not None:
            self.events.append(event)

    def clock_set(self, at: datetime, seconds: float) -> None:
        assert at.tzinfo is not None
        self.clock_steps.append(seconds)

    async def wait_for_room(self) -> None:
        await self._room.wait()

    def has_room(self) -> bool:
        return self._room.is_set()

    def is_full(self) -> None:
        self._room.clear()

    def is_empty_again(self) -> None:
        self._room.set()


async def until(condition: Callable[[], bool]) -> None:
    """Return as soon as it is so; fail at the deadline."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for is a state, not an event
            await asyncio.sleep(0.002)


def settings(port: int, **changes: object) -> AsteriskSettings:
    """Settings of a site in a hurry: fractions of a second where operators have seconds."""
    told = AsteriskSettings.model_validate({"name": "main", "port": port, "username": USER, "secret": SECRET})
    return told.model_copy(update={"ping_seconds": 30.0, "snapshot_seconds": 3600.0, **changes})


@asynccontextmanager
async def connected(
    told: AsteriskSettings, ear: Ear, *, backoff: Backoff | None = None
) -> AsyncIterator[AsteriskConnector]:
    """A connector that runs while the test does."""
    connector = AsteriskConnector(told, feed=ear, backoff=backoff or Backoff(initial=0.01, maximum=0.02))
    task = asyncio.create_task(connector.run(), name="connector under test")
    try:
        yield connector
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
