"""Accounts of one call from several sources, in any order and as often as they like: one record."""

import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.agent.cdrs import call, row
from tests.unit.agent.cel_files import Rows
from tests.unit.agent.reconnects import Ledger, breaks_of
from tests.unit.agent.test_reconnects import live, written_down

Row = dict[str, Any]  # Any: columns of a call
SCENARIOS = (
    "stage/22/attended_transfer_after_the_answer", "stage/16/parked_and_retrieved_by_another",
    "stage/22/queue_whose_second_agent_answers", "stage/16/call_back_to_somebody_outside",
    "stage/22/blind_transfer_to_a_phone_that_nobody_answers",
    "stage/16/attended_transfer_by_feature_code_that_comes_back",
)  # fmt: skip


@cache
def ledger() -> Ledger:
    return Ledger()


def cdr_of(told: Row) -> Row:
    """A CDR of the same call, in whole seconds, that knows of an answer, a name and a recording."""
    moments = {"start": told["start_time"], "answer": told["start_time"], "end": told["end_time"]}
    line = row(**{name: f"{moment:%Y-%m-%d %H:%M:%S}" for name, moment in moments.items()}, clid='"Zoe" <1>')
    same = {name: told[name] for name in ("call_sid", "trace_id", "site", "pbx")}
    return call(line._replace(recordingfile="in.wav")) | same


def accounts(name: str, part: float | None) -> list[Rows]:
    """What the live feed, CEL and CDRs tell of a capture's calls; `part`: where the line broke."""
    cuts = list(breaks_of(name))
    told, written = live(name, cuts[int(part * (len(cuts) - 1))] if part is not None else None), written_down(name)
    return [told, written, {sid: cdr_of(each) for sid, each in written.items()}]


def as_it_can_happen(order: Sequence[Rows], heard: Rows, written: Rows) -> Sequence[Rows]:
    """A leg that seemed to be a call to the live feed is live until it is told, and CEL's word of it waits for that:
    tests/integration/sources/test_keeping.py."""
    if heard.keys() <= written.keys() or not any(told is heard for told in order):
        return order
    first = next(number for number, told in enumerate(order) if told is heard)
    waiting = [told for told in order[:first] if told is written]
    return [*(told for told in order[:first] if told is not written), heard, *waiting, *order[first + 1 :]]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(SCENARIOS),
    part=st.none() | st.floats(0, 1),
    count=st.integers(1, 3),
    choice=st.randoms(use_true_random=False),
    again=st.integers(0, 3),
)
def test_the_order_in_which_sources_tell_of_a_call_does_not_matter(
    name: str, part: float | None, count: int, choice: random.Random, again: int
) -> None:
    heard, written, records = accounts(name, part)
    told = choice.sample([heard, written, records], count)
    orders: list[Sequence[Rows]] = [told, [*choice.sample(told, count), *choice.choices(told, k=again)]]

    first, second = (ledger().kept(*as_it_can_happen(order, heard, written)) for order in orders)

    assert second == first


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(SCENARIOS), part=st.none() | st.floats(0, 1), choice=st.randoms(use_true_random=False))
def test_a_revision_is_a_change(name: str, part: float | None, choice: random.Random) -> None:
    told = choice.choices(accounts(name, part), k=6)
    records = [ledger().with_revisions(*told[:number]) for number in range(1, len(told) + 1)]

    for before, after in pairwise(records):
        for sid, (revision, record) in before.items():
            assert after[sid][0] == revision + (after[sid][1] != record)
