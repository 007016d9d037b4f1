"""A PBX on a TCP port: the simulated exchange, its manager interface, and what can go wrong with both."""

import asyncio
import contextlib
import random
import socket
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from agent.simulator.events import CLASS_OF, Event
from agent.simulator.exchange import Exchange
from agent.simulator.manager import BANNER, Account, ManagerSession, Reply
from agent.simulator.master_csv import keeper
from agent.simulator.plan import CallPlan
from agent.simulator.playing import PlayedCall
from agent.simulator.scenarios import plan_calls, queue_members
from agent.simulator.site import TENANTS
from agent.simulator.truth import Cut, SimulatedCall

# What the kernel of a usual Linux holds for a reader that does not read (the maximum of tcp_wmem).
DEFAULT_BUFFER_BYTES: Final = 4 * 1024 * 1024
DEFAULT_WRITE_TIMEOUT_SECONDS: Final = 0.1

_IDLE_SECONDS: Final = 0.25
_IDLE_SECONDS_US: Final = 250_000
_SHORTEST_TICK_SECONDS: Final = 0.001
# More would keep clients waiting; what is left is played right after they had their turn.
_STEPS_AT_ONCE: Final = 300
_ARRIVALS_AT_ONCE: Final = 50
_SEE_OFF_SECONDS: Final = 2.0


