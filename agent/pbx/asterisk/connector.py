"""Keeps one Asterisk's manager connection up and reads it as fast as it comes."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final

from agent.errors import PbxLost, PbxRefused
from agent.pbx.asterisk import condition
from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN, AsteriskInterpreter
from agent.pbx.asterisk.protocol import MAX_FRAME_BYTES, AmiMessage, AmiSession, SessionState
from agent.pbx.asterisk.translate import event_time, stamp_of
from agent.pbx.asterisk.writers import not_loaded, writers_of
from agent.pbx.clock import LineClock
from agent.pbx.feed import LINE_LOST, Blind, BlindReason, Feed, LineState, LineStatus
from agent.pbx.text import DEFAULT_ENCODING
from config.settings import AsteriskSettings, SourceSettings
from sync.backoff import Backoff

log = logging.getLogger(__name__)

# Without the "system" class there is no FullyBooted; then the channels are listed all the same.
_BOOT_PATIENCE_SECONDS: Final = 5.0
_WRONG_NAME: Final = frozenset({62, 64})  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and _IP_ADDRESS_MISMATCH
_RECEIVE_BUFFER_BYTES: Final = 4 * 1024 * 1024


# Beyond it, calls of the PBX and what others tell of them can no longer be put into one order.
_CLOCK_SECONDS: Final = 2.0
# A pong that took longer tells little about the time.
_PONG_TELLS_SECONDS: Final = 1.0
# Names of what the configuration's warnings are kept under begin so.
_OF_CONFIGURATION: Final = "configuration "
_NOT_LOADED: Final = "Module not loaded"  # as ModuleCheck says it


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _since_boot() -> float:
    """Seconds, those of a suspended machine too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class AsteriskConnector:
    """One PBX's line. `status` is kept current for operators; `run` ends only by cancellation."""

    def __init__(
        self,
        settings: AsteriskSettings,
        *,
        feed: Feed,
        backoff: Backoff,
        encoding: str = DEFAULT_ENCODING,
        now: Callable[[], datetime] = _utc_now,
        since_boot: Callable[[], float] = _since_boot,
    ) -> None:
        self._settings = settings
        self._feed = feed
        self._backoff = backoff
        self._encoding = encoding  # of what is no UTF-8
        self._now = now
        self._since_boot = since_boot
        self._clock = LineClock()
        self.status = LineStatus(pbx=settings.name, address=f"{settings.host}:{settings.port}")

    async def run(self) -> None:
        """Connect, listen, and connect again whenever the line is lost."""
        while True:
            try:
                await self._listen()
            except PbxLost as exc:
                self._lost(exc)
            await asyncio.sleep(self._backoff.next_delay())

    def _lost(self, exc: PbxLost) -> None:
        was_up = self.status.state is LineState.CONNECTED
        state = LineState.REFUSED if isinstance(exc, PbxRefused) else LineState.LOST
        if was_up or self.status.state is not state or self.status.reason != str(exc):
            log.warning("pbx line %s: %s", state, exc, extra={"pbx": self._settings.name})
        if was_up or self.status.since is None or self.status.state is not state:
            self.status.since = self._now()
        self.status.state = state
        self.status.reason = str(exc)
        self.status.reconnects += was_up

    async def _listen(self) -> None:
        line = await self._connect()
        lost: PbxLost | None = None
        blind = Blind(BlindReason.AGENT_STOPPED, "the agent was stopped")
        try:
            async with asyncio.TaskGroup() as tasks:
                watch = tasks.create_task(line.watch(), name=f"pbx-{self._settings.name}-watch")
                try:
                    await line.closed
                finally:
                    watch.cancel()
        except BaseExceptionGroup as group:
            # Not `except*`: what is raised in it comes out wrapped in a group again in Python 3.11.2, Debian 12's.
            lost = next((exc for exc in group.exceptions if isinstance(exc, PbxLost)), None)
            blind = line.why_blind(lost)
            if lost is None or len(group.exceptions) > 1:
                raise
        finally:
            line.close()
            if line.was_ready:
                last = self.status.last_heard_at or self._now()
                self._feed.heard(LINE_LOST, line.interpreter.interpret(LINE_LOST, last), last, blind=blind)
        if lost is not None:
            # A task group lets an error go before a cancellation that comes at the same moment, and forgets that one.
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError
            raise lost

    async def _connect(self) -> "_Line":
        settings = self._settings
        loop = asyncio.get_running_loop()
        line = _Line(
            settings,
            feed=self._feed,
            status=self.status,
            encoding=self._encoding,
            now=self._now,
            clock=self._clock,
            since_boot=self._since_boot,
            on_ready=self._backoff.succeeded,
        )
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                server_name = (settings.tls_server_name or settings.host) if settings.tls else None
                # ssl would refuse the name only once there is a socket, which asyncio then forgets to close.
                (server_name or "").encode("idna")
                await loop.create_connection(
                    lambda: line, settings.host, settings.port, ssl=self._tls(), server_hostname=server_name
                )
        except TimeoutError:
            seconds = settings.connect_timeout_seconds
            raise PbxLost(f"no connection to {self.status.address} within {seconds:g} s") from None
        except ssl.SSLCertVerificationError as exc:
            setting = "tls_server_name" if exc.verify_code in _WRONG_NAME else "tls_ca_file"
            raise PbxLost(
                f"the certificate of {self.status.address} is not trusted ({exc.verify_message}); set {setting}"
            ) from exc
        except ssl.SSLError as exc:
            reason = (exc.reason or str(exc)).replace("_", " ").lower()
            raise PbxLost(f"no TLS with {self.status.address} ({reason}); check port and tls") from exc
        except OSError as exc:
            reason = os.strerror(exc.errno) if exc.errno and not isinstance(exc, socket.gaierror) else str(exc)
            raise PbxLost(f"no connection to {self.status.address}: {reason}") from exc
        except ValueError as exc:  # UnicodeError among them: what asyncio and ssl say of names no host can have
            raise PbxLost(f"{self.status.address} cannot be looked up; check host and tls_server_name") from exc
        return line

    def _tls(self) -> ssl.SSLContext | None:
        if not self._settings.tls:
            return None
        try:
            return ssl.create_default_context(cafile=self._settings.tls_ca_file)
        except OSError as exc:
            raise PbxLost(f"tls_ca_file {self._settings.tls_ca_file} cannot be read: {exc.strerror or exc}") from exc


