"""What real Asterisks said while features were played (tests/pbx/stage), told to the call model: is all of it true?"""

from typing import Any

import pytest

from agent.calls.numbers import NumberPlan
from agent.calls.rules import CallRules
from config.settings import TenancySettings
from tests.pbx.stage.truth import differences, load_truths
from tests.unit.agent.captures import WIRE, events, frames, is_empty, new_model

CAPTURES = sorted(str(path.relative_to(WIRE).with_suffix("")) for path in (WIRE / "stage").glob("*/*.ami"))


@pytest.mark.parametrize("name", CAPTURES)
def test_the_record_of_a_played_feature_says_what_people_did(name: str) -> None:
    model = new_model(TenancySettings(), CallRules(numbers=NumberPlan("TR")))
    told: list[dict[str, Any]] = []  # Any: columns
    for event in events(frames(name)):
        model.apply(event)
        told += [call.to_row() for call in model.take_ended()]

    truths = load_truths((WIRE / f"{name}.json").read_text(encoding="utf-8"))
    wrong = differences(truths, told)
    assert not wrong, "\n".join(wrong)
    assert is_empty(model)
