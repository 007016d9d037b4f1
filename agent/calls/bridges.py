"""Who is in a bridge with whom: the bridges of one PBX, joined by Local channels where they are not optimised away."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from agent.calls.events import BridgeKind
from agent.calls.leg import Leg
from agent.calls.live_call import LiveCall

# In a room of so many it is not looked again at everybody whenever a party comes or goes.
_CROWD: Final = 50


class Bridges:
    """Channels by the bridge they are in; a bridge may hold parties of several calls, as a conference does.

    `calls` tells the call of each channel that is open. A party is connected if another one is in its bridge, or
    beyond the Local channels in it; a Local channel with nobody behind it is no company.
    """

    def __init__(self, calls: Mapping[str, LiveCall]) -> None:
        self._calls = calls
        self._members: dict[str, dict[str, None]] = {}  # in the order in which they came
        self._locals: dict[str, str] = {}  # open Local channels by name

    def __len__(self) -> int:
        return len(self._members) + len(self._locals)

    def opened(self, leg: Leg) -> None:
        """A channel is there."""
        if leg.is_local:
            self._locals[leg.name] = leg.channel

    def closed(self, leg: Leg) -> None:
        """A channel is gone."""
        if leg.is_local and self._locals.get(leg.name) == leg.channel:
            del self._locals[leg.name]

    def members(self, bridge: str | None) -> Iterator[tuple[LiveCall, Leg]]:
        """Who is in a bridge."""
        for channel in self._members.get(bridge or "", ()):
            found = self._leg(channel)
            if found is not None:
                yield found

    def kind_of(self, bridge: str | None) -> BridgeKind | None:
        """What being in a bridge means; None if nobody is in it."""
        first = next(self.members(bridge), None)
        return first[1].bridge_kind if first is not None else None

    def listed_as(self, bridge: str, kind: BridgeKind | None) -> BridgeKind:
        """What being in a bridge means that one more channel is listed in; `kind` is what its application tells.

        Who was parked stays in the application of parking when somebody takes him up.
        """
        known = self.kind_of(bridge)
        if kind is BridgeKind.TALK and known is BridgeKind.HOLDING:
            for _, leg in self.members(bridge):
                leg.bridge_kind = kind
        if known is None or kind is BridgeKind.TALK:
            return kind or BridgeKind.TALK
        return known

    def join(self, call: LiveCall, leg: Leg, bridge: str, kind: BridgeKind, at: datetime) -> None:
        """A leg is in a bridge now, and connected with whoever else is there."""
        if leg.bridge == bridge:
            return
        self.leave(call, leg, at)
        leg.bridge = bridge
        leg.bridge_kind = kind
        members = self._members.setdefault(bridge, {})
        members[leg.channel] = None
        if len(members) > _CROWD and kind is not BridgeKind.HOLDING and not leg.is_local:
            call.connect(leg, at)
        else:
            self._look(bridge, at)

    def leave(self, call: LiveCall, leg: Leg, at: datetime) -> None:
        """A leg is in no bridge any more."""
        bridge, leg.bridge = leg.bridge, None
        if bridge is None:
            return
        members = self._members.get(bridge, {})
        members.pop(leg.channel, None)
        call.disconnect(leg, at)
        if not members:
            self._members.pop(bridge, None)
        elif len(members) <= _CROWD:
            self._look(bridge, at)
        if leg.is_local:
            beyond = self._half_beyond(leg)
            if beyond is not None and beyond[1].bridge is not None:
                self._look(beyond[1].bridge, at)

    def _look(self, bridge: str, at: datetime) -> None:
        """Those whom this bridge brings together are connected; one alone is not."""
        parties = list(self.parties(bridge))
        for call, leg in parties:
            if len(parties) > 1:
                call.connect(leg, at)
            else:
                call.disconnect(leg, at)

    def parties(self, bridge: str | None) -> Iterator[tuple[LiveCall, Leg]]:
        """The persons, phones and trunks in a bridge, and in those beyond its Local channels; none in a parking lot."""
        seen, to_see = {bridge}, [bridge]
        while to_see:
            for call, leg in self.members(to_see.pop()):
                if leg.bridge_kind is BridgeKind.HOLDING:
                    continue
                if not leg.is_local:
                    yield call, leg
                    continue
                beyond = self._half_beyond(leg)
                if beyond is not None and beyond[1].bridge is not None and beyond[1].bridge not in seen:
                    seen.add(beyond[1].bridge)
                    to_see.append(beyond[1].bridge)

    def _half_beyond(self, leg: Leg) -> tuple[LiveCall, Leg] | None:
        """The other half of a Local channel: `;2` of `;1`."""
        other = leg.name[:-1] + ("2" if leg.name.endswith("1") else "1")
        return self._leg(self._locals.get(other, ""))

    def _leg(self, channel: str) -> tuple[LiveCall, Leg] | None:
        call = self._calls.get(channel)
        leg = call.legs.get(channel) if call is not None else None
        return (call, leg) if call is not None and leg is not None else None