class _Line(asyncio.Protocol):
    """One connection from banner to end."""

    def __init__(
        self,
        settings: AsteriskSettings,
        *,
        feed: Feed,
        status: LineStatus,
        encoding: str,
        now: Callable[[], datetime],
        clock: LineClock,
        since_boot: Callable[[], float],
        on_ready: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._feed = feed
        self._status = status
        self._now = now
        self._clock = clock
        self._since_boot = since_boot
        self._on_ready = on_ready
        self.interpreter = AsteriskInterpreter(encoding, trace_variable=settings.trace_variable)
        self._session = AmiSession(
            username=settings.username,
            secret=settings.secret.get_secret_value() if settings.secret else "",
            md5=settings.login == "md5",
            event_classes=settings.event_classes,
            drop_events=settings.drop_events,
            action_prefix=f"sentiric-{settings.name}-{id(self):x}",
            encoding=encoding,
        )
        self._transport: asyncio.Transport | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._heard = asyncio.Event()
        self._booted = asyncio.Event()
        self._list_is_complete = False
        self._has_said_goodbye = False
        self._pinged_at: datetime | None = None
        self._pinged_boot = 0.0
        self.was_ready = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what asyncio promises for TCP
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        arrived_at = self._now()
        self._heard.set()
        try:
            messages = self._session.receive(data)
        except PbxLost as exc:
            self._fail(exc)
            return
        self._send()
        status = self._status
        status.last_heard_at = arrived_at
        status.events += len(messages)
        if status.oversized_frames != self._session.oversized:
            self._tell_oversized()
        if not self.was_ready and self._session.state is SessionState.READY:
            self._ready(arrived_at)
        boot = self._since_boot()
        self._clock.arrived(arrived_at.timestamp(), boot)
        # One look at the last word of a read tells whether the words of it have to be looked at one by one.
        was_set = bool(messages) and self._clock.may_be_set(stamp_of(messages[-1]), boot)
        for message in messages:
            if was_set and (step := self._clock.step_before(stamp_of(message), boot)):
                self._feed.clock_set(event_time(message, arrived_at), step)
            if message.name == "FullyBooted":
                self._booted.set()
            elif message.name == "Shutdown":
                self._has_said_goodbye = True
            self._feed.heard(message.raw, self.interpreter.event_of(message, arrived_at), arrived_at)
        if self._list_is_complete:  # after the messages of this very read
            self._list_is_complete = False
            self._feed.heard(SNAPSHOT_TAKEN, self.interpreter.interpret(SNAPSHOT_TAKEN, arrived_at), arrived_at)
        if not self._feed.has_room() and self._transport is not None and self._resuming is None:
            self._transport.pause_reading()
            self._resuming = asyncio.get_running_loop().create_task(self._resume(), name="pbx-resume")
            self._resuming.add_done_callback(self._resumed)

    def eof_received(self) -> None:
        self._fail(PbxLost("the PBX closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        match exc:
            case None:
                self._fail(PbxLost("the PBX closed the connection"))
            case OSError():
                self._fail(PbxLost(f"the connection broke: {_reason(exc)}"))
            case _:  # asyncio hands over what `data_received` raised: a bug, whose text may quote what was heard
                self._fail(exc)

    # ours

    def why_blind(self, lost: PbxLost | None) -> Blind:
        """Why nothing is heard after the line ended by `lost`, or by a bug."""
        if lost is None:
            return Blind(BlindReason.AGENT_DOWN, "the agent failed")
        if self._has_said_goodbye:
            return Blind(BlindReason.PBX_RESTARTED, "Asterisk was stopped or restarted")
        return Blind(BlindReason.LINE_LOST, str(lost))

    def close(self) -> None:
        """Drop the connection at once."""
        if self._resuming is not None:
            self._resuming.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._fail(PbxLost("closed"))
        if not self.closed.cancelled():  # who waited for it was cancelled: the watch noticed first, or the agent stops
            self.closed.exception()  # so that nobody waits for an error that was seen

    async def watch(self) -> None:
        """Log in within the deadline, list channels, then notice a line that is dead but open."""
        settings = self._settings
        try:
            async with asyncio.timeout(settings.connect_timeout_seconds):
                while not self.was_ready:
                    self._heard.clear()
                    await self._heard.wait()
        except TimeoutError:
            raise PbxLost(f"no log-in to {self._status.address} within its time") from None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BOOT_PATIENCE_SECONDS):
                await self._booted.wait()
        self._list_channels()
        await self._look_at_condition()
        clock = asyncio.get_running_loop().time
        listed_at = clock()
        while True:
            self._heard.clear()
            await asyncio.sleep(settings.ping_seconds)
            if not self._heard.is_set() or self._status.clock_offset_seconds is None:
                await self._ping()
            if clock() - listed_at >= settings.snapshot_seconds:
                self._list_channels()
                await self._look_at_condition()
                listed_at = clock()

    async def _ping(self) -> None:
        self._heard.clear()
        self._pinged_at, self._pinged_boot = self._now(), self._since_boot()
        self._session.action("Ping", then=self._ponged)
        self._send()
        try:
            async with asyncio.timeout(self._settings.pong_timeout_seconds):
                await self._heard.wait()
        except TimeoutError:
            if self._resuming is not None:
                return  # it is we who do not read: the store has no room
            raise PbxLost("the PBX no longer answers, though the connection is open") from None

    def _ponged(self, message: AmiMessage) -> None:
        stamp = stamp_of(message)
        if stamp is not None and (step := self._clock.ponged(stamp, self._pinged_boot, self._since_boot())):
            self._feed.clock_set(datetime.fromtimestamp(stamp, UTC), step)
        sent, now = (self._pinged_at or self._now()).timestamp(), self._now().timestamp()
        if not 0 <= now - sent <= _PONG_TELLS_SECONDS and self._status.clock_offset_seconds is not None:
            return
        with contextlib.suppress(ValueError):  # Asterisk before 1.8 sends no time
            offset = float(message.get("timestamp")) - (sent + now) / 2
            self._status.clock_offset_seconds = offset
            self._tell_clock(offset)

    def _tell_clock(self, offset: float) -> None:
        warnings, was_off = self._status.warnings, "clock" in self._status.warnings
        warnings.pop("clock", None)
        if abs(offset) > _CLOCK_SECONDS:
            way = "ahead of" if offset > 0 else "behind"
            warnings["clock"] = (
                f"its clock is {abs(offset):.1f} s {way} this machine's, and calls bear its times; "
                "have both set by NTP (chrony or systemd-timesyncd)"
            )
            if not was_off:
                log.warning("the pbx's clock is off", extra={"pbx": self._settings.name, "seconds": round(offset, 1)})

    def _settings_told(self, message: AmiMessage) -> None:
        """Needs write=reporting, as the list of channels does, which tells if it is missing."""
        version = message.get("asteriskversion")
        if version:
            # Distributions hang what they changed behind a "~".
            self._status.version = f"Asterisk {version.partition('~')[0]}"
        self._status.warnings.pop("cdr", None)
        if message.get("corecdrenabled") == "No" and condition.needs_cdrs(self._settings.sources):
            self._status.warnings.pop(f"{_OF_CONFIGURATION}cdr", None)
            self._status.warnings["cdr"] = condition.CDRS_ARE_OFF

    async def _look_at_condition(self) -> None:
        """Whether the PBX writes down what the sources are to tell; again and again, since people change it."""
        self._session.action("CoreSettings", then=self._settings_told)
        for source in self._settings.sources:
            self._ask_for_writers(source)
        self._send()
        found = await asyncio.to_thread(condition.findings_of, self._settings)
        found |= condition.trace_findings(self._settings, untraced_calls=self.interpreter.untraced_calls)
        warnings = self._status.warnings
        for name in [name for name in warnings if name.startswith(_OF_CONFIGURATION)]:
            del warnings[name]
        # What Asterisk says of itself is not said twice.
        warnings.update({f"{_OF_CONFIGURATION}{name}": text for name, text in found.items() if name not in warnings})

    def _ask_for_writers(self, source: SourceSettings) -> None:
        """Needs write=system, which nobody is asked to give: without it a source that falls silent tells."""
        missing: set[str] = set()
        modules, name = writers_of(source), f"module {source.called}"

        def told(module: str, message: AmiMessage) -> None:
            if message.get("response") == "Success":
                self._status.warnings.pop(name, None)
            elif message.get("message") == _NOT_LOADED:
                missing.add(module)
                if len(missing) == len(modules):
                    self._status.warnings.pop(f"{_OF_CONFIGURATION}{name}", None)
                    self._status.warnings[name] = not_loaded(source)

        for module in modules:
            self._session.action("ModuleCheck", ("Module", module), then=partial(told, module))

    def _list_channels(self) -> None:
        """Ask for all channels; the ping behind it tells when everything said before the list has come too."""
        self._pinged_at, self._pinged_boot = self._now(), self._since_boot()
        self._session.action("CoreShowChannels", then=self._list_began)
        self._session.action("Ping", then=self._list_ended)
        self._send()

    def _list_began(self, message: AmiMessage) -> None:
        if message.get("response") == "Success":
            self._status.warnings.pop("snapshot", None)
            return
        self._status.warnings["snapshot"] = (
            "the AMI user may not list channels, so calls whose end is missed stay open; "
            "add write=reporting to it in manager.conf"
        )
        log.warning("the pbx refuses to list its channels", extra={"pbx": self._settings.name})

    def _list_ended(self, message: AmiMessage) -> None:
        self._ponged(message)
        self._list_is_complete = True

    def _tell_oversized(self) -> None:
        status = self._status
        status.oversized_frames = self._session.oversized
        status.warnings.pop("oversized", None)  # a new connection counts anew
        if status.oversized_frames:
            status.warnings["oversized"] = (
                f"{status.oversized_frames} messages longer than {MAX_FRAME_BYTES // 1024} KiB were left out; "
                "shorten channelvars in manager.conf"
            )

    def _ready(self, at: datetime) -> None:
        self.was_ready = True
        self._on_ready()
        status = self._status
        status.state, status.since, status.reason = LineState.CONNECTED, at, None
        ami = self._session.version
        if status.version is None:
            status.version = f"AMI {ami}"  # until Asterisk tells its own
        log.info("pbx connected", extra={"pbx": self._settings.name, "address": status.address, "ami": ami})

    async def _resume(self) -> None:
        await self._feed.wait_for_room()
        self._resuming = None
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def _resumed(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._fail(exc)

    def _send(self) -> None:
        data = self._session.outgoing()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _fail(self, exc: BaseException) -> None:
        """End the line: by PbxLost `run` connects again, anything else is a bug and passes through it."""
        if not self.closed.done():
            self.closed.set_exception(exc)


def _reason(exc: OSError) -> str:
    if isinstance(exc, ssl.SSLError):
        return (exc.reason or "TLS failed").replace("_", " ").lower()
    return os.strerror(exc.errno) if exc.errno else "no reason given"
