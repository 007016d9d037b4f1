"""How much goes into one short transaction is found out by what the last one took."""

from hypothesis import given
from hypothesis import strategies as st

from agent.store.small_steps import StepSize


def test_steps_grow_while_they_are_short_and_shrink_as_soon_as_one_is_long() -> None:
    steps = StepSize(first=200, most=1000, least=50)

    sizes = []
    for seconds in (0.001, 0.001, 0.001, 0.02, 1.0):
        steps.learn(steps.size, seconds)
        sizes.append(steps.size)

    assert sizes == [400, 800, 1000, 500, 50]


def test_nothing_done_teaches_nothing() -> None:
    steps = StepSize(first=200, most=1000)

    steps.learn(0, 60.0)

    assert steps.size == 200


@given(learnt=st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 100))))
def test_a_step_stays_within_its_bounds_whatever_it_learns(learnt: list[tuple[int, float]]) -> None:
    steps = StepSize(first=200, most=1000, least=50)

    for done, seconds in learnt:
        steps.learn(done, seconds)
        assert 50 <= steps.size <= 1000
