"""Who talks with whom: the bridges of one PBX, and the clocks of talk that follow from them."""

from datetime import datetime

from agent.calls.leg import Leg
from agent.calls.live_call import LiveCall


class Bridges:
    """Channels by the bridge they are in; a bridge may hold parties of several calls, as a conference does."""

    def __init__(self) -> None:
        self._members: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def join(self, call: LiveCall, leg: Leg, bridge: str, at: datetime) -> None:
        """A leg begins to exchange sound with whoever is in the bridge; the first to meet another has answered."""
        if leg.bridge == bridge:
            return
        self.leave(call, leg, at)
        leg.bridge = bridge
        leg.bridged_at = at
        members = self._members.setdefault(bridge, set())
        members.add(leg.channel)
        call.note(at, "bridged", channel=leg.name)
        if call.answered_at is None and len(members) > 1:
            others = (other for other in call.legs.values() if other.channel in members and other is not call.root)
            met = next((other for other in others if not other.is_local), None)
            if met is not None:
                call.mark_answered(met, met.up_at or at, by=met.number)
        self.count_talk(call, at)

    def leave(self, call: LiveCall, leg: Leg, at: datetime) -> None:
        """A leg is in no bridge any more."""
        if leg.bridge is None:
            return
        members = self._members.get(leg.bridge)
        if members is not None:
            members.discard(leg.channel)
            if not members:
                del self._members[leg.bridge]
        if leg.bridged_at is not None:
            leg.talk_seconds += max(0.0, (at - leg.bridged_at).total_seconds())
        leg.bridge = None
        leg.bridged_at = None
        self.count_talk(call, at)

    def count_talk(self, call: LiveCall, at: datetime) -> None:
        """Start or stop the clock of the conversation: two parties in one bridge, or a service that answered."""
        talking = self._somebody_talks(call)
        if talking and call.talking_since is None:
            call.talking_since = at
        elif not talking and call.talking_since is not None:
            call.talk_seconds += max(0.0, (at - call.talking_since).total_seconds())
            call.talking_since = None

    def _somebody_talks(self, call: LiveCall) -> bool:
        if call.answered_at is None:
            return False
        root = call.root
        if root is not None and root.channel in call.open_channels and call.rules.is_answering(root.application):
            return True
        for channel in call.open_channels:
            bridge = call.legs[channel].bridge
            if bridge is not None and len(self._members.get(bridge, ())) > 1:
                return True
        return False
