"""The rig's own small AMI client, blocking, for driving Asterisk and for recording what it says to others."""

import hashlib
import itertools
import socket
import time
from types import TracebackType
from typing import Self

Message = dict[str, str]


class Ami:
    """One session: `ask` sends an action and returns its response, events in between are kept in `events`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = b""
        self._ids = itertools.count(1)
        self._name = f"rig-{time.monotonic_ns()}"
        self.raw = b""
        self.events: list[Message] = []

    @classmethod
    def connect(cls, host: str, port: int, timeout: float = 10) -> Self:
        ami = cls(socket.create_connection((host, port), timeout=timeout))
        ami._read_line()
        return ami

    @classmethod
    def login(cls, host: str, port: int, user: str, secret: str, *, md5: bool = False) -> Self:
        ami = cls.connect(host, port)
        if md5:
            challenge = ami.ask("Challenge", AuthType="MD5")["Challenge"]
            key = hashlib.md5((challenge + secret).encode()).hexdigest()
            answer = ami.ask("Login", AuthType="MD5", Username=user, Key=key)
        else:
            answer = ami.ask("Login", Username=user, Secret=secret)
        assert answer["Response"] == "Success", answer
        return ami

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def ask(self, action: str, **headers: str) -> Message:
        action_id = self.send(action, **headers)
        while True:
            message = self.read()
            if message.get("ActionID") == action_id and "Response" in message:
                return message
            self.events.append(message)

    def ask_for_list(self, action: str, **headers: str) -> list[Message]:
        action_id = self.send(action, **headers)
        items: list[Message] = []
        while True:
            message = self.read()
            if message.get("ActionID") != action_id:
                self.events.append(message)
            elif message.get("EventList") == "Complete":
                return items
            elif "Event" in message:
                items.append(message)

    def send(self, action: str, **headers: str) -> str:
        action_id = f"{self._name}-{next(self._ids)}"
        lines = [f"Action: {action}", f"ActionID: {action_id}", *(f"{key}: {value}" for key, value in headers.items())]
        self._connection.sendall("\r\n".join([*lines, "", ""]).encode())
        return action_id

    def read(self) -> Message:
        """The next message; ConnectionError when Asterisk closes, TimeoutError when it is silent."""
        message: Message = {}
        while True:
            line = self._read_line().decode(errors="replace")
            if not line:
                if message:
                    return message
                continue
            key, _, value = line.partition(":")
            message[key] = value.removeprefix(" ")

    def read_events_for(self, seconds: float) -> None:
        """Reads on, so that Asterisk need not wait for us, until the time is over or the line is closed."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._connection.settimeout(left)
            try:
                self.events.append(self.read())
            except (TimeoutError, ConnectionError):
                break
        self._connection.settimeout(10)

    def _read_line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            received = self._connection.recv(65536)
            if not received:
                raise ConnectionError("Asterisk closed the AMI connection")
            self.raw += received
            self._buffer += received
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line
