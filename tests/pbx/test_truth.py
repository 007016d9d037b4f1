"""The truth's rules, on the account that Asterisk gave of each captured call."""

import json
from pathlib import Path

import pytest

from tests.pbx.mix import BY_NAME
from tests.pbx.record import WIRE
from tests.pbx.truth import true_calls

CAPTURES = sorted(WIRE.glob("*.cel.csv"), key=lambda path: path.name)
NO_CDR = Path("none")


@pytest.mark.parametrize("cel", CAPTURES, ids=lambda path: path.name.split(".")[0])
def test_the_truth_beside_a_capture_follows_from_its_cel(cel: Path) -> None:
    written = json.loads((WIRE / cel.name.replace(".cel.csv", ".json")).read_text())
    calls = [json.loads(json.dumps(call.to_json())) for call in true_calls(cel, NO_CDR)]

    assert len(calls) == len(written)
    for call, expected in zip(calls, written, strict=True):
        assert call | {"cdr_talk_seconds": None} == {
            key: value for key, value in expected.items() if key != "scenario"
        } | {"cdr_talk_seconds": None}


@pytest.mark.parametrize("cel", CAPTURES, ids=lambda path: path.name.split(".")[0])
def test_a_captured_call_ended_as_its_scenario_says(cel: Path) -> None:
    for call in json.loads((WIRE / cel.name.replace(".cel.csv", ".json")).read_text()):
        if call["scenario"] is not None:
            assert (call["status"], call["disposition"]) == BY_NAME[call["scenario"]].outcome


def test_an_account_that_does_not_exist_yet_is_empty() -> None:
    assert true_calls(NO_CDR, NO_CDR) == []
