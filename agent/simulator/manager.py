"""One manager session as Asterisk 22 conducts it, without I/O: bytes of actions go in, replies come out."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from agent.simulator.channel import Channel
from agent.simulator.events import CLASS_OF, Event, EventClass, classes_of
from agent.simulator.exchange import Exchange, local_time

BANNER: Final = b"Asterisk Call Manager/11.0.0\r\n"
VERSION: Final = "22.10.1"

DEFAULT_READ: Final = (
    EventClass.SYSTEM
    | EventClass.CALL
    | EventClass.AGENT
    | EventClass.DIALPLAN
    | EventClass.CDR
    | EventClass.DTMF
    | EventClass.REPORTING
    | EventClass.USER
)
DEFAULT_WRITE: Final = EventClass.SYSTEM | EventClass.REPORTING

_MAX_LINE_BYTES: Final = 1024
_MAX_HEADERS: Final = 128
_READABLE: Final = EventClass.SYSTEM | EventClass.REPORTING
_NAME_FILTER: Final = re.compile(r"Event: (\w+)")


@dataclass(frozen=True, slots=True)
class Account:
    """A section of manager.conf."""

    username: str
    secret: str = field(repr=False)
    read: EventClass = DEFAULT_READ
    write: EventClass = DEFAULT_WRITE


class Reply(NamedTuple):
    """What to send, after how long, and whether the session is over then."""

    data: bytes
    delay_seconds: float = 0.0
    closes: bool = False


class Pbx(Protocol):
    """What a session can look at."""

    @property
    def exchange(self) -> Exchange: ...

    @property
    def booted(self) -> bool: ...

    @property
    def shutting_down(self) -> bool: ...

    def now_us(self) -> int: ...

    def new_challenge(self) -> str: ...


Action = dict[str, str]


class ManagerSession:
    """The state of one connection: who it is and which events it wants."""

    def __init__(self, pbx: Pbx, account: Account, *, refusal_seconds: float = 1.0) -> None:
        self._pbx = pbx
        self._account = account
        self._refusal_seconds = refusal_seconds
        self._buffer = b""
        self._challenge: str | None = None
        self._over = False
        self.logged_in = False
        self.listings = 0  # how often it was told which channels there are
        self.mask = EventClass(0)
        self._excluded: list[re.Pattern[str]] = []
        self._included: list[re.Pattern[str]] = []
        self._excluded_names: set[str] = set()
        self.changed: Callable[[], None] = lambda: None
        self._anonymous_actions: dict[str, Callable[[Action], list[Reply]]] = {
            "login": self._log_in,
            "challenge": self._give_challenge,
            "logoff": self._log_off,
        }
        self._actions: dict[str, tuple[EventClass, Callable[[Action], list[Reply]]]] = {
            "ping": (EventClass(0), self._ping),
            "events": (EventClass(0), self._events),
            "filter": (EventClass.SYSTEM, self._filter),
            "coreshowchannels": (_READABLE, self._core_show_channels),
            "corestatus": (_READABLE, self._core_status),
            "coresettings": (_READABLE, self._core_settings),
            "listcommands": (EventClass(0), self._list_commands),
        }

    # Events

    def wanted_names(self) -> frozenset[str]:
        """The events that may interest this client; `passes` has the last word about each."""
        if not self.logged_in:
            return frozenset()
        readable = self.mask & self._account.read
        return frozenset(
            name
            for name, event_class in CLASS_OF.items()
            if event_class & readable and not any(name.startswith(excluded) for excluded in self._excluded_names)
        )

    @property
    def looks_inside(self) -> bool:
        """Whether filters ask for more than an event's name."""
        return bool(self._excluded or self._included)

    def passes(self, event: Event) -> bool:
        """Whether the filters let an event through whose name is wanted."""
        text = event.block.decode(errors="replace")
        if self._included and not any(pattern.search(text) for pattern in self._included):
            return False
        return not any(pattern.search(text) for pattern in self._excluded)

    # Actions

    def receive(self, data: bytes) -> list[Reply]:
        """The replies to everything that is complete."""
        self._buffer += data
        replies: list[Reply] = []
        while not self._over:
            block, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                if len(self._buffer) > _MAX_LINE_BYTES * _MAX_HEADERS:
                    self._over = True
                    replies.append(Reply(b"", closes=True))
                break
            self._buffer = rest
            replies += self._answer(_parsed(block))
            self._over = bool(replies) and replies[-1].closes
        return replies

    def _answer(self, action: Action) -> list[Reply]:
        name = action.get("action", "").lower()
        if not name:
            return [_error(action, "Missing action in request")]
        if name in self._anonymous_actions:
            return self._anonymous_actions[name](action)
        needs, answer = self._actions.get(name, (EventClass(0), self._not_known))
        if not self.logged_in or (needs and not needs & self._account.write):
            return [_error(action, "Permission denied")]
        return answer(action)

    def _not_known(self, action: Action) -> list[Reply]:
        text = f"Invalid/unknown command: {action['action']}. Use Action: ListCommands to show available commands."
        return [_error(action, text)]

    def _log_off(self, action: Action) -> list[Reply]:
        return [Reply(_response(action, "Goodbye", ("Message", "Thanks for all the fish.")), closes=True)]

    def _give_challenge(self, action: Action) -> list[Reply]:
        if action.get("authtype", "").upper() != "MD5":
            return [_error(action, "Must specify AuthType")]
        self._challenge = self._pbx.new_challenge()
        return [Reply(_response(action, "Success", ("Challenge", self._challenge)))]

    def _log_in(self, action: Action) -> list[Reply]:
        if self.logged_in:
            return [Reply(_response(action, "Success", ("Message", "Already authenticated")))]
        if self._pbx.shutting_down:
            return [Reply(_error(action, "Asterisk is shutting down").data, closes=True)]
        if not self._is_right(action):
            refusal = _error(action, "Authentication failed").data
            return [Reply(refusal, delay_seconds=self._refusal_seconds, closes=True)]
        self.logged_in = True
        self.mask = classes_of(action.get("events", "on"))
        self.changed()
        replies = [Reply(_response(action, "Success", ("Message", "Authentication accepted")))]
        if self._pbx.booted and self.mask & self._account.read & EventClass.SYSTEM:
            up = (self._pbx.now_us() - self._pbx.exchange.started_us) // 1_000_000
            replies.append(
                Reply(
                    f"Event: FullyBooted\r\nPrivilege: system,all\r\nUptime: {up}\r\nLastReload: {up}\r\n"
                    "Status: Fully Booted\r\n\r\n".encode()
                )
            )
        return replies

    def _is_right(self, action: Action) -> bool:
        if action.get("username") != self._account.username:
            return False
        if action.get("authtype", "").upper() != "MD5":
            return action.get("secret") == self._account.secret
        if self._challenge is None:
            return False
        text = f"{self._challenge}{self._account.secret}"
        return action.get("key", "").lower() == hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()

    def _ping(self, action: Action) -> list[Reply]:
        seconds, rest = divmod(self._pbx.now_us(), 1_000_000)
        return [Reply(_response(action, "Success", ("Ping", "Pong"), ("Timestamp", f"{seconds}.{rest:06}")))]

    def _events(self, action: Action) -> list[Reply]:
        self.mask = classes_of(action.get("eventmask", "off"))
        self.changed()
        return [Reply(_response(action, "Success", ("Events", "On" if self.mask else "Off")))]

    def _filter(self, action: Action) -> list[Reply]:
        if action.get("operation", "").lower() != "add":
            return [_error(action, "Unknown operation")]
        text = action.get("filter", "")
        excludes, pattern = text.startswith("!"), text.removeprefix("!").strip()
        try:
            compiled = re.compile(pattern)
        except re.error:
            return [_error(action, "Filter did not compile.  Check the syntax of the filter given.")]
        by_name = _NAME_FILTER.fullmatch(pattern)
        if excludes and by_name:
            self._excluded_names.add(by_name[1])
        elif excludes:
            self._excluded.append(compiled)
        else:
            self._included.append(compiled)
        self.changed()
        return [Reply(_response(action, "Success", ("Message", "Success")))]

    def _core_show_channels(self, action: Action) -> list[Reply]:
        now_us = self._pbx.now_us()
        channels = self._pbx.exchange.channels
        parts = [_response(action, "Success", ("EventList", "start"), ("Message", "Channels will follow"))]
        parts += [_listed(channel, action, now_us) for channel in channels.values()]
        parts.append(
            f"Event: CoreShowChannelsComplete\r\n{_action_id(action)}EventList: Complete\r\n"
            f"ListItems: {len(channels)}\r\n\r\n".encode()
        )
        self.listings += 1
        self.changed()
        return [Reply(b"".join(parts))]

    def _core_status(self, action: Action) -> list[Reply]:
        exchange = self._pbx.exchange
        date, time = local_time(exchange.started_us).split(" ")
        fields = (
            ("CoreStartupDate", date),
            ("CoreStartupTime", time),
            ("CoreReloadDate", date),
            ("CoreReloadTime", time),
            ("CoreCurrentCalls", str(len(exchange.channels))),  # Asterisk counts channels here
            ("CoreProcessedCalls", str(exchange.processed)),
        )
        return [Reply(_response(action, "Success", *fields))]

    def _core_settings(self, action: Action) -> list[Reply]:
        fields = (
            ("AMIversion", "11.0.0"),
            ("AsteriskVersion", VERSION),
            ("SystemName", self._pbx.exchange.system_name),
            ("CoreMaxCalls", "0"),
            ("CoreCDRenabled", "Yes"),
            ("CoreHTTPenabled", "No"),
        )
        return [Reply(_response(action, "Success", *fields))]

    def _list_commands(self, action: Action) -> list[Reply]:
        names = ("Challenge", "CoreSettings", "CoreShowChannels", "CoreStatus", "Events", "Filter", "Login", "Logoff")
        fields = [(name, "see the documentation.  (Priv: <none>)") for name in (*names, "Ping")]
        return [Reply(_response(action, "Success", *fields))]


