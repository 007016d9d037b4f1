"""One UDP address with many phones behind it, told apart by the number called; and the sound they send."""

import asyncio
import secrets
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from tests.pbx.stage.sip import Message

if TYPE_CHECKING:
    from tests.pbx.stage.phone import Call, Phone

T1_SECONDS = 0.5
ANSWER_SECONDS = 10.0
# Every third packet of 20 ms is enough for the PBX to see that sound flows, and costs a third.
SOUND_SECONDS = 0.06
SAMPLES = 160
SILENCE = b"\xd5" * SAMPLES  # A-law

Address = tuple[str, int]


class Exchange(asyncio.DatagramProtocol):
    """Sends and receives for its phones: retransmits, knows repetitions again, keeps sound flowing.

    The socket for sound is never read: what the PBX sends there is dropped by the kernel.
    """

    def __init__(self, bound: socket.socket, pbx: Address) -> None:
        self.pbx = pbx
        self._signal = bound
        self._sound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sound.setblocking(False)
        self._sound.bind((bound.getsockname()[0], 0))
        self.address: Address = self._signal.getsockname()
        self.sound_address: Address = self._sound.getsockname()
        self.phones: dict[str, Phone] = {}
        self.calls: dict[str, Call] = {}
        self._answers: dict[tuple[str, str], bytes] = {}
        self._waiting: dict[str, Callable[[Message], None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    async def open(self) -> None:
        """Begin to listen on the loop that runs."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=self._signal)
        self.run(self._send_sound(), name="sound")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()
        self._signal.close()
        self._sound.close()

    def run(self, coroutine: Coroutine[Any, Any, object], *, name: str) -> asyncio.Task[object]:
        """A task that ends with the exchange at the latest."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def send(self, message: Message) -> None:
        assert self._transport is not None, "the exchange is not open"
        data = message.encode()
        if message.is_answer:
            self._answers[message.branch, message.method] = data
        self._transport.sendto(data, self.pbx)

    def repeat(self, message: Message, until: asyncio.Event) -> None:
        """Send now, and again at growing intervals until the event is set."""
        self.send(message)

        async def again() -> None:
            pause = T1_SECONDS
            while not until.is_set():
                try:
                    async with asyncio.timeout(pause):
                        await until.wait()
                except TimeoutError:
                    self.send(message)
                    pause = min(2 * pause, 4.0)

        self.run(again(), name="repeat")

    async def ask(self, request: Message, on_progress: Callable[[Message], None] | None = None) -> Message:
        """The final answer to a request; `on_progress` is told those on the way."""
        heard = asyncio.Event()
        final: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def answered(message: Message) -> None:
            if message.method != request.method:
                return  # a CANCEL has the branch of its INVITE
            if message.code >= 200 and not final.done():
                final.set_result(message)
            elif message.code < 200 and on_progress:
                on_progress(message)
            # An INVITE is waited for once anything came, everything else until it is over.
            if message.code >= 200 or message.method == "INVITE":
                heard.set()

        self._waiting[request.branch] = answered
        self.repeat(request, heard)
        try:
            if request.method == "INVITE":
                return await final
            async with asyncio.timeout(ANSWER_SECONDS):
                return await final
        finally:
            heard.set()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        message = Message.parse(data)
        if message.is_answer:
            self._answer_received(message)
        elif (done := self._answers.get((message.branch, message.method))) is not None:
            assert self._transport is not None
            self._transport.sendto(done, self.pbx)
        elif (call := self.calls.get(message.get("Call-ID"))) is not None:
            call.requested(message)
        elif message.method == "INVITE" and message.user in self.phones:
            self.phones[message.user].invited(message)
        elif message.method == "OPTIONS":
            self.send(message.answer(200, "OK", to_tag=new_tag()))
        elif message.method != "ACK":
            self.send(message.answer(404 if message.method == "INVITE" else 481, "Nobody", to_tag=new_tag()))

    def _answer_received(self, message: Message) -> None:
        call = self.calls.get(message.get("Call-ID"))
        if message.method == "INVITE" and message.code >= 200 and call is not None:
            call.acknowledge(message)
        waiting = self._waiting.get(message.branch)
        if waiting is not None:
            waiting(message)

    async def _send_sound(self) -> None:
        """A packet of silence in every call that is up, as long as the exchange is open."""
        number = 0
        while True:
            await asyncio.sleep(SOUND_SECONDS)
            number += 1
            for call in self.calls.values():
                if call.sound_to is not None:
                    header = struct.pack("!BBHII", 0x80, 8, number & 0xFFFF, number * SAMPLES, call.sound_source)
                    self._sound.sendto(header + SILENCE, call.sound_to)


def new_tag() -> str:
    return secrets.token_hex(6)
