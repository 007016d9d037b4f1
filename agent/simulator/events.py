"""The names of AMI events, the class each belongs to, and how one is written."""

from enum import IntFlag
from typing import Final, NamedTuple


class EventClass(IntFlag):
    """Asterisk's classes of authority, which are those of events too."""

    SYSTEM = 1
    CALL = 2
    LOG = 4
    VERBOSE = 8
    COMMAND = 16
    AGENT = 32
    USER = 64
    CONFIG = 128
    DTMF = 256
    REPORTING = 512
    CDR = 1024
    DIALPLAN = 2048
    ORIGINATE = 4096
    AGI = 8192
    CC = 16384
    AOC = 32768
    TEST = 65536
    SECURITY = 131072
    ALL = 262143


CLASS_OF: Final = {
    **dict.fromkeys(
        (
            "BridgeCreate",
            "BridgeDestroy",
            "BridgeEnter",
            "BridgeLeave",
            "CEL",
            "DeviceStateChange",
            "DialBegin",
            "DialEnd",
            "DialState",
            "Hangup",
            "HangupRequest",
            "MusicOnHoldStart",
            "MusicOnHoldStop",
            "NewCallerid",
            "NewConnectedLine",
            "Newchannel",
            "Newstate",
            "SoftHangupRequest",
        ),
        EventClass.CALL,
    ),
    **dict.fromkeys(
        (
            "AgentCalled",
            "AgentComplete",
            "AgentConnect",
            "AgentRingNoAnswer",
            "QueueCallerAbandon",
            "QueueCallerJoin",
            "QueueCallerLeave",
            "QueueMemberStatus",
        ),
        EventClass.AGENT,
    ),
    **dict.fromkeys(("Newexten", "VarSet"), EventClass.DIALPLAN),
    **dict.fromkeys(("FullyBooted", "PeerStatus", "Shutdown"), EventClass.SYSTEM),
    "Cdr": EventClass.CDR,
    "DTMFEnd": EventClass.DTMF,
}

HEADS: Final = {
    name: f"Event: {name}\r\nPrivilege: {str(event_class.name).lower()},all\r\n"
    for name, event_class in CLASS_OF.items()
}


class Event(NamedTuple):
    """One event as it goes over the wire, its empty line included."""

    name: str
    block: bytes


def classes_of(mask: str) -> EventClass:
    """What an `EventMask` asks for: `on`, `off`, a number, or names parted by commas; unknown names count nothing."""
    text = mask.strip().lower()
    if text in {"", "on", "all", "true", "yes", "1"}:
        return EventClass.ALL
    if text.isdecimal():
        return EventClass(int(text) & EventClass.ALL)
    chosen = EventClass(0)
    for name in text.split(","):
        chosen |= EventClass.__members__.get(name.strip().upper(), EventClass(0))
    return chosen
