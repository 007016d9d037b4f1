"""The manager interface answers as that of an Asterisk 22.10 did when it was asked the same."""

import hashlib

import pytest

from agent.simulator.events import Event, EventClass, classes_of
from agent.simulator.exchange import Exchange
from agent.simulator.manager import Account, ManagerSession, Reply
from agent.simulator.playing import PlayedCall
from agent.simulator.scenarios import plan_call
from tests.unit.simulator.played import START_US, new_exchange, play_on


class _Pbx:
    def __init__(self) -> None:
        self.exchange: Exchange = new_exchange()
        self.booted = True
        self.shutting_down = False

    def now_us(self) -> int:
        return START_US + 61_500_000

    def new_challenge(self) -> str:
        return "780329214"


ACCOUNT = Account("sentiric", "gizli")


def _session(pbx: _Pbx | None = None, account: Account = ACCOUNT) -> ManagerSession:
    return ManagerSession(pbx or _Pbx(), account)


def _logged_in(pbx: _Pbx | None = None, account: Account = ACCOUNT, *, events: str = "on") -> ManagerSession:
    session = _session(pbx, account)
    _ask(session, "Login", Username="sentiric", Secret="gizli", Events=events)
    assert session.logged_in
    return session


def _ask(session: ManagerSession, action: str, **fields: str) -> list[Reply]:
    lines = [f"Action: {action}", "ActionID: 7", *(f"{key}: {value}" for key, value in fields.items())]
    return session.receive("\r\n".join([*lines, "", ""]).encode())


def _text(replies: list[Reply]) -> str:
    return b"".join(reply.data for reply in replies).decode().replace("\r\n", "\n")


def test_a_right_secret_is_accepted_and_the_boot_told() -> None:
    assert _text(_ask(_session(), "Login", Username="sentiric", Secret="gizli")) == (
        "Response: Success\nActionID: 7\nMessage: Authentication accepted\n\n"
        "Event: FullyBooted\nPrivilege: system,all\nUptime: 61\nLastReload: 61\nStatus: Fully Booted\n\n"
    )


def test_an_md5_log_in_needs_the_key_of_its_challenge() -> None:
    session = _session()
    assert "Challenge: 780329214\n" in _text(_ask(session, "Challenge", AuthType="MD5"))
    key = hashlib.md5(b"780329214gizli").hexdigest()

    answer = _ask(session, "Login", AuthType="MD5", Username="sentiric", Key=key)

    assert "Authentication accepted" in _text(answer)


@pytest.mark.parametrize(
    "proof",
    [
        {"Username": "sentiric", "Secret": "wrong"},
        {"Username": "nobody", "Secret": "gizli"},
        {"Username": "sentiric"},
        {"Username": "sentiric", "AuthType": "MD5", "Key": hashlib.md5(b"gizli").hexdigest()},
    ],
)
def test_a_wrong_secret_is_refused_after_a_second_and_the_line_closed(proof: dict[str, str]) -> None:
    [reply] = _ask(_session(), "Login", **proof)

    assert _text([reply]) == "Response: Error\nActionID: 7\nMessage: Authentication failed\n\n"
    assert (reply.delay_seconds, reply.closes) == (1.0, True)


def test_nobody_logs_in_while_the_pbx_stops() -> None:
    pbx = _Pbx()
    pbx.shutting_down = True

    [reply] = _ask(_session(pbx), "Login", Username="sentiric", Secret="gizli")

    assert "Asterisk is shutting down" in _text([reply])
    assert reply.closes


def test_without_the_system_class_the_boot_is_not_told() -> None:
    replies = _ask(_session(), "Login", Username="sentiric", Secret="gizli", Events="call,agent")

    assert "FullyBooted" not in _text(replies)


@pytest.mark.parametrize("action", ["Ping", "CoreShowChannels", "Frobnicate"])
def test_before_the_log_in_everything_is_refused(action: str) -> None:
    assert _text(_ask(_session(), action)) == "Response: Error\nActionID: 7\nMessage: Permission denied\n\n"


def test_a_ping_is_answered_with_the_time() -> None:
    assert _text(_ask(_logged_in(), "Ping")) == (
        "Response: Success\nActionID: 7\nPing: Pong\nTimestamp: 1795366061.500000\n\n"
    )


def test_an_action_nobody_knows_is_an_error() -> None:
    assert "Invalid/unknown command: Frobnicate. Use Action: ListCommands" in _text(_ask(_logged_in(), "Frobnicate"))
    assert "Missing action in request" in _text(_logged_in().receive(b"Foo: bar\r\n\r\n"))


def test_a_logoff_says_goodbye_and_closes() -> None:
    [reply] = _ask(_logged_in(), "Logoff")

    assert _text([reply]) == "Response: Goodbye\nActionID: 7\nMessage: Thanks for all the fish.\n\n"
    assert reply.closes


def test_actions_may_come_in_pieces_or_many_at_once() -> None:
    session = _logged_in()
    two = b"Action: Ping\r\nActionID: 1\r\n\r\nAction: Ping\r\nActionID: 2\r\n\r\n"

    replies = [reply for cut in range(len(two)) for reply in session.receive(two[cut : cut + 1])]

    assert len(replies) == 2
    assert len(session.receive(two)) == 2


