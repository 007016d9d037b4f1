"""Each AMI event becomes what the call model understands, or nothing."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.calls.events import (
    AppStarted,
    AttendedTransferred,
    BlindTransferred,
    BridgeJoined,
    BridgeKind,
    BridgeLeft,
    CallerIdentified,
    CallEvent,
    ChannelClosed,
    ChannelOpened,
    ChannelRenamed,
    ChannelRinging,
    ChannelUp,
    ConferenceJoined,
    CutOff,
    DialBegan,
    DialEnded,
    DialStatus,
    HangupRequested,
    Held,
    MusicStarted,
    MusicStopped,
    Parked,
    ParkingEnd,
    PickedUp,
    QueueJoined,
    QueueLeft,
    Unheld,
    Unparked,
)
from agent.pbx.asterisk.protocol import AmiMessage
from agent.pbx.asterisk.translate import event_time, text_or_none, translate

AT = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def told(name: str, **fields: str) -> CallEvent | None:
    lines = [f"Event: {name}", *(f"{key}: {value}" for key, value in fields.items())]
    return translate(AmiMessage("\r\n".join(lines).encode()), AT)


def test_a_new_channel_tells_its_caller_and_where_it_begins() -> None:
    event = told(
        "Newchannel",
        Channel="PJSIP/trunk-acme-00000001",
        ChannelState="4",
        CallerIDNum="905300000001",
        CallerIDName="Ayşe",
        AccountCode="7",
        Context="from-trunk-acme",
        Exten="902125551001",
        Uniqueid="1.1",
        Linkedid="1.0",
    )

    assert event == ChannelOpened(
        at=AT,
        channel="1.1",
        linked="1.0",
        name="PJSIP/trunk-acme-00000001",
        number="905300000001",
        caller_name="Ayşe",
        context="from-trunk-acme",
        exten="902125551001",
        accountcode="7",
    )


def test_a_listed_channel_tells_its_age_bridge_and_application() -> None:
    event = told(
        "CoreShowChannel",
        Channel="PJSIP/101-00000001",
        ChannelState="6",
        Uniqueid="1.1",
        Linkedid="1.1",
        Application="Queue",
        ApplicationData="sales,,,,30",
        Duration="26:01:02",
        BridgeId="b-1",
    )

    assert isinstance(event, ChannelOpened)
    assert event.up
    assert event.age_seconds == 26 * 3600 + 62
    assert (event.bridge, event.application, event.application_data) == ("b-1", "Queue", "sales,,,,30")


@pytest.mark.parametrize(
    ("name", "fields", "event"),
    [
        ("Newstate", {"ChannelState": "5"}, ChannelRinging(AT, "1.1", "1.0")),
        ("Newstate", {"ChannelState": "6"}, ChannelUp(AT, "1.1", "1.0")),
        ("Newstate", {"ChannelState": "4"}, None),
        ("Newstate", {"ChannelState": "x"}, None),
        ("NewCallerid", {"CallerIDNum": "5", "CallerIDName": ""}, CallerIdentified(AT, "1.1", "1.0", "5", None)),
        ("BridgeEnter", {"BridgeUniqueid": "b"}, BridgeJoined(AT, "1.1", "1.0", "b")),
        ("BridgeEnter", {}, None),
        ("BridgeLeave", {"BridgeUniqueid": "b"}, BridgeLeft(AT, "1.1", "1.0", "b")),
        ("BridgeLeave", {}, None),
        ("Hold", {}, Held(AT, "1.1", "1.0")),
        ("Unhold", {}, Unheld(AT, "1.1", "1.0")),
        ("HangupRequest", {"Cause": "16"}, HangupRequested(AT, "1.1", "1.0")),
        ("Hangup", {"Cause": "17"}, ChannelClosed(AT, "1.1", "1.0", 17)),
        ("Hangup", {"Cause": "?"}, ChannelClosed(AT, "1.1", "1.0", None)),
        ("Hangup", {}, ChannelClosed(AT, "1.1", "1.0", None)),
        ("QueueCallerJoin", {"Queue": "sales", "Position": "2"}, QueueJoined(AT, "1.1", "1.0", "sales", 2)),
        ("QueueCallerJoin", {"Queue": "sales"}, QueueJoined(AT, "1.1", "1.0", "sales", None)),
        ("QueueCallerLeave", {"Queue": "sales"}, QueueLeft(AT, "1.1", "1.0", "sales")),
        ("VarSet", {"Variable": "X"}, None),
        ("SoftHangupRequest", {"Cause": "4"}, CutOff(AT, "1.1", "1.0")),
        ("SoftHangupRequest", {"Cause": "16"}, None),
        ("SoftHangupRequest", {}, None),
    ],
)
def test_an_event_about_a_channel_tells_what_it_tells(
    name: str, fields: dict[str, str], event: CallEvent | None
) -> None:
    assert told(name, Uniqueid="1.1", Linkedid="1.0", **fields) == event


def test_the_dialplan_tells_application_and_data() -> None:
    fields = {"Context": "c", "Exten": "old", "Extension": "101", "Application": "Dial", "AppData": "PJSIP/101,20"}

    event = told("Newexten", Uniqueid="1.1", Linkedid="1.0", **fields)

    assert event == AppStarted(AT, "1.1", "1.0", "c", "101", "Dial", "PJSIP/101,20")


def test_a_dial_is_about_the_leg_it_reaches() -> None:
    ids = {"Uniqueid": "1.1", "Linkedid": "1.0", "DestUniqueid": "1.2", "DestLinkedid": "1.0"}

    assert told("DialBegin", DialString="101", **ids) == DialBegan(AT, "1.1", "1.2", "1.0", "101")
    assert told("DialEnd", DialStatus="BUSY", **ids) == DialEnded(AT, "1.2", "1.0", DialStatus.BUSY, channel="1.1")
    forwarded = told("DialEnd", DialStatus="CANCEL", Forward="102", **ids)
    assert forwarded == DialEnded(AT, "1.2", "1.0", DialStatus.CANCEL, "102", "1.1")


def test_a_call_the_pbx_makes_by_itself_has_no_source() -> None:
    event = told("DialBegin", DestUniqueid="1.1", DestLinkedid="1.1", DialString="101")

    assert event == DialBegan(AT, None, "1.1", "1.1", "101")


def test_whom_a_phone_shows_that_the_pbx_rings_by_itself_is_told_and_nobody_is_not() -> None:
    ids = {"DestUniqueid": "1.1", "DestLinkedid": "1.1", "DialString": "101"}

    shown = told("DialBegin", DestConnectedLineNum="05321234567", **ids)
    assert shown == DialBegan(AT, None, "1.1", "1.1", "101", connected="05321234567")
    assert told("DialBegin", DestConnectedLineNum="<unknown>", **ids) == DialBegan(AT, None, "1.1", "1.1", "101")


def test_an_unknown_dial_status_tells_nothing() -> None:
    assert told("DialEnd", DestUniqueid="1.2", DialStatus="SURPRISE") is None


def test_a_channel_without_linkedid_stands_for_itself() -> None:
    assert told("Hangup", Uniqueid="1.1", Cause="16") == ChannelClosed(AT, "1.1", "1.1", 16)


NAMES = [
    "Newchannel", "CoreShowChannel", "Newstate", "NewCallerid", "Newexten", "DialBegin", "DialEnd", "BridgeEnter",
    "BridgeLeave", "Hold", "Unhold", "HangupRequest", "SoftHangupRequest", "Hangup", "QueueCallerJoin",
    "QueueCallerLeave",
]  # fmt: skip
KEYS = [
    "Uniqueid", "Linkedid", "DestUniqueid", "DestLinkedid", "Channel", "ChannelState", "CallerIDNum", "Exten",
    "BridgeUniqueid", "BridgeId", "Cause", "Position", "Duration", "Timestamp", "DialStatus", "Application",
]  # fmt: skip
VALUE = st.one_of(
    st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=20),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "<unknown>", "9" * 5000, "99999999999999:00:00", "1:2", "-1:-1:-1", "1e308", "٣"]),
)


@pytest.mark.parametrize("name", NAMES)
def test_an_event_without_any_field_tells_nothing(name: str) -> None:
    assert told(name) is None


@given(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(KEYS), VALUE))
def test_no_value_however_mangled_raises(name: str, fields: dict[str, str]) -> None:
    told(name, **fields)


@pytest.mark.parametrize(
    ("stamp", "at"),
    [
        ("1795358947.410419", datetime(2026, 11, 22, 14, 49, 7, 410419, tzinfo=UTC)),
        ("1795358947", datetime(2026, 11, 22, 14, 49, 7, tzinfo=UTC)),
        ("", AT),
        ("soon", AT),
        ("nan", AT),
        ("inf", AT),
        ("1e300", AT),
        ("-62135596800", AT),
        ("0", AT),
        ("253402300799", AT),
    ],
)
def test_the_time_is_the_pbx_s_own_if_it_tells_a_credible_one(stamp: str, at: datetime) -> None:
    assert event_time(AmiMessage(f"Event: Hangup\r\nTimestamp: {stamp}".encode()), AT) == at


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("", None),
        ("<unknown>", None),
        ("<Unknown>", None),
        ("anonymous", "anonymous"),
        ("+905300000001", "+905300000001"),
        (r"Ali \"D\" Veli", 'Ali "D" Veli'),
        (r"back\\slash", "back\\slash"),
        (r"two\nlines", "two\nlines"),
        ("ends in \\", "ends in \\"),
    ],
)
def test_texts_are_unescaped_and_unknown_ones_are_none(written: str, meant: str | None) -> None:
    assert text_or_none(written) == meant


@pytest.mark.parametrize(
    ("type_", "technology", "kind"),
    [
        ("basic", "simple_bridge", BridgeKind.TALK),
        ("basic", "native_rtp", BridgeKind.TALK),
        ("", "", BridgeKind.TALK),
        ("base", "softmix", BridgeKind.CONFERENCE),
        ("stasis", "simple_bridge", BridgeKind.CONFERENCE),
        ("parking", "holding_bridge", BridgeKind.HOLDING),
        ("base", "holding_bridge", BridgeKind.HOLDING),
    ],
)
def test_a_bridge_s_type_tells_whether_one_talks_confers_or_waits_in_it(
    type_: str, technology: str, kind: BridgeKind
) -> None:
    fields = {"BridgeUniqueid": "b", "BridgeType": type_, "BridgeTechnology": technology}

    event = told("BridgeEnter", Uniqueid="1.1", Linkedid="1.0", SwapUniqueid="1.9", **fields)

    assert event == BridgeJoined(AT, "1.1", "1.0", "b", kind, "1.9")


def test_a_transfer_is_told_of_who_did_it() -> None:
    blind = {"TransfererUniqueid": "1.1", "TransfererLinkedid": "1.0", "Extension": "102", "Result": "Success"}
    attended = {
        "OrigTransfererUniqueid": "1.1", "OrigTransfererLinkedid": "1.0", "SecondTransfererUniqueid": "1.2",
        "TransferTargetUniqueid": "1.3", "Result": "Success",
    }  # fmt: skip

    assert told("BlindTransfer", **blind) == BlindTransferred(AT, "1.1", "1.0", "102")
    assert told("BlindTransfer", **(blind | {"Result": "Fail"})) is None
    assert told("AttendedTransfer", **attended) == AttendedTransferred(AT, "1.1", "1.0", "1.2", "1.3")
    assert told("AttendedTransfer", **(attended | {"Result": "Not Permitted"})) is None


def test_parking_is_told_of_who_is_parked() -> None:
    parkee = {"ParkeeUniqueid": "1.1", "ParkeeLinkedid": "1.0", "ParkingSpace": "701", "ParkerDialString": "PJSIP/101"}

    assert told("ParkedCall", **parkee) == Parked(AT, "1.1", "1.0", "701", "101")
    assert told("UnParkedCall", RetrieverUniqueid="1.5", **parkee) == Unparked(
        AT, "1.1", "1.0", ParkingEnd.RETRIEVED, "701", "1.5"
    )
    assert told("ParkedCallTimeOut", **parkee) == Unparked(AT, "1.1", "1.0", ParkingEnd.TIMEOUT, "701")
    assert told("ParkedCallGiveUp", **parkee) == Unparked(AT, "1.1", "1.0", ParkingEnd.GIVEN_UP, "701")


def test_music_pickups_conferences_and_new_names_are_told_of_the_channel() -> None:
    ids = {"Uniqueid": "1.1", "Linkedid": "1.0"}

    assert told("MusicOnHoldStart", **ids) == MusicStarted(AT, "1.1", "1.0")
    assert told("MusicOnHoldStop", **ids) == MusicStopped(AT, "1.1", "1.0")
    assert told("Pickup", TargetUniqueid="1.4", **ids) == PickedUp(AT, "1.1", "1.0", "1.4")
    assert told("ConfbridgeJoin", Conference="800", **ids) == ConferenceJoined(AT, "1.1", "1.0", "800")
    assert told("Rename", Newname="PJSIP/102-2", Uniqueid="1.1") == ChannelRenamed(AT, "1.1", "PJSIP/102-2")
