"""The truth's rules, on the account that Asterisk gave of each captured call."""

import json
from pathlib import Path

import pytest

from tests.pbx.mix import BY_NAME
from tests.pbx.record import WIRE
from tests.pbx.truth import true_calls

CAPTURES = sorted([*WIRE.glob("*.cel.csv"), *WIRE.glob("asterisk-16/*.cel.csv")])
NO_CDR = Path("none")


def _name(cel: Path) -> str:
    return cel.relative_to(WIRE).as_posix().removesuffix(".cel.csv")


def _truth_beside(cel: Path) -> Path:
    return cel.with_name(cel.name.replace(".cel.csv", ".json"))


@pytest.mark.parametrize("cel", CAPTURES, ids=_name)
def test_the_truth_beside_a_capture_follows_from_its_cel(cel: Path) -> None:
    written = json.loads(_truth_beside(cel).read_text())
    calls = [json.loads(json.dumps(call.to_json())) for call in true_calls(cel, NO_CDR)]

    assert len(calls) == len(written)
    for call, expected in zip(calls, written, strict=True):
        assert call | {"cdr_talk_seconds": None} == {
            key: value for key, value in expected.items() if key != "scenario"
        } | {"cdr_talk_seconds": None}


@pytest.mark.parametrize("cel", CAPTURES, ids=_name)
def test_a_captured_call_ended_as_its_scenario_says(cel: Path) -> None:
    for call in json.loads(_truth_beside(cel).read_text()):
        if call["scenario"] is not None:
            assert (call["status"], call["disposition"]) == BY_NAME[call["scenario"]].outcome


def test_an_account_that_does_not_exist_yet_is_empty() -> None:
    assert true_calls(NO_CDR, NO_CDR) == []
