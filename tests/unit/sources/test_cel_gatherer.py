"""Calls of which CEL writes no end, because Asterisk crashed: the PBX's lists of channels tell that they are over."""

from collections.abc import Iterator
from datetime import UTC, datetime

from agent.calls.events import SnapshotTaken
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment
from agent.sources.cel_gatherer import CelGatherer
from agent.sources.gathering import GatheredCall, Mark
from tests.unit.agent.cel_files import lines

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
HERE = Mark(0, None, 0, 0)


class Pbx:
    """What it listed last."""

    def __init__(self) -> None:
        self.listed: SnapshotTaken | None = None

    def lists(self, *channels: str) -> None:
        self.listed = SnapshotTaken(NOON, frozenset(channels))


def gathered_from(pbx: Pbx) -> CelGatherer:
    """What was written until Asterisk was killed."""
    gatherer = CelGatherer(
        site="here", pbx="main", rules=CallRules, assign=lambda _: Assignment(), zone=UTC, encoding="cp1254",
        columns=None, listed=lambda: pbx.listed,
    )  # fmt: skip
    gatherer.begin(HERE)
    for line in lines("killed"):
        assert gatherer.take(line, HERE) is None
    return gatherer


def told(gatherer: CelGatherer, *, is_at_end: bool = True) -> list[GatheredCall]:
    return gatherer.take_calls(seconds=0.0, is_at_end=is_at_end)


def lists_of(pbx: Pbx, gatherer: CelGatherer) -> Iterator[list[GatheredCall]]:
    while True:
        pbx.lists()
        yield told(gatherer)


def test_what_the_pbx_lists_no_more_ended_when_it_was_last_written_of() -> None:
    pbx = Pbx()
    gatherer = gathered_from(pbx)
    lists = lists_of(pbx, gatherer)

    assert next(lists) == []
    calls = next(lists)

    assert [call.row["end_estimated"] for call in calls] == [True, True]
    assert (len(gatherer), gatherer.first_unsettled) == (0, None)


def test_the_same_list_looked_at_twice_is_one() -> None:
    pbx = Pbx()
    gatherer = gathered_from(pbx)
    pbx.lists()

    assert [told(gatherer) for _ in range(5)] == [[]] * 5


def test_while_there_is_more_to_read_or_nobody_listens_nothing_is_over() -> None:
    pbx = Pbx()
    gatherer = gathered_from(pbx)

    assert [told(gatherer) for _ in range(3)] == [[]] * 3
    for _ in range(3):
        pbx.lists()
        assert told(gatherer, is_at_end=False) == []
    assert len(gatherer) > 0
