"""AMI without I/O: bytes go in, messages and bytes to send come out.

Framing per Asterisk's main/manager.c: a banner line, then messages of `Key: value` lines, each ended by an empty line.
Keys are case-insensitive and may repeat, values may be empty or hold ': '. The answer of an old-style `Command`
(Asterisk 13 and older) is raw text that may hold empty lines and ends with `--END COMMAND--`.
"""

import hashlib
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import cache
from typing import Final

from agent.errors import PbxLost, PbxRefused
from agent.pbx.text import DEFAULT_ENCODING, UNTOLD, decoded

MAX_FRAME_BYTES: Final = 256 * 1024  # the largest honest one, a list item with every channel variable, is far smaller
MAX_BANNER_BYTES: Final = 256

_END: Final = b"\r\n\r\n"
_NUL_SHOWN: Final = UNTOLD.encode()
_OLD_COMMAND: Final = b"Response: Follows"
_OLD_COMMAND_END: Final = b"--END COMMAND--"


class AmiMessage:
    """One AMI message. A field is only looked for when somebody asks for it.

    On a busy Asterisk most events are of no interest, and of the others a third of the fields: to look at the name
    costs a fifth of parsing them all, to look for six fields about a half.
    """

    __slots__ = ("_encoding", "_folded", "_told", "name", "raw")

    def __init__(self, raw: bytes, encoding: str = DEFAULT_ENCODING) -> None:
        self.raw = raw
        self._encoding = encoding  # of what is no UTF-8
        self._told: bytes | None = None  # the same as it is read
        self._folded = b""  # that in lower case, each line with its end before it
        if raw.startswith(b"Event: "):
            end = raw.find(b"\r\n")
            self.name = raw[7:end].decode("ascii", "replace") if end > 0 else raw[7:].decode("ascii", "replace")
        else:
            self.name = self.get("event")

    def get(self, key: str, default: str = "") -> str:
        """The first value of `key` (in lower case), or `default`."""
        told = self._told or self._read()
        needle = _NEEDLES.get(key) or _needle(key)
        found = self._folded.find(needle)
        if found < 0:
            return default
        start = found + len(needle) - 2
        end = told.find(b"\r\n", start)
        value = (told[start:end] if end >= 0 else told[start:]).removeprefix(b" ")
        try:
            return value.decode()
        except UnicodeDecodeError:
            return decoded(value, self._encoding)

    def variable(self, name: str) -> str:
        """The value of a channel variable that `channelvars` in manager.conf has told; empty if it has none."""
        told = self._told or self._read()
        needle = _variable(name)
        start = told.find(needle) + len(needle)
        if start < len(needle):
            return ""
        end = told.find(b"\r\n", start)
        return decoded(told[start:end] if end >= 0 else told[start:], self._encoding)

    def all(self, key: str) -> list[str]:
        """Every value of `key` (in lower case), in order."""
        return self.fields().get(key, [])

    def fields(self) -> dict[str, list[str]]:
        """All fields by their key in lower case."""
        fields: dict[str, list[str]] = {}
        for told in self._read().split(b"\r\n"):
            line = decoded(told, self._encoding)
            key, colon, value = line.partition(":")
            if colon:
                fields.setdefault(key.lower(), []).append(value.removeprefix(" "))
            elif line:  # raw lines of an old-style Command
                fields.setdefault("output", []).append(line)
        return fields

    def _read(self) -> bytes:
        # No database takes NUL in a text; it is shown like a letter that cannot be told.
        told = self._told = self.raw if b"\0" not in self.raw else self.raw.replace(b"\0", _NUL_SHOWN)
        self._folded = b"\r\n" + told.lower()
        return told

    def __repr__(self) -> str:
        return f"<AmiMessage {self.name or 'Response'} {len(self.raw)} bytes>"  # its content is personal data


_NEEDLES: Final[dict[str, bytes]] = {}


def _needle(key: str) -> bytes:
    """How a key stands in a message in lower case; keys are names in our own code, so there are few."""
    return _NEEDLES.setdefault(key, f"\r\n{key}:".encode())


