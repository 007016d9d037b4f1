"""A call's history knows its ids as if it were looked through each time."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.history import Entry, History
from tests.unit.live.contexts import facts

_IDS = st.sampled_from(["a", "b", "c", "d", "e", ""])
_ENTRIES = st.lists(
    st.one_of(_IDS, st.none(), st.integers()).map(lambda found: {"id": found}) | st.just({"text": "nameless"}),
    max_size=3,
)


@given(grown=st.lists(st.tuples(st.integers(0, 20), _ENTRIES), max_size=12))
def test_lists_grown_from_any_of_their_family_each_know_their_own_ids_and_no_others(
    grown: list[tuple[int, list[Entry]]],
) -> None:
    family, plain = [History()], [list[Entry]()]
    for choice, new in grown:
        parent = choice % len(family)
        family.append(family[parent].grown(new))
        plain.append(plain[parent] + new)

    assert family == plain
    for history, entries in zip(family, plain, strict=True):
        for each in ["a", "b", "c", "d", "e", "", "f"]:
            assert history.holds(each) == any(entry.get("id") == each for entry in entries)


def test_a_context_with_a_history_is_written_as_one_with_a_plain_list_is() -> None:
    said = [{"id": "1", "text": "hello"}, {"id": "2", "text": "bye"}]
    plain = facts(1).model_copy(update={"interaction_history": said})
    told = facts(1).model_copy(update={"interaction_history": History(said[:1]).grown(said[1:])})

    assert told.model_dump_json() == plain.model_dump_json()
    assert told.model_dump(mode="json") == plain.model_dump(mode="json")
    assert orjson.dumps(told.interaction_history) == orjson.dumps(said)
    assert told == plain
