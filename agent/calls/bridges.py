"""Who is in a bridge with whom: the bridges of one PBX, and the clocks of talk that follow from them."""

from collections.abc import Iterator, Mapping
from datetime import datetime

from agent.calls.events import BridgeKind
from agent.calls.leg import Leg
from agent.calls.live_call import LiveCall


class Bridges:
    """Channels by the bridge they are in; a bridge may hold parties of several calls, as a conference does.

    `calls` tells the call of each channel that is open.
    """

    def __init__(self, calls: Mapping[str, LiveCall]) -> None:
        self._calls = calls
        self._members: dict[str, dict[str, None]] = {}  # in the order in which they came

    def __len__(self) -> int:
        return len(self._members)

    def members(self, bridge: str | None) -> Iterator[tuple[LiveCall, Leg]]:
        """Who is in a bridge."""
        for channel in self._members.get(bridge or "", ()):
            call = self._calls.get(channel)
            leg = call.legs.get(channel) if call is not None else None
            if call is not None and leg is not None:
                yield call, leg

    def join(self, call: LiveCall, leg: Leg, bridge: str, kind: BridgeKind, at: datetime) -> None:
        """A leg is in a bridge now, and connected with whoever else is there."""
        if leg.bridge == bridge:
            return
        self.leave(call, leg, at)
        leg.bridge = bridge
        leg.bridge_kind = kind
        members = self._members.setdefault(bridge, {})
        members[leg.channel] = None
        if kind is BridgeKind.HOLDING or len(members) == 1:
            return
        if len(members) == 2:  # the other one was alone until now
            for other_call, other in list(self.members(bridge)):
                other_call.connect(other, at)
        else:
            call.connect(leg, at)

    def leave(self, call: LiveCall, leg: Leg, at: datetime) -> None:
        """A leg is in no bridge any more."""
        bridge, leg.bridge = leg.bridge, None
        if bridge is None:
            return
        members = self._members.get(bridge, {})
        members.pop(leg.channel, None)
        call.disconnect(leg, at)
        if len(members) == 1:
            for other_call, other in self.members(bridge):
                other_call.disconnect(other, at)
        elif not members:
            self._members.pop(bridge, None)