@cache
def _variable(name: str) -> bytes:
    """How a channel variable stands in a message; settings name them, so they are few."""
    return f"\r\nChanVariable: {name}=".encode()


class AmiFramer:
    """Cuts a stream of bytes into frames, whatever pieces it arrives in; holds at most one unfinished frame."""

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._tail = bytearray()  # since the last empty line
        self._answer: list[bytes] = []  # an unfinished old-style answer, cut at its empty lines
        self._answer_bytes = 0
        self._skipping = False
        self.oversized = 0  # frames thrown away because they were longer than allowed

    def feed(self, data: bytes) -> list[bytes]:
        """The frames completed by `data`, without their empty line."""
        if self._tail:
            new = max(0, len(self._tail) - len(_END) + 1)  # the delimiter may be cut
            self._tail += data
            if self._tail.find(_END, new) < 0:
                self._bound()
                return []
            data = bytes(self._tail)
        pieces = data.split(_END)
        self._tail = bytearray(pieces.pop())
        frames = [frame for frame in self._whole(pieces) if frame]
        self._bound()
        return frames

    def _whole(self, pieces: list[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self._skipping:
                self._skipping = False
                self.oversized += 1
            elif self._answer:
                yield self._continue_answer(piece)
            else:
                # NUL begins the agent's own marks in the journal, so no frame of a PBX may.
                frame = piece.lstrip(b"\r\n\0")
                if frame.startswith(_OLD_COMMAND):
                    yield self._continue_answer(frame)
                elif len(frame) > self._max_frame_bytes:
                    self.oversized += 1
                else:
                    yield frame

    def _continue_answer(self, piece: bytes) -> bytes:
        """The whole old-style answer if `piece` is its last, else nothing. The end is looked for in `piece` alone."""
        self._answer.append(piece)
        self._answer_bytes += len(piece) + len(_END)
        whole = b""
        if self._answer_bytes - len(_END) > self._max_frame_bytes:
            self.oversized += 1
        elif piece.rstrip().endswith(_OLD_COMMAND_END):
            whole = _END.join(self._answer)
        else:
            return b""
        self._answer.clear()
        self._answer_bytes = 0
        return whole

    def _bound(self) -> None:
        """Throw away what is unfinished and already too long; its rest, up to the next empty line, is skipped."""
        if self._answer_bytes + len(self._tail) > self._max_frame_bytes:
            self._answer.clear()
            self._answer_bytes = 0
            self._skipping = True
            self._tail = self._tail[1 - len(_END) :]  # the delimiter may be cut


class SessionState(Enum):
    """How far the log-in came."""

    BANNER = auto()
    CHALLENGE = auto()
    LOGIN = auto()
    READY = auto()


class AmiSession:
    """One connection's conversation: log in, choose events, list channels, ping.

    Nothing but the log-in is sent before `Authentication accepted`: a ping earlier is refused by Asterisk.
    """

    def __init__(
        self,
        *,
        username: str,
        secret: str,
        md5: bool = True,
        event_classes: tuple[str, ...] = ("system", "call", "agent", "dialplan", "user"),
        drop_events: tuple[str, ...] = (),
        action_prefix: str = "edge",
        encoding: str = DEFAULT_ENCODING,
    ) -> None:
        for text in (username, secret, *event_classes, *drop_events):
            if "\r" in text or "\n" in text:
                raise ValueError("AMI settings cannot hold line breaks")
        self._username = username
        self._secret = secret
        self._md5 = md5
        self._event_classes = event_classes
        self._drop_events = drop_events
        self._prefix = action_prefix
        self._encoding = encoding
        self._framer = AmiFramer()
        self._banner = b""
        self._outgoing = bytearray()
        self._actions = 0
        self._waiting: dict[str, Callable[[AmiMessage], None]] = {}
        self.state = SessionState.BANNER
        self.version = ""  # of the manager interface, as in the banner

    @property
    def oversized(self) -> int:
        """Frames thrown away because they were longer than allowed."""
        return self._framer.oversized

    def receive(self, data: bytes) -> list[AmiMessage]:
        """Messages completed by `data`, log-in answers left out.

        Raises PbxLost if this is no AMI, PbxRefused if the log-in is refused.
        """
        if self.state is SessionState.BANNER:
            data = self._receive_banner(data)
        messages = []
        for frame in self._framer.feed(data):
            message = AmiMessage(frame, self._encoding)
            if message.name or not self._answered(message):
                messages.append(message)
        return messages

    def outgoing(self) -> bytes:
        """What is to be sent now; asked for once."""
        data = bytes(self._outgoing)
        self._outgoing.clear()
        return data

    def action(self, name: str, *fields: tuple[str, str], then: Callable[[AmiMessage], None] | None = None) -> str:
        """Queue an action and return its ActionID; `then` is called with the response, if anybody waits for it."""
        self._actions += 1
        action_id = f"{self._prefix}-{self._actions}"
        if then is not None:
            self._waiting[action_id] = then
        lines = [f"Action: {name}", f"ActionID: {action_id}", *(f"{key}: {value}" for key, value in fields)]
        self._outgoing += "\r\n".join(lines).encode() + _END
        return action_id

    def _receive_banner(self, data: bytes) -> bytes:
        self._banner += data
        line, newline, rest = self._banner.partition(b"\n")
        if len(line) > MAX_BANNER_BYTES or (newline and not line.startswith(b"Asterisk Call Manager/")):
            raise PbxLost("what answers there is no Asterisk manager interface; check host, port and tls")
        if not newline:
            return b""
        self._banner = b""
        self.version = line.strip().rpartition(b"/")[2].decode("ascii", "replace")
        if self._md5:
            self.state = SessionState.CHALLENGE
            self.action("Challenge", ("AuthType", "MD5"), then=self._challenged)
        else:
            self._log_in(("Secret", self._secret))
        return rest

    def _challenged(self, message: AmiMessage) -> None:
        challenge = message.get("challenge")
        if message.get("response") != "Success" or not challenge:
            reason = _refusal_reason(message)
            raise PbxRefused(f'the PBX refuses an MD5 log-in ({reason}); set login = "plain" with tls = true')
        key = hashlib.md5((challenge + self._secret).encode(), usedforsecurity=False).hexdigest()
        self._log_in(("AuthType", "MD5"), ("Key", key))

    def _log_in(self, *proof: tuple[str, str]) -> None:
        self.state = SessionState.LOGIN
        fields = (("Username", self._username), *proof, ("Events", ",".join(self._event_classes)))
        self.action("Login", *fields, then=self._logged_in)

    def _logged_in(self, message: AmiMessage) -> None:
        if message.get("response") != "Success":
            reason = _refusal_reason(message)
            raise PbxRefused(f"the PBX refuses user {self._username!r} ({reason}); check username, secret and permit")
        self.state = SessionState.READY
        for event in self._drop_events:
            self.action("Filter", ("Operation", "Add"), ("Filter", f"!Event: {event}"), then=self._filtered)

    def _filtered(self, _: AmiMessage) -> None:
        """Without write=system filters are refused; then manager.conf's own eventfilter does it, or the events come."""

    def _answered(self, message: AmiMessage) -> bool:
        then = self._waiting.pop(message.get("actionid"), None)
        if then is not None:
            then(message)
            return True
        if self.state is not SessionState.READY and message.get("response") == "Error":
            # Some refusals carry no ActionID ("Asterisk is shutting down", access lists).
            raise PbxLost(f"the PBX answers: {_refusal_reason(message)}")
        return False


def _refusal_reason(message: AmiMessage) -> str:
    """Why the PBX refuses; raises PbxLost when it only is about to stop, which is nobody's mistake."""
    reason = message.get("message") or "no reason given"
    if "shutting down" in reason:
        raise PbxLost("the PBX is shutting down")
    return reason
