"""A plain AMI client for looking at the simulator from outside, and a listener that is the product's own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Self

from agent.calls.events import CallEvent
from agent.calls.model import CallModel
from agent.calls.rules import CallRules
from agent.calls.tenancy import assign
from agent.pbx.asterisk.connector import AsteriskConnector
from agent.pbx.feed import Blind
from agent.simulator.manager import Account
from agent.simulator.server import Simulator
from config.settings import AsteriskSettings
from sync.backoff import Backoff
from tests.unit.simulator.played import TENANCY

ACCOUNT = Account("sentiric", "gizli")

Message = dict[str, str]

OPENED: "list[Line]" = []  # closed after each test


class Line:
    """Reads messages; what was read is kept in `messages`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.messages: list[Message] = []
        OPENED.append(self)

    @classmethod
    async def to(cls, simulator: Simulator) -> Self:
        reader, writer = await asyncio.open_connection(simulator.host, simulator.port)
        assert await reader.readline() == b"Asterisk Call Manager/11.0.0\r\n"
        return cls(reader, writer)

    @classmethod
    async def logged_in(cls, simulator: Simulator, events: str = "on") -> Self:
        line = await cls.to(simulator)
        answer = await line.ask("Login", Username="sentiric", Secret="gizli", Events=events)
        assert answer["Response"] == "Success"
        return line

    def send(self, action: str, **fields: str) -> None:
        lines = [f"Action: {action}", f"ActionID: {action}", *(f"{key}: {value}" for key, value in fields.items())]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())

    async def ask(self, action: str, **fields: str) -> Message:
        self.send(action, **fields)
        while True:
            message = await self.read()
            if "Response" in message:
                return message

    async def read(self) -> Message:
        """The next message; IncompleteReadError at the end of the line."""
        block = await self.reader.readuntil(b"\r\n\r\n")
        lines = [line.partition(": ") for line in block.decode().removesuffix("\r\n\r\n").split("\r\n")]
        self.messages.append({key: value for key, _, value in lines})
        return self.messages[-1]

    async def read_until(self, event: str) -> Message:
        while True:
            message = await self.read()
            if message.get("Event") == event:
                return message

    async def read_to_the_end(self) -> None:
        try:
            while True:
                await self.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def events(self, name: str) -> list[Message]:
        return [message for message in self.messages if message.get("Event") == name]

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


async def line_again(simulator: Simulator) -> Line:
    """A log-in as soon as the PBX is there again."""
    while True:
        try:
            return await Line.logged_in(simulator)
        except (ConnectionError, asyncio.IncompleteReadError, AssertionError):
            await asyncio.sleep(0)


class Listener:
    """The product's line and call model, as a feed that keeps nothing but rows."""

    def __init__(self) -> None:
        self.model = CallModel(site="here", pbx="sim", rules=CallRules(), assign=partial(assign, TENANCY))
        self.rows: dict[str, dict[str, Any]] = {}
        self._news = asyncio.Event()

    def heard(self, frame: bytes, event: CallEvent | None, at: datetime, *, blind: Blind | None = None) -> None:
        if event is None:
            return
        self.model.apply(event)
        for call in self.model.take_ended():
            assert call.native_id not in self.rows
            self.rows[call.native_id] = call.to_row() | {"tenant": call.assignment.tenant}
        self._news.set()

    def clock_set(self, at: datetime, seconds: float) -> None:
        raise AssertionError(f"nobody set the clock, by {seconds} s")

    async def wait_for_room(self) -> None:
        return

    def has_room(self) -> bool:
        return True

    async def wait_live(self) -> None:
        while not self.model.live_calls():
            self._news.clear()
            await self._news.wait()

    async def wait_rows(self, count: int) -> None:
        while len(self.rows) < count:
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def listening(simulator: Simulator, **settings: float) -> AsyncIterator[tuple[Listener, AsteriskConnector]]:
    """The product beside the simulator, logged in."""
    listener = Listener()
    connector = AsteriskConnector(
        AsteriskSettings.model_validate(
            {"name": "sim", "port": simulator.port, "username": "sentiric", "secret": "gizli"} | settings
        ),
        feed=listener,
        backoff=Backoff(initial=0.01, maximum=0.05),
    )
    running = asyncio.create_task(connector.run())
    try:
        await simulator.wait_clients()
        yield listener, connector
    finally:
        running.cancel()
        await asyncio.wait([running])
