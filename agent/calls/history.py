"""What was said and done in a call: a list that is never changed, only grown, and knows where each id stands."""

from collections.abc import Iterable
from typing import Any, Self

Entry = dict[str, Any]  # Any: JSON


class History(list[Entry]):
    """Interactions in their order. To look an id up takes the same time in a long call as in a short one.

    Lists that are grown from one another share an index, in which an id has one place for all of them. The index may
    tell more than one of the lists holds, so a place counts if the id stands there.
    """

    __slots__ = ("_places",)

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        super().__init__(entries)
        self._places: dict[str | None, int] = {}
        for place, entry in enumerate(self):
            self._places.setdefault(_id_of(entry), place)

    def holds(self, entry_id: str) -> bool:
        """Whether an interaction bears this id."""
        place = self._places.get(entry_id)
        return place is not None and place < len(self) and _id_of(self[place]) == entry_id

    def grown(self, new: Iterable[Entry]) -> Self:
        """This list with more at its end."""
        grown = self.__class__.__new__(self.__class__)
        list.__init__(grown, [*self, *new])
        for place in range(len(self), len(grown)):
            if self._places.setdefault(_id_of(grown[place]), place) != place:
                return self.__class__(grown)  # another list of the family has it elsewhere
        grown._places = self._places
        return grown


def _id_of(entry: Entry) -> str | None:
    """What others put into a store need not have one."""
    found = entry.get("id")
    return found if isinstance(found, str) else None
