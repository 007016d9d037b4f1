"""What is kept of a channel event log between reading and telling: which rows belong together, and until when."""

from datetime import UTC, datetime, timedelta
from typing import Any

from agent.pbx.asterisk.cel import CelRow
from tests.unit.agent.cel_files import cel_rows, close_all, ended, lines, new_calls

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
STARTED = int(NOON.timestamp())


def ident(number: int, *, second: int = STARTED, name: str = "") -> str:
    """The uniqueid of the channel with that number."""
    return f"{name}{second}.{number}"


def row(event: str, channel: str, linked: str | None = None, *, at: float = 0.0, **more: Any) -> CelRow:
    told: dict[str, Any] = {  # Any: fields of many types
        "name": f"PJSIP/10{channel[-1]}-{channel}", "number": None, "caller_name": None, "context": "internal",
        "exten": "102", "application": "", "data": "", "accountcode": "", "extra": {},
    }  # fmt: skip
    return CelRow(
        event=event, at=NOON + timedelta(seconds=at), channel=channel, linked=linked or channel, **told | more
    )


def one_call(channel: str, *, at: float = 0.0) -> list[CelRow]:
    """A call that nobody answered."""
    return [
        row("CHAN_START", channel, at=at),
        row("HANGUP", channel, at=at + 1, extra={"hangupcause": 16}),
        row("CHAN_END", channel, at=at + 1),
        row("LINKEDID_END", channel, at=at + 1),
    ]


def test_a_call_is_told_when_its_linkedid_has_ended_too() -> None:
    calls = new_calls()
    *rows, last = one_call(ident(0))

    assert ended(calls, rows) == {}
    assert calls.oldest_unfinished == 0
    assert ended(calls, [last]).keys() == {f"here:main:{ident(0)}"}
    assert calls.oldest_unfinished is None


def test_where_ends_of_linkedids_are_not_told_they_are_waited_for_once_only() -> None:
    calls = new_calls()
    first, second, third = (one_call(ident(number), at=at)[:-1] for number, at in ((0, 0), (1, 30), (2, 90)))

    assert ended(calls, [*first, *second]) == {}
    assert ended(calls, third[:1]).keys() == {f"here:main:{ident(0)}"}
    assert ended(calls, third[1:]).keys() == {f"here:main:{ident(2)}"}
    assert ended(calls, [row("CHAN_START", ident(3), at=120)]).keys() == {f"here:main:{ident(1)}"}


def test_a_call_whose_beginning_was_not_read_is_not_told() -> None:
    calls = new_calls()

    assert ended(calls, one_call(ident(0))[1:]) == {}
    assert len(calls) == 0


def test_nor_is_one_of_which_only_a_later_leg_was_read_from_its_beginning() -> None:
    leg = [row("CHAN_START", ident(1), ident(0)), row("CHAN_END", ident(1), ident(0))]
    calls = new_calls()

    assert ended(calls, [*leg, row("LINKEDID_END", ident(1), ident(0))]) == {}
    assert len(calls) == 0


def test_words_about_a_channel_that_is_gone_change_nothing() -> None:
    calls = new_calls()
    told = one_call(ident(0))
    before = ended(calls, told)

    again = ended(calls, [*told[1:], row("ATTENDEDTRANSFER", ident(0), at=5)])

    assert (len(before), again, len(calls)) == (1, {}, 0)


def test_a_low_number_of_a_channel_shows_that_asterisk_was_started_anew() -> None:
    calls = new_calls()
    open_call = one_call(ident(7))[:1]
    alive = one_call(ident(8), at=5)

    ended(calls, [*open_call, *alive])
    told = ended(calls, [row("CHAN_START", ident(0, second=STARTED + 60), at=60)])

    (cut,) = told.values()
    assert (cut["call_sid"], cut["end_estimated"]) == (f"here:main:{ident(7)}", True)
    assert cut["end_time"] == alive[-1].at


def test_calls_of_an_asterisk_that_was_back_at_once_go_on() -> None:
    """Killed and started within two seconds, which only a later channel shows."""
    calls = new_calls()
    old, last, new = ident(7, second=STARTED + 9), ident(8, second=STARTED + 10), ident(0, second=STARTED + 11)
    beginning, *rest = one_call(new, at=11)

    ended(calls, [row("CHAN_START", old, at=9), row("CHAN_START", last, at=10), beginning])
    cut = ended(calls, [row("CHAN_START", ident(3, second=STARTED + 14), at=14)])

    assert cut.keys() == {f"here:main:{old}", f"here:main:{last}"}
    assert ended(calls, rest)[f"here:main:{new}"]["end_estimated"] is False


