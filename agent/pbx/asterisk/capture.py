"""A captured AMI session, as bytes from the banner on: cut into what the journal would hold of it.

The marks that the connector puts into the journal are put here too: where a second banner shows that the line was lost
and made again, and after each list of channels.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from agent.pbx.asterisk.interpreter import SNAPSHOT_TAKEN
from agent.pbx.asterisk.protocol import AmiFramer
from agent.pbx.feed import LINE_LOST

BANNER: Final = b"Asterisk Call Manager/"

# A caller's name may hold the same words, so within a line they are a banner only if an answer follows.
_BANNER_IN_FRAME: Final = re.compile(rb"(?:Asterisk Call Manager/[0-9.]{1,20}\r\n)+(?=Response: )")
_BANNERS_FIRST: Final = re.compile(rb"(?:Asterisk Call Manager/[0-9.]{1,20}(?:\r\n|\Z))+")
_STAMP: Final = re.compile(rb"\r\nTimestamp: ([0-9]{9,10}(?:\.[0-9]{1,9})?)(?=\r\n|\Z)", re.IGNORECASE)
# Asterisk names a channel after the second in which it was made: 1763812800.42, pbx1-1763812800.42.
_MADE: Final = re.compile(rb"\r\nUniqueid: (?:[^\r\n]{0,200}-)?([0-9]{9,10})\.[0-9]+(?=\r\n|\Z)", re.IGNORECASE)
_NEW: Final = b"Event: Newchannel\r\n"
_LISTED: Final = b"Event: CoreShowChannel\r\n"
_LIST_ENDS: Final = b"Event: CoreShowChannelsComplete\r\n"
_PONG: Final = re.compile(rb"Response: (?:Pong\b|(?s:.){0,200}?\r\nPing: Pong)")
# A list counts once a ping behind it is answered, as the connector's is; other sessions do not ping.
_PATIENCE_FRAMES: Final = 200
_OLDEST: Final = 946_684_800
_NEWEST: Final = 4_102_444_800
_SURVEY_BYTES: Final = 64 * 1024


class Clock(StrEnum):
    """What a capture's times are known by."""

    INDEX = "index"  # when the bytes came, told beside it
    EVENTS = "events"  # each event's Timestamp header
    CHANNELS = "channels"  # only the seconds in which channels were made
    FILE = "file"  # nothing but the file's own time

    @property
    def tells_lengths(self) -> bool:
        """Whether it can be said how long something took."""
        return self in {Clock.INDEX, Clock.EVENTS}


class Survey(NamedTuple):
    """What a look through a capture found."""

    clock: Clock
    first_at: datetime | None  # the first moment told; None with Clock.FILE


class HeardFrame(NamedTuple):
    """A frame, or a mark of the agent's own, and when it came."""

    frame: bytes
    at: datetime


class NotAmi(ValueError):
    """The bytes are no AMI session; the text says what they are, without the file's name."""


def survey(pieces: Iterable[bytes]) -> Survey:
    """How a capture without an index tells its times, looked at no further than needed. Raises NotAmi."""
    framer = AmiFramer()
    first: datetime | None = None
    made: datetime | None = None
    looked_at = b""
    for piece in pieces:
        if len(looked_at) < _SURVEY_BYTES:
            looked_at += piece[: _SURVEY_BYTES - len(looked_at)]
        for frame in framer.feed(piece):
            stamp = _moment(_STAMP, frame)
            first = first or stamp
            if b"Event: " not in frame:
                continue  # the answer to a ping bears a time on any Asterisk
            if stamp is not None:
                _check_is_ami(looked_at)
                return Survey(Clock.EVENTS, first)
            if made is None and _NEW in frame:
                made = _moment(_MADE, frame)
    _check_is_ami(looked_at)
    return Survey(Clock.CHANNELS, made) if made is not None else Survey(Clock.FILE, None)


