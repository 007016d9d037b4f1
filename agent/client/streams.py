"""Reading server-sent events: fed lines, it hands back events."""

import json

from agent.client.models import Event


class EventReader:
    """One stream after the other; `last_id` is where to go on."""

    def __init__(self, last_id: str | None = None) -> None:
        self.last_id = last_id
        self._kind = ""
        self._data: list[str] = []

    def restart(self) -> None:
        """A stream was cut: what of an event had come is told again."""
        self._kind, self._data = "", []

    def feed(self, line: str) -> Event | None:
        """The event that this line ends, if it ends one."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "id":
                self.last_id = value
            case "event":
                self._kind = value
            case "data":
                self._data.append(value)
            case "" if not line and self._data:
                event = Event.of(self.last_id or "", self._kind, json.loads("\n".join(self._data)))
                self.restart()
                return event
        return None