def test_an_asterisk_that_lived_for_seconds_only_and_was_back_at_once_is_known_to_be_another() -> None:
    """Its successor numbers higher before two seconds have passed since it made its last channel."""
    calls = new_calls()
    old = [row("CHAN_START", ident(number, second=STARTED + 2 * number), at=2 * number) for number in range(5)]
    new = [row("CHAN_START", ident(number, second=STARTED + 9), at=9) for number in range(7)]

    ended(calls, old)
    cut = ended(calls, new)

    assert cut.keys() == {f"here:main:{ident(number, second=STARTED + 2 * number)}" for number in range(5)}
    assert len(calls) == len(new)


def test_channels_made_in_the_same_moment_may_be_told_in_any_order() -> None:
    calls = new_calls()

    told = ended(calls, [row("CHAN_START", ident(8, second=STARTED + 1), at=1), row("CHAN_START", ident(7), at=1)])

    assert told == {}


def test_an_asterisk_of_another_name_in_the_same_table_is_not_that_one_started_anew() -> None:
    calls = new_calls()
    theirs = ident(0, second=STARTED + 60, name="pbx2-")

    told = ended(calls, [row("CHAN_START", ident(7, name="pbx1-")), row("CHAN_START", theirs, at=60)])

    assert told == {}


def test_one_that_starts_anew_leaves_the_other_s_calls_open() -> None:
    calls = new_calls()
    first, second = ident(7, name="pbx1-"), ident(9, name="pbx2-")

    ended(calls, [row("CHAN_START", first), row("CHAN_START", second)])
    told = ended(calls, [row("CHAN_START", ident(1, second=STARTED + 60, name="pbx2-"), at=60)])

    assert told.keys() == {f"here:main:{second}"}


def test_names_of_asterisks_without_end_are_not_remembered() -> None:
    calls = new_calls()

    ended(calls, [each for number in range(500) for each in one_call(ident(0, name=f"pbx{number}-"), at=number)])

    assert (len(calls), len(calls._runs), len(calls._heard_at)) == (0, 64, 64)


def test_more_open_rows_than_are_kept_are_told_as_calls_whose_end_was_not_seen() -> None:
    calls = new_calls(max_rows=10)

    told = ended(calls, [row("CHAN_START", ident(number), at=number) for number in range(100)])

    assert len(calls) <= 10
    assert len(told) == 100 - len(calls)
    assert all(call["end_estimated"] for call in told.values())


def test_a_transfer_of_which_the_target_is_not_told_does_not_bind_strangers_together() -> None:
    nobody = {"transfer_target_channel_uniqueid": "N/A", "bridge_id": ""}
    calls = new_calls()

    told = ended(calls, [
        *(row("CHAN_START", ident(number)) for number in (0, 1)),
        *(row("ATTENDEDTRANSFER", ident(number), extra=nobody) for number in (0, 1)),
        row("CHAN_END", ident(0)),
        row("LINKEDID_END", ident(0)),
    ])  # fmt: skip

    assert told.keys() == {f"here:main:{ident(0)}"}


def test_what_was_told_before_a_restart_of_ours_is_told_again_and_the_same() -> None:
    finished = cel_rows(lines("inbound_answered"))
    going_on = cel_rows(lines("outbound_answered"))
    read = [going_on[0], *finished, *going_on[1:-3]]
    before = new_calls()
    told = ended(before, read)
    place = before.oldest_unfinished
    assert place == 0

    after = new_calls()
    again = ended(after, read[place:], first=place)
    rest = ended(after, going_on[-3:], first=len(read))

    assert (len(told), again, len(rest)) == (1, told, 1)
    assert ended(new_calls(), going_on) == rest


def test_the_parties_of_a_conference_are_told_together_once_it_is_over() -> None:
    room = {"bridge_id": "room", "bridge_technology": "softmix"}
    conference: dict[str, Any] = {"application": "ConfBridge", "data": "8001"}  # Any: fields of a row
    first, second = ident(0), ident(1)
    calls = new_calls()

    def goes(channel: str, *, at: float) -> list[CelRow]:
        gone = row("BRIDGE_EXIT", channel, at=at, extra=room, **conference)
        return [gone, *(row(event, channel, at=at) for event in ("HANGUP", "CHAN_END", "LINKEDID_END"))]

    told = ended(calls, [
        *(row("CHAN_START", channel) for channel in (first, second)),
        *(row("ANSWER", channel) for channel in (first, second)),
        *(row("BRIDGE_ENTER", channel, at=1, extra=room, **conference) for channel in (first, second)),
        *goes(first, at=5),
    ])  # fmt: skip
    assert told == {}
    told = ended(calls, goes(second, at=7))

    assert [(call["conference"], call["legs"][0]["talk_seconds"]) for call in told.values()] == [("8001", 4.0)] * 2