# How files begin that people take for a capture, and what to do with them.
_OTHERS: Final = (
    (b"\xd4\xc3\xb2\xa1", "a packet capture; export the TCP stream as raw bytes (Wireshark: Follow TCP Stream)"),
    (b"\xa1\xb2\xc3\xd4", "a packet capture; export the TCP stream as raw bytes (Wireshark: Follow TCP Stream)"),
    (b"\x0a\x0d\x0d\x0a", "a packet capture; export the TCP stream as raw bytes (Wireshark: Follow TCP Stream)"),
    (b"\x1f\x8b", "packed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd; unpack it first"),
    (b"\xfd7zXZ", "packed with xz; unpack it first"),
    (b"PK\x03\x04", "packed with zip; unpack it first"),
    (b"SQLite format 3", "a SQLite database; make a recording of its journal with edge-agent record"),
)
_HEADER_LINE: Final = re.compile(rb"^(?:Event|Response): [^\r\n]", re.MULTILINE)


def _check_is_ami(head: bytes) -> None:
    """Raise NotAmi, with what to do, for what cannot be one direction of an AMI session."""
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise NotAmi(f"it is {what}")
    if not (head.startswith(BANNER) or _HEADER_LINE.search(head)):
        raise NotAmi("it is neither a recording (edge-agent record) nor what an Asterisk said over AMI")
    if b"\n" in head and b"\r\n" not in head:
        raise NotAmi("its line ends were changed; AMI's lines end with CR LF: capture the bytes as they come")


def _moment(pattern: re.Pattern[bytes], frame: bytes) -> datetime | None:
    found = pattern.search(frame)
    seconds = float(found[1]) if found else 0.0
    return datetime.fromtimestamp(seconds, UTC) if _OLDEST < seconds < _NEWEST else None


@dataclass(slots=True)
class CaptureReader:
    """Cuts a capture into frames, in bounded memory. `at` is the first moment, and then that of the last frame."""

    clock: Clock
    at: datetime
    logins: int = 0  # banners
    frames: int = 0
    lost_lines: int = 0
    oversized: int = 0  # frames left out because they were longer than any honest one
    ends_in_a_frame: bool = False

    def read(self, pieces: Iterable[tuple[datetime | None, bytes]]) -> Iterator[HeardFrame]:
        """Every frame of the pieces, each of which may bear the moment it came."""
        framer = AmiFramer()
        list_waits: int | None = None  # frames since a list of channels was complete
        tail = b""
        for came, data in pieces:
            tail = (tail + data)[-4:]
            for whole in framer.feed(data):
                for frame in self._cut(whole):
                    if list_waits is not None and (
                        frame == LINE_LOST or frame.startswith(_LISTED) or list_waits > _PATIENCE_FRAMES
                    ):
                        yield HeardFrame(SNAPSHOT_TAKEN, self.at)
                        list_waits = None
                    self._tell_time(frame, came)
                    yield HeardFrame(frame, self.at)
                    if frame.startswith(_LIST_ENDS):
                        list_waits = 0
                    elif list_waits is not None:
                        list_waits += 1
                        if _PONG.match(frame):
                            yield HeardFrame(SNAPSHOT_TAKEN, self.at)
                            list_waits = None
        if list_waits is not None:
            yield HeardFrame(SNAPSHOT_TAKEN, self.at)
        self.oversized = framer.oversized
        self.ends_in_a_frame = bool(tail) and tail != b"\r\n\r\n"

    def _cut(self, frame: bytes) -> Iterator[bytes]:
        """The frame without a banner; what was begun before a banner in its middle was never finished."""
        if BANNER in frame:
            found = _BANNERS_FIRST.match(frame) or _BANNER_IN_FRAME.search(frame)
            if found is not None:
                if self.frames:
                    self.lost_lines += 1
                    yield LINE_LOST
                self.logins += 1
                frame = frame[found.end() :]
        if frame:
            self.frames += 1
            yield frame

    def _tell_time(self, frame: bytes, came: datetime | None) -> None:
        if frame == LINE_LOST:
            return  # the last moment at which anything was heard
        match self.clock:
            case Clock.INDEX:
                self.at = came or self.at
            case Clock.EVENTS:
                self.at = _moment(_STAMP, frame) or self.at
            case Clock.CHANNELS:
                made = _moment(_MADE, frame) if frame.startswith(_NEW) else None
                self.at = max(self.at, made or self.at)
            case Clock.FILE:
                pass