def test_channels_are_listed_as_they_are() -> None:
    pbx = _Pbx()
    pbx.exchange.begin(PlayedCall(pbx.exchange, plan_call("inbound_answered", 1)), at_us=START_US)
    play_on(pbx.exchange, until_us=START_US + 30_000_000)

    text = _text(_ask(_logged_in(pbx), "CoreShowChannels"))

    assert text.startswith("Response: Success\nActionID: 7\nEventList: start\nMessage: Channels will follow\n\n")
    assert text.count("Event: CoreShowChannel\nActionID: 7\nChannel: PJSIP/") == 2
    assert text.count("Application: Dial\n") == text.count("Application: AppDial\n") == 1
    assert text.count("Duration: 00:01:01\n") == 2
    bridges = {line for line in text.split("\n") if line.startswith("BridgeId: ")}
    assert len(bridges) == 1
    assert bridges != {"BridgeId: "}
    assert text.endswith("Event: CoreShowChannelsComplete\nActionID: 7\nEventList: Complete\nListItems: 2\n\n")


def test_core_status_counts_calls() -> None:
    text = _text(_ask(_logged_in(), "CoreStatus"))

    assert "CoreStartupDate: 2026-11-22\n" in text
    assert "CoreCurrentCalls: 0\nCoreProcessedCalls: 0\n" in text


def test_only_events_of_the_classes_asked_for_and_allowed_are_wanted() -> None:
    allowed = Account("sentiric", "gizli", read=EventClass.CALL | EventClass.AGENT)

    wanted = _logged_in(account=allowed, events="call,dialplan").wanted_names()

    assert {"Newchannel", "Hangup", "CEL"} <= wanted
    assert wanted.isdisjoint({"Newexten", "VarSet", "QueueCallerJoin", "FullyBooted"})


def test_events_can_be_switched_off_and_on() -> None:
    session = _logged_in()

    assert "Events: Off\n" in _text(_ask(session, "Events", EventMask="off"))
    assert session.wanted_names() == frozenset()
    assert "Events: On\n" in _text(_ask(session, "Events", EventMask="call"))
    assert "Hangup" in session.wanted_names()


@pytest.mark.parametrize(
    ("mask", "classes"),
    [
        ("on", EventClass.ALL),
        ("off", EventClass(0)),
        ("0", EventClass(0)),
        ("34", EventClass.CALL | EventClass.AGENT),
        ("call, agent", EventClass.CALL | EventClass.AGENT),
        ("call,nonsense", EventClass.CALL),
    ],
)
def test_masks_are_words_or_numbers(mask: str, classes: EventClass) -> None:
    assert classes_of(mask) == classes


def test_a_filter_by_name_keeps_the_event_off_the_line() -> None:
    session = _logged_in()

    assert "Message: Success\n" in _text(_ask(session, "Filter", Operation="Add", Filter="!Event: VarSet"))

    assert "VarSet" not in session.wanted_names()
    assert "Newexten" in session.wanted_names()
    assert not session.looks_inside


def test_a_filter_may_look_at_any_field() -> None:
    session = _logged_in()
    _ask(session, "Filter", Operation="Add", Filter="Context: .*-acme")
    _ask(session, "Filter", Operation="Add", Filter="!Exten: 902125551001")

    assert session.looks_inside
    assert session.passes(Event("Newexten", b"Event: Newexten\r\nContext: from-trunk-acme\r\n\r\n"))
    assert not session.passes(Event("Newexten", b"Event: Newexten\r\nContext: from-trunk-globex\r\n\r\n"))
    assert not session.passes(
        Event("Newexten", b"Event: Newexten\r\nContext: from-trunk-acme\r\nExten: 902125551001\r\n\r\n")
    )


def test_filters_that_are_none_are_refused() -> None:
    session = _logged_in()

    assert "Unknown operation" in _text(_ask(session, "Filter"))
    assert "did not compile" in _text(_ask(session, "Filter", Operation="Add", Filter="!Event: ("))


def test_without_the_right_to_write_nothing_is_listed_or_filtered() -> None:
    session = _logged_in(account=Account("sentiric", "gizli", write=EventClass(0)))

    for action in ("CoreShowChannels", "CoreStatus", "Filter"):
        assert "Permission denied" in _text(_ask(session, action, Operation="Add", Filter="!Event: VarSet"))


def test_the_recommended_rights_list_channels_but_set_no_filters() -> None:
    session = _logged_in(account=Account("sentiric", "gizli", write=EventClass.REPORTING))

    assert "Success" in _text(_ask(session, "CoreShowChannels"))
    assert "Permission denied" in _text(_ask(session, "Filter", Operation="Add", Filter="!Event: VarSet"))


def test_an_endless_line_ends_the_session() -> None:
    [reply] = _logged_in().receive(b"A" * 200_000)

    assert reply.closes


def test_the_secret_is_not_shown() -> None:
    assert "gizli" not in repr(ACCOUNT)