def test_a_parking_lot_binds_nobody_together() -> None:
    lot = {"bridge_id": "lot", "bridge_technology": "holding_bridge"}
    calls = new_calls()

    told = ended(calls, [
        *(row("CHAN_START", ident(number)) for number in (0, 1)),
        *(row("BRIDGE_ENTER", ident(number), extra=lot) for number in (0, 1)),
        row("CHAN_END", ident(0)),
        row("LINKEDID_END", ident(0)),
    ])  # fmt: skip

    assert told.keys() == {f"here:main:{ident(0)}"}


def test_a_parking_space_that_is_not_told_is_left_out() -> None:
    parked = row("PARK_START", ident(0), extra={"parker_dial_string": "PJSIP/101", "parking_lot": "default"})
    unparked = row("PARK_END", ident(0), at=5, extra={"reason": "ParkedCallTimeOut"})
    start, *rest = one_call(ident(0), at=6)

    (call,) = ended(new_calls(), [start, parked, unparked, *rest]).values()

    told = {step["event"]: step for step in call["timeline"]}
    assert (told["parked"]["by"], "space" in told["parked"], "space" in told["park_timeout"]) == ("101", False, False)


def test_a_second_dial_right_after_the_first_is_seen_in_the_channels_it_makes() -> None:
    """CEL tells no end of the first Dial and no beginning of the second."""
    caller, first, second = (ident(number) for number in range(3))
    dial: dict[str, Any] = {"application": "Dial", "name": "PJSIP/trunk-acme-0"}  # Any: fields of a row
    calls = new_calls()

    told = ended(calls, [
        row("CHAN_START", caller, name="PJSIP/trunk-acme-0"),
        row("APP_START", caller, data="PJSIP/101,5", **dial),
        row("CHAN_START", first, caller, name="PJSIP/101-1", exten="s"),
        row("HANGUP", first, caller, name="PJSIP/101-1", at=5, extra={"hangupcause": 17}),
        row("CHAN_END", first, caller, name="PJSIP/101-1", at=5),
        row("CHAN_START", second, caller, name="PJSIP/102-2", exten="s", at=5),
        row("HANGUP", second, caller, name="PJSIP/102-2", at=9, extra={"hangupcause": 0, "hangupsource": ""}),
        row("CHAN_END", second, caller, name="PJSIP/102-2", at=9),
        row("APP_END", caller, at=9, data="PJSIP/102,4", **dial),
        row("HANGUP", caller, name="PJSIP/trunk-acme-0", at=9, extra={"hangupsource": "dialplan/builtin"}),
        row("CHAN_END", caller, name="PJSIP/trunk-acme-0", at=9),
        row("LINKEDID_END", caller, at=9),
    ])  # fmt: skip

    (call,) = told.values()
    assert (call["disposition"], call["direction"]) == ("no_answer", "inbound")
    assert [leg.get("dial_status") for leg in call["legs"]] == [None, "BUSY", "NOANSWER"]


def test_calls_that_the_pbx_has_no_channel_of_any_more_ended_unseen() -> None:
    calls = new_calls()
    ended(calls, [row("CHAN_START", ident(0)), row("CHAN_START", ident(1), at=50)])

    calls.take_list({ident(1)})
    assert calls.take_ended() == []  # the list may be older than the call
    calls.take_list({ident(1)})
    first = [call.row for call in calls.take_ended()]
    close_all(calls)

    assert [(call["call_sid"], call["end_estimated"]) for call in first] == [(f"here:main:{ident(0)}", True)]
    assert [call.row["call_sid"] for call in calls.take_ended()] == [f"here:main:{ident(1)}"]
    assert len(calls) == 0


def test_a_call_of_which_something_was_written_between_two_lists_is_not_gone() -> None:
    calls = new_calls()
    whole = one_call(ident(0))
    assert ended(calls, whole[:2]) == {}

    calls.take_list(frozenset())
    assert ended(calls, whole[2:3]) == {}
    calls.take_list(frozenset())
    assert calls.take_ended() == []
    (told,) = ended(calls, whole[3:]).values()

    assert told["end_estimated"] is False
