"""What real Asterisks wrote into their channel event log, told as calls: is all of it true that CEL can know?

Left out are only what CEL cannot tell, each with its reason; docs/asterisk.md says the same to operators.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

import pytest

from agent.calls.numbers import NumberPlan
from agent.calls.rules import CallRules
from agent.pbx.asterisk.cel import CelReader
from config.settings import TenancySettings
from tests.pbx.configuration import CEL_APPS
from tests.pbx.stage.truth import CallTruth, Step, differences, load_truths
from tests.unit.agent.captures import WIRE, account, disagreements, events, frames, new_model, truths
from tests.unit.agent.cel_files import STAGE, TOWN, cel_rows, close_all, ended, lines, new_calls

# No row is written when a phone rings, and none tells the place in a queue.
UNTOLD_COLUMNS = frozenset({"queue_position"})
# Who put the other on hold is not told (22 tells music, so how long is known), and no row names a parking space.
UNTOLD_EVENTS = ("held ", "unheld ")
UNTOLD_FACTS = re.compile(r" (position|space)=\S+")
# Before STREAM_BEGIN there was (Asterisk 22) nothing is told of music either, and so nothing of hold but by parking;
# who waits alone with music while another is consulted by the feature code looks like who talks with nobody.
WITHOUT_MUSIC = "stage/16/"
ALONE_WITH_MUSIC = re.compile(
    r"attended_transfer_by_feature_code_|consultation_by_feature_code_|three_put_together_by_feature_code"
)
# Music that sounds through a Local channel with /n is told of that channel.
UNTOLD_HOLD = {"queue_whose_agent_behind_a_local_channel_holds_the_caller"}
# Whom a transfer brings into a room enters it without a row.
UNTOLD_ROOMS = {"attended_transfer_into_a_conference"}
# That a phone which was picked up is still asked to accept is not told: of two, the first has answered.
UNTOLD_ACCEPTANCE = {"group_in_which_two_pick_up_and_one_accepts"}
# Two queues in a row are one Queue, and when it became the second is seen in music at the earliest.
QUEUES_IN_A_ROW = {"stage/16/queue_in_vain_and_then_another"}
# The caller's row names the callee, who hung up long before: nobody can know whether the caller or the PBX ended it.
UNTOLD_HANGUPS = {"survey_after_the_callee_hung_up"}


def as_far_as_told(truth: CallTruth, name: str) -> CallTruth:
    """The truth without what CEL cannot tell."""
    scenario = name.rpartition("/")[2]
    untold = set(UNTOLD_COLUMNS)
    has_music = not name.startswith(WITHOUT_MUSIC) and scenario not in UNTOLD_HOLD
    is_hold_told = has_music or scenario.startswith("parked")
    if not is_hold_told:
        untold.add("hold")
        if ALONE_WITH_MUSIC.match(scenario):
            untold.add("talk")
    if scenario in UNTOLD_HANGUPS:
        untold.add("hangup_source")
    if scenario in UNTOLD_ACCEPTANCE:
        untold.add("answered_by")
    is_room_untold = scenario in UNTOLD_ROOMS and truth.transferred
    if is_room_untold:
        untold.add("conference")
    legs = [replace(leg, rung=None, hold=leg.hold if is_hold_told else None) for leg in truth.legs]
    but = {"hangup ": scenario in UNTOLD_HANGUPS, "conference ": is_room_untold}
    timeline = _told(truth.timeline, but=tuple(event for event, is_untold in but.items() if is_untold))
    if scenario in UNTOLD_ACCEPTANCE:
        timeline = [{re.sub(r"^answered .*", "answered -", sentence) for sentence in step} for step in timeline]
    if name in QUEUES_IN_A_ROW:
        answered = next(number for number, step in enumerate(timeline) if any("answered" in one for one in step))
        timeline[1 : answered + 1] = [set().union(*timeline[1 : answered + 1])]
    return replace(truth, open=truth.open | untold, legs=legs, timeline=list(timeline))


def _told(steps: Iterable[Step], *, but: tuple[str, ...]) -> list[set[str]]:
    timeline: list[set[str]] = []
    for step in steps:
        sentences = {step} if isinstance(step, str) else step
        told = {
            UNTOLD_FACTS.sub("", sentence)
            for sentence in sentences
            if not sentence.removeprefix("?").startswith(UNTOLD_EVENTS + but) or sentence.startswith("?hangup")
        }
        if told:
            timeline.append(told)
    return timeline


def test_the_captures_are_there() -> None:
    assert len(TOWN) > 35
    assert len(STAGE) > 170


@pytest.mark.parametrize("name", STAGE)
def test_the_record_of_a_played_feature_says_what_people_did(name: str) -> None:
    calls = new_calls(TenancySettings())

    told = ended(calls, cel_rows(lines(name)))

    true = [as_far_as_told(truth, name) for truth in load_truths((WIRE / f"{name}.json").read_text(encoding="utf-8"))]
    assert not (wrong := differences(true, list(told.values()))), "\n".join(wrong)
    assert {row["source"] for row in told.values()} == {"cel"}
    assert len(calls) == 0


# What a dialplan tells of tones, voicemail and announcements is lost with Asterisk's usual `apps=dial,queue,park`.
SPEAKING_OR_TONES = re.compile(r"^(survey|busy_tone|congestion_tone|.*_voicemail|voicemail_)")


@pytest.mark.parametrize("name", [name for name in STAGE if not SPEAKING_OR_TONES.match(name.rpartition("/")[2])])
def test_the_usual_choice_of_applications_tells_the_rest(name: str) -> None:
    usual = {"dial", "queue", "park"}
    rows = [
        row
        for row in cel_rows(lines(name))
        if row.event not in {"APP_START", "APP_END"} or row.application.lower() in usual
    ]

    told = ended(new_calls(TenancySettings()), rows)

    true = [as_far_as_told(truth, name) for truth in load_truths((WIRE / f"{name}.json").read_text(encoding="utf-8"))]
    assert not (wrong := differences(true, list(told.values()))), "\n".join(wrong)


# With `dateformat=%F %T`, who gave up first within a second cannot be seen, nor who was gone a second before.
UNTOLD_BY_SECONDS = {
    "blind_transfer_and_the_caller_gives_up", "survey_after_the_callee_hung_up", "three_put_together_by_feature_code",
}  # fmt: skip
PLAIN = (
    "direction", "caller_id", "caller_name", "callee_id", "answered_by", "last_answered_by", "status", "disposition",
    "hangup_source", "hangup_cause", "queue", "conference", "transferred", "merged_into",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in STAGE if name.rpartition("/")[2] not in UNTOLD_BY_SECONDS])
def test_whole_seconds_tell_the_same_calls(name: str) -> None:
    rows = cel_rows(lines(name))

    coarse = ended(new_calls(), [replace(row, at=row.at.replace(microsecond=0)) for row in rows])

    fine = ended(new_calls(), rows)
    assert coarse.keys() == fine.keys()
    for sid, row in fine.items():
        assert {key: coarse[sid][key] for key in PLAIN} == {key: row[key] for key in PLAIN}
        numbers, statuses = ([leg.get(key) for leg in row["legs"]] for key in ("number", "dial_status"))
        assert [leg.get("number") for leg in coarse[sid]["legs"]] == numbers
        assert [leg.get("dial_status") for leg in coarse[sid]["legs"]] == statuses


@pytest.mark.parametrize("name", STAGE)
def test_both_accounts_of_a_call_give_it_the_same_name_and_say_the_same_of_it(name: str) -> None:
    model = new_model(TenancySettings(), CallRules(numbers=NumberPlan("TR")))
    for event in events(frames(name)):
        model.apply(event)

    told = ended(new_calls(TenancySettings()), cel_rows(lines(name)))

    live = {row["call_sid"]: row for row in (call.to_row() for call in model.take_ended())}
    assert told.keys() == live.keys()
    scenario = name.rpartition("/")[2]
    untold = {
        "hangup_source": UNTOLD_HANGUPS,
        "conference": UNTOLD_ROOMS,
        "answered_by": UNTOLD_ACCEPTANCE,
    }
    but = {column for column, scenarios in untold.items() if scenario in scenarios}
    for sid, row in live.items():
        assert {key: told[sid][key] for key in PLAIN if key not in but} == {
            key: row[key] for key in PLAIN if key not in but
        }


def test_every_application_that_is_recommended_names_no_application_twice() -> None:
    applications = CEL_APPS.split(",")

    assert len(set(applications)) == len(applications)


# Asterisk's account of a stop under a ringing call is that of a call that nobody answered; and when nobody picked up
# but the one who clicked, no PBX did.
BUT = {"restart_now": ("disposition",), "asterisk-16/restart_now": ("disposition",)} | {
    "click_to_call": ("direction", "pbx_answer_time")
}


@pytest.mark.parametrize("name", [name for name in TOWN if name != "killed"])
def test_a_call_of_the_town_is_told_as_asterisk_tells_it(name: str) -> None:
    calls = new_calls()
    for number, row in enumerate(cel_rows(lines(name))):
        calls.add(row, number)

    told = {call.call.native_id: account(call.call) for call in calls.take_ended()}

    true = {call["native_id"]: call for call in truths(name)}
    assert told.keys() == true.keys()
    but = BUT.get(name, ())
    assert [line for key in true for line in disagreements(told[key], true[key], but=but)] == []
    assert len(calls) == 0


def test_no_line_of_any_capture_is_left_out() -> None:
    reader = CelReader()

    told = [reader.read(line) for name in [*TOWN, *STAGE] for line in lines(name)]

    assert {type(row).__name__ for row in told} == {"CelRow"}


def test_calls_of_an_asterisk_that_was_killed_are_told_once_it_writes_again() -> None:
    calls = new_calls()
    killed = cel_rows(lines("killed"))
    later = [line.replace(b"1795366581", b"1795366699") for line in lines("inbound_answered")]

    before = ended(calls, killed)
    after = ended(calls, cel_rows(later), first=len(killed))

    assert before == {}
    cut = {sid: row for sid, row in after.items() if row["end_estimated"]}
    assert cut.keys() == {"here:main:1795366685.0", "here:main:1795366685.1"}
    assert {row["end_time"] for row in cut.values()} == {killed[-1].at}
    assert {row["hangup_source"] for row in cut.values()} == {None}
    assert [row["status"] for sid, row in after.items() if sid not in cut] == ["completed"]
    assert len(calls) == 0


def test_calls_that_are_open_are_told_when_asked_to_and_never_by_themselves() -> None:
    calls = new_calls()
    killed = cel_rows(lines("killed"))
    assert ended(calls, killed) == {}
    assert calls.oldest_unfinished == 0

    calls.take_list({row.channel for row in killed})
    calls.take_list({row.channel for row in killed})
    assert calls.take_ended() == []
    close_all(calls)

    told = [call.row for call in calls.take_ended()]
    assert [row["end_estimated"] for row in told] == [True, True]
    assert len(calls) == 0