def _parsed(block: bytes) -> Action:
    action: Action = {}
    for line in block.decode(errors="replace").split("\r\n")[:_MAX_HEADERS]:
        key, colon, value = line.partition(":")
        if colon:
            action.setdefault(key.strip().lower(), value.strip())
    return action


def _action_id(action: Action) -> str:
    action_id = action.get("actionid")
    return f"ActionID: {action_id}\r\n" if action_id else ""


def _response(action: Action, response: str, *fields: tuple[str, str]) -> bytes:
    lines = "".join(f"{key}: {value}\r\n" for key, value in fields)
    return f"Response: {response}\r\n{_action_id(action)}{lines}\r\n".encode()


def _error(action: Action, message: str) -> Reply:
    return Reply(_response(action, "Error", ("Message", message)))


def _listed(channel: Channel, action: Action, now_us: int) -> bytes:
    minutes, seconds = divmod(max(0, now_us - channel.opened_us) // 1_000_000, 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"Event: CoreShowChannel\r\n{_action_id(action)}{channel.fields()}Application: {channel.application}\r\n"
        f"ApplicationData: {channel.application_data}\r\nDuration: {hours:02}:{minutes:02}:{seconds:02}\r\n"
        f"BridgeId: {channel.bridge.id if channel.bridge else ''}\r\n\r\n"
    ).encode()