class Simulator:
    """Start it, let calls happen, disturb it, and compare what it tells with what you recorded.

    Calls come at `rate` a second (0: only those that are placed), at most `calls` of them, chosen by `seed`; `pace`
    stretches every length of time in a call, so that 0.01 makes a minute's talk last 0.6 s. `ended` holds what was true
    of each ended call; `cdr_file` is its Master.csv.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        account: Account,
        rate: float = 0.0,
        calls: int | None = None,
        seed: int = 1,
        pace: float = 1.0,
        plans: Iterator[CallPlan] | None = None,
        timestamps: bool = True,
        system_name: str = "",
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        write_timeout_seconds: float = DEFAULT_WRITE_TIMEOUT_SECONDS,
        refusal_seconds: float = 1.0,
        keep_ended: bool = True,
        on_ended: Callable[[SimulatedCall], None] | None = None,
        cdr_file: Path | None = None,
    ) -> None:
        self._host = host
        self._wanted_port = port
        self._account = account
        self._rate = rate
        self._plans: Iterator[CallPlan] = islice(plans if plans is not None else plan_calls(seed), calls)
        self._dice = random.Random(seed ^ 0x5E47)
        self._pace = pace
        self._timestamps = timestamps
        self._system_name = system_name
        self.buffer_bytes = buffer_bytes
        self.write_timeout_seconds = write_timeout_seconds
        self.refusal_seconds = refusal_seconds
        self._on_ended = on_ended
        self._records = None if cdr_file is None else keeper(cdr_file)
        self._wall_us = time.time_ns() // 1000
        self._monotonic_ns = time.monotonic_ns()
        self._boots = 0
        self.exchange = self._new_exchange(ids_from_second=0)
        self.booted = True
        self.shutting_down = False
        self.placed = 0
        self.events = 0
        self.cut_clients = 0
        self.logins = 0
        self.listings = 0
        self.ended: list[SimulatedCall] = []
        self.ended_calls = 0
        self._keep_ended = keep_ended
        self._planned_out = rate <= 0
        self._next_arrival_us = 0
        self._clients: set[_Client] = set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._driver: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._ticked: asyncio.Future[None] | None = None

    # Beginning and end

    async def start(self) -> None:
        """Listen, and let calls come."""
        await self._listen(self._wanted_port)
        self._next_arrival_us = self.now_us()
        self._driver = asyncio.create_task(self._drive(), name="simulator")

    async def stop(self) -> None:
        """Close everything without a word; raises what broke the simulator, if anything did."""
        driver, self._driver = self._driver, None
        self._tell_waiters()
        self._close_door()
        for client in list(self._clients):
            client.close()
        await self._see_off()
        if driver is not None:
            driver.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await driver

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def host(self) -> str:
        """Where it listens."""
        return self._host

    @property
    def port(self) -> int:
        """Where it listens, also while it is down."""
        return self._port

    @property
    def clients(self) -> int:
        """How many are connected and logged in."""
        return sum(client.session.logged_in for client in self._clients)

    @property
    def live_calls(self) -> int:
        """How many calls are going on."""
        return self.exchange.live_calls

    @property
    def finished(self) -> bool:
        """Whether every call that was to come has ended."""
        return self._planned_out and self.exchange.idle

    def now_us(self) -> int:
        """The PBX's clock, which never jumps: microseconds since the epoch."""
        return self._wall_us + (time.monotonic_ns() - self._monotonic_ns) // 1000

    def new_challenge(self) -> str:
        """For an MD5 log-in."""
        return str(self._dice.randrange(100_000_000, 1_000_000_000))

    # Calls

    def place(self, plan: CallPlan) -> None:
        """Let one call begin now."""
        self.placed += 1
        self.exchange.begin(PlayedCall(self.exchange, plan), at_us=self.now_us())
        self._wake.set()

    def stop_placing(self) -> None:
        """Let no more calls come by themselves; those that go on end in their time."""
        self._planned_out = True
        self._wake.set()

    async def wait_ended(self, calls: int) -> None:
        """Until so many calls have ended since the start."""
        await self._wait(lambda: self.ended_calls >= calls)

    async def wait_finished(self) -> None:
        """Until every call that was to come has ended."""
        await self._wait(lambda: self.finished)

    async def wait_clients(self, clients: int = 1) -> None:
        """Until so many are logged in."""
        await self._wait(lambda: self.clients >= clients)

    async def wait_nobody(self) -> None:
        """Until nobody is connected, and whatever was said by those who were has been read."""
        await self._wait(lambda: not self._clients)

    async def wait_logins(self, logins: int) -> None:
        """Until there were so many log-ins since the start."""
        await self._wait(lambda: self.logins >= logins)

    async def wait_listings(self, listings: int) -> None:
        """Until clients were told so many times since the start which channels there are."""
        await self._wait(lambda: self.listings >= listings)

    async def wait_live(self, calls: int = 1) -> None:
        """Until so many calls are going on."""
        await self._wait(lambda: self.live_calls >= calls)

    async def _wait(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._driver is None:
                raise RuntimeError("the simulator does not run")
            if self._ticked is None:
                self._ticked = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._ticked, self._driver}, return_when=asyncio.FIRST_COMPLETED)
            if self._driver is not None and self._driver.done():
                self._driver.result()

    def _tell_waiters(self) -> None:
        ticked, self._ticked = self._ticked, None
        if ticked is not None and not ticked.done():
            ticked.set_result(None)

    # What goes wrong

    def drop_lines(self) -> None:
        """Close every connection; new ones are welcome."""
        for client in list(self._clients):
            client.close()

    async def go_away(self, seconds: float) -> None:
        """Close every connection and refuse new ones for a while, as if the network were down; calls go on."""
        self._close_door()
        self.drop_lines()
        await asyncio.sleep(seconds)
        await self._listen(self._port)

    def stall(self, seconds: float) -> None:
        """Send nothing on the present connections for a while, then everything at once."""
        for client in self._clients:
            client.stall()
            asyncio.get_running_loop().call_later(seconds, client.go_on)

    def half_open(self) -> None:
        """Never send anything again on the present connections, but leave them open."""
        for client in self._clients:
            client.stall()

    async def restart(
        self, *, farewell_seconds: float = 1.1, down_seconds: float = 0.35, boot_seconds: float = 0.25
    ) -> None:
        """As `core restart now`: hang up all, say goodbye, close, be away, come back with new counters, boot."""
        self.shutting_down = True
        self._broadcast(self.exchange.cut_all(self.now_us(), Cut.RESTART))
        self._collect()
        await asyncio.sleep(farewell_seconds)
        self.exchange.stamp = max(self.exchange.stamp, self.now_us())
        self.exchange.say("Shutdown", "Shutdown: Cleanly\r\nRestart: True\r\n")
        self._broadcast(self.exchange.take_events())
        await self._go_down_and_come_back(down_seconds, boot_seconds)

    async def kill(self, *, down_seconds: float = 1.0, boot_seconds: float = 0.25) -> None:
        """As `kill -9` and a new start: connections just close, nothing is said about the calls."""
        self.shutting_down = True
        self.exchange.cut_all(self.now_us(), Cut.KILL)
        self._collect()
        await self._go_down_and_come_back(down_seconds, boot_seconds)

    async def _go_down_and_come_back(self, down_seconds: float, boot_seconds: float) -> None:
        self.booted = False
        self._close_door()
        for client in list(self._clients):
            client.close()
        await asyncio.sleep(down_seconds)
        self.exchange = self._new_exchange(ids_from_second=self.exchange.id_second() + 1)
        self._next_arrival_us = self.now_us()
        self.choose_events()
        self.shutting_down = False
        await self._listen(self._port)
        await asyncio.sleep(boot_seconds)
        self._boot()

    def _boot(self) -> None:
        exchange = self.exchange
        exchange.stamp = max(exchange.stamp, self.now_us())
        for tenant in TENANTS:
            for peer in (*(phone.endpoint for phone in tenant.phones), f"PJSIP/{tenant.trunk}"):
                exchange.say("PeerStatus", f"ChannelType: PJSIP\r\nPeer: {peer}\r\nPeerStatus: Reachable\r\n")
        self.booted = True
        exchange.say("FullyBooted", "Status: Fully Booted\r\nUptime: 0\r\nLastReload: 0\r\n")
        self._broadcast(exchange.take_events())
        self._wake.set()

    # Inside

    def _new_exchange(self, *, ids_from_second: int) -> Exchange:
        self._boots += 1
        exchange = Exchange(
            now_us=self.now_us(),
            pace=self._pace,
            seed=self._boots,
            timestamps=self._timestamps,
            system_name=self._system_name,
            members=queue_members(),
            ids_from_second=ids_from_second,
            records=self._records,
        )
        exchange.unwanted = frozenset(CLASS_OF)  # until somebody logs in
        return exchange

    async def _listen(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self, self._account), self._host, port)
        self._port = self._server.sockets[0].getsockname()[1]

    def _close_door(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _see_off(self) -> None:
        """What was said before the end still arrives, unless the reader does not read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SEE_OFF_SECONDS):
                await asyncio.gather(*(client.gone for client in self._clients))
        for client in list(self._clients):
            client.abort()

    async def _drive(self) -> None:
        """Play what is due, tell it, sleep until something is due again."""
        while True:
            now_us = self.now_us()
            self._let_come(now_us)
            self._broadcast(self.exchange.advance(now_us, steps=_STEPS_AT_ONCE))
            self._collect()
            self._tell_waiters()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()

    def _pause(self) -> float:
        due = [moment for moment in (self.exchange.next_due(), self._arrival_due()) if moment is not None]
        seconds = (min(due) - self.now_us()) / 1_000_000 if due else _IDLE_SECONDS
        return min(_IDLE_SECONDS, max(_SHORTEST_TICK_SECONDS, seconds))

    def _arrival_due(self) -> int | None:
        return None if self._planned_out or not self.booted or self.shutting_down else self._next_arrival_us

    def _let_come(self, now_us: int) -> None:
        for _ in range(_ARRIVALS_AT_ONCE):
            due = self._arrival_due()
            if due is None or due > now_us:
                return
            plan = next(self._plans, None)
            if plan is None:
                self._planned_out = True
                return
            self.placed += 1
            self.exchange.begin(PlayedCall(self.exchange, plan), at_us=due)
            self._next_arrival_us = due + int(self._dice.expovariate(self._rate) * 1_000_000)
        # A machine that cannot keep up makes fewer calls; it does not make them all later.
        self._next_arrival_us = max(self._next_arrival_us, now_us - _IDLE_SECONDS_US)

    def _collect(self) -> None:
        for call in self.exchange.take_ended():
            self.ended_calls += 1
            if self._keep_ended:
                self.ended.append(call)
            if self._on_ended is not None:
                self._on_ended(call)

    def _broadcast(self, events: list[Event]) -> None:
        if not events:
            return
        self.events += len(events)
        for client in self._clients:
            client.tell(events)

    def choose_events(self) -> None:
        """Events that no client wants are not even made."""
        wanted: frozenset[str] = frozenset().union(*(client.choose() for client in self._clients))
        self.exchange.unwanted = frozenset(CLASS_OF) - wanted

    def joined(self, client: "_Client") -> None:
        """A connection was made."""
        self._clients.add(client)
        self.choose_events()
        self._wake.set()

    def logged_in(self) -> None:
        """Somebody logged in."""
        self.logins += 1

    def listed(self) -> None:
        """Somebody was told which channels there are."""
        self.listings += 1

    def wishes_changed(self) -> None:
        """A session asked for other events."""
        self.choose_events()
        self._wake.set()

    def left(self, client: "_Client") -> None:
        """A connection is gone."""
        self._clients.discard(client)
        self.choose_events()
        self._wake.set()


class _Client(asyncio.Protocol):
    """One connection: a session, and how its bytes get out or do not."""

    def __init__(self, simulator: Simulator, account: Account) -> None:
        self._simulator = simulator
        self.session = ManagerSession(simulator, account, refusal_seconds=simulator.refusal_seconds)
        self.session.changed = self._session_changed
        self._transport: asyncio.Transport | None = None
        self._wanted: frozenset[str] = frozenset()
        self._was_logged_in = False
        self._listings = 0
        self._held: list[bytes] | None = None
        self._cutting: asyncio.TimerHandle | None = None
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what asyncio promises for TCP
        self._transport = transport
        limit = self._simulator.buffer_bytes
        transport.set_write_buffer_limits(high=limit, low=limit // 2)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._simulator.joined(self)
        self._write(BANNER)

    def data_received(self, data: bytes) -> None:
        for reply in self.session.receive(data):
            if reply.delay_seconds:
                asyncio.get_running_loop().call_later(reply.delay_seconds, self._send, reply)
            else:
                self._send(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._calm()
        if not self.gone.done():
            self.gone.set_result(None)
        self._simulator.left(self)

    def pause_writing(self) -> None:
        """The reader does not read: Asterisk waits a moment, then cuts it off in the middle of an event."""
        self._cutting = asyncio.get_running_loop().call_later(self._simulator.write_timeout_seconds, self._cut_off)

    def resume_writing(self) -> None:
        self._calm()

    def tell(self, events: list[Event]) -> None:
        """Send those events that the client wants."""
        wanted = self._wanted
        if not wanted:
            return
        session = self.session
        if session.looks_inside:
            chosen = [event.block for event in events if event.name in wanted and session.passes(event)]
        else:
            chosen = [event.block for event in events if event.name in wanted]
        if chosen:
            self._write(b"".join(chosen))

    def choose(self) -> frozenset[str]:
        """Which events the client wants now."""
        self._wanted = self.session.wanted_names()
        return self._wanted

    def stall(self) -> None:
        """Hold back whatever is to be sent."""
        if self._held is None:
            self._held = []

    def go_on(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, None
        if held:
            self._write(b"".join(held))

    def close(self) -> None:
        """Close the connection; what the kernel has taken still arrives."""
        if self._held is not None:
            self.abort()
        elif self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close the connection, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def _session_changed(self) -> None:
        if self.session.logged_in and not self._was_logged_in:
            self._was_logged_in = True
            self._simulator.logged_in()
        if self.session.listings > self._listings:
            self._listings = self.session.listings
            self._simulator.listed()
        self._simulator.wishes_changed()

    def _send(self, reply: Reply) -> None:
        self._write(reply.data)
        if reply.closes:
            self.close()

    def _write(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _cut_off(self) -> None:
        if self._transport is not None:
            self._simulator.cut_clients += 1
            self._transport.abort()

    def _calm(self) -> None:
        if self._cutting is not None:
            self._cutting.cancel()
            self._cutting = None
