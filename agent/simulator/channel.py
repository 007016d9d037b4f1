"""Channels and bridges as Asterisk words them in every event about them."""

from dataclasses import dataclass
from typing import Final

from agent.simulator.site import UNKNOWN

_STATES: Final = {0: "Down", 4: "Ring", 5: "Ringing", 6: "Up"}
DOWN, RING, RINGING, UP = 0, 4, 5, 6

CAUSES: Final = {
    0: "Unknown",
    1: "Unallocated (unassigned) number",
    3: "No route to destination",
    16: "Normal Clearing",
    17: "User busy",
    18: "No user responding",
    21: "Call Rejected",
    26: "Answered elsewhere",
    34: "Circuit/channel congestion",
    127: "Interworking, unspecified",
}


@dataclass(slots=True, eq=False)
class Bridge:
    """Where channels exchange sound."""

    id: str
    members: int = 0
    technology: str = "simple_bridge"

    def fields(self) -> str:
        """The block that every bridge event begins with."""
        return (
            f"BridgeUniqueid: {self.id}\r\nBridgeType: basic\r\nBridgeTechnology: {self.technology}\r\n"
            f"BridgeCreator: <unknown>\r\nBridgeName: <unknown>\r\nBridgeNumChannels: {self.members}\r\n"
            "BridgeVideoSourceMode: none\r\n"
        )


@dataclass(slots=True, eq=False)
class Channel:
    """One leg, as Asterisk knows it."""

    endpoint: str
    name: str
    uniqueid: str
    linkedid: str
    opened_us: int
    state: int
    number: str
    caller_name: str
    context: str
    exten: str
    priority: int = 1
    connected_number: str = UNKNOWN
    connected_name: str = UNKNOWN
    application: str = ""
    application_data: str = ""
    dialled: str = ""  # the number first dialled (DNID), known to CEL from the second event on
    bridge: Bridge | None = None
    userfield: str = ""
    variables: str = ""  # those that manager.conf's channelvars names, as they are told

    def fields(self) -> str:
        """The block that nearly every channel event holds."""
        return (
            f"Channel: {self.name}\r\nChannelState: {self.state}\r\nChannelStateDesc: {_STATES[self.state]}\r\n"
            f"CallerIDNum: {self.number}\r\nCallerIDName: {self.caller_name}\r\n"
            f"ConnectedLineNum: {self.connected_number}\r\nConnectedLineName: {self.connected_name}\r\n"
            f"Language: en\r\nAccountCode: \r\nContext: {self.context}\r\nExten: {self.exten}\r\n"
            f"Priority: {self.priority}\r\nUniqueid: {self.uniqueid}\r\nLinkedid: {self.linkedid}\r\n{self.variables}"
        )

    def dest_fields(self) -> str:
        """The same about the other party, each name with `Dest` before it."""
        return "Dest" + self.fields()[:-2].replace("\r\n", "\r\nDest") + "\r\n"
