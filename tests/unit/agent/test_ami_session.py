"""The conversation of a log-in, without a line."""

import hashlib
import re

import pytest

from agent.errors import PbxLost, PbxRefused
from agent.pbx.asterisk.protocol import AmiMessage, AmiSession, SessionState

BANNER = b"Asterisk Call Manager/11.0.0\r\n"
SECRET = "gizli söz: 1"
ACCEPTED = "Response: Success", "Message: Authentication accepted"


def session(*, md5: bool = True, drop_events: tuple[str, ...] = ()) -> AmiSession:
    return AmiSession(username="edge", secret=SECRET, md5=md5, drop_events=drop_events)


def sent(talk: AmiSession) -> list[AmiMessage]:
    data = talk.outgoing()
    assert not data or data.endswith(b"\r\n\r\n")
    return [AmiMessage(raw) for raw in data.split(b"\r\n\r\n") if raw]


def answer(action: AmiMessage, *lines: str) -> bytes:
    return "\r\n".join([lines[0], f"ActionID: {action.get('actionid')}", *lines[1:], "", ""]).encode()


def logged_in() -> AmiSession:
    talk = session(md5=False)
    talk.receive(BANNER)
    talk.receive(answer(sent(talk)[0], *ACCEPTED))
    return talk


def test_nothing_is_said_before_the_banner() -> None:
    assert session().outgoing() == b""


def test_an_md5_log_in_never_sends_the_secret() -> None:
    talk = session()

    talk.receive(BANNER)
    (challenge,) = sent(talk)
    talk.receive(answer(challenge, "Response: Success", "Challenge: 840415273"))
    data = talk.outgoing()

    login = AmiMessage(data.removesuffix(b"\r\n\r\n"))
    assert (challenge.get("action"), challenge.get("authtype")) == ("Challenge", "MD5")
    assert (login.get("action"), login.get("username")) == ("Login", "edge")
    assert login.get("key") == hashlib.md5(f"840415273{SECRET}".encode()).hexdigest()
    assert SECRET.encode() not in data
    assert talk.state is SessionState.LOGIN


def test_a_plain_log_in_asks_for_its_events_at_once() -> None:
    talk = session(md5=False)

    talk.receive(BANNER)

    (login,) = sent(talk)
    assert (login.get("action"), login.get("secret")) == ("Login", SECRET)
    assert login.get("events") == "system,call,agent,dialplan,user"


@pytest.mark.parametrize("md5", [True, False])
def test_nothing_but_the_log_in_is_sent_before_it_is_accepted(md5: bool) -> None:
    talk = session(md5=md5, drop_events=("VarSet",))

    talk.receive(BANNER)
    actions = sent(talk)
    talk.receive(b"Event: FullyBooted\r\nStatus: Fully Booted\r\n\r\n")
    assert sent(talk) == []
    if md5:
        talk.receive(answer(actions[0], "Response: Success", "Challenge: 1"))
        actions += sent(talk)
    assert {action.get("action") for action in actions} <= {"Challenge", "Login"}
    talk.receive(answer(actions[-1], *ACCEPTED))

    assert talk.state is SessionState.READY
    assert [action.get("filter") for action in sent(talk)] == ["!Event: VarSet"]


def test_the_banner_may_come_in_pieces_and_with_the_first_events() -> None:
    talk = session(md5=False)

    for byte in BANNER:
        talk.receive(bytes([byte]))
    (login,) = sent(talk)
    messages = talk.receive(answer(login, *ACCEPTED) + b"Event: FullyBooted\r\n\r\nEvent: Newchannel\r\n\r\n")

    assert talk.version == "11.0.0"
    assert [message.name for message in messages] == ["FullyBooted", "Newchannel"]


@pytest.mark.parametrize(
    "greeting",
    [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"220 mail ESMTP\r\n", b"\x15\x03\x03\x00\x02\x02\x50" * 40, b"A" * 300, b"\n"],
)
def test_another_protocol_is_told_as_such(greeting: bytes) -> None:
    with pytest.raises(PbxLost, match="no Asterisk manager interface; check host, port and tls"):
        session().receive(greeting)


def test_a_banner_of_the_oldest_and_newest_asterisk_is_read() -> None:
    for version in ("1.1", "13.0.0"):
        talk = session()
        talk.receive(f"Asterisk Call Manager/{version}\r\n".encode())
        assert talk.version == version


def test_a_wrong_secret_is_a_refusal_that_names_the_user_and_what_to_check() -> None:
    talk = session(md5=False)
    talk.receive(BANNER)

    with pytest.raises(PbxRefused) as refusal:
        talk.receive(answer(sent(talk)[0], "Response: Error", "Message: Authentication failed"))

    text = str(refusal.value)
    assert "'edge'" in text
    assert "Authentication failed" in text
    assert "check username, secret and permit" in text
    assert SECRET not in text


def test_a_pbx_without_md5_is_a_refusal_that_says_what_to_set() -> None:
    talk = session()
    talk.receive(BANNER)

    with pytest.raises(PbxRefused, match='login = "plain"'):
        talk.receive(answer(sent(talk)[0], "Response: Error", "Message: Must specify AuthType"))


@pytest.mark.parametrize("md5", [True, False])
@pytest.mark.parametrize("with_id", [True, False])
def test_a_pbx_that_shuts_down_is_lost_and_refuses_nobody(md5: bool, with_id: bool) -> None:
    talk = session(md5=md5)
    talk.receive(BANNER)
    (first,) = sent(talk)
    refusal = ("Response: Error", "Message: Asterisk is shutting down")

    with pytest.raises(PbxLost, match="shutting down") as lost:
        talk.receive(answer(first, *refusal) if with_id else "\r\n".join([*refusal, "", ""]).encode())

    assert not isinstance(lost.value, PbxRefused)


def test_a_refusal_without_any_reason_is_told_as_one() -> None:
    talk = session(md5=False)
    talk.receive(BANNER)

    with pytest.raises(PbxRefused, match="no reason given"):
        talk.receive(answer(sent(talk)[0], "Response: Error"))


def test_an_answer_reaches_whoever_asked_and_nobody_else() -> None:
    talk = logged_in()
    heard: list[str] = []
    talk.action("Ping", then=lambda message: heard.append(message.get("timestamp")))
    talk.action("Ping", then=lambda message: heard.append("second"))
    first, second = sent(talk)

    left = talk.receive(answer(second, "Response: Success") + answer(first, "Response: Success", "Timestamp: 1.5"))

    assert heard == ["second", "1.5"]
    assert left == []


def test_an_error_after_the_log_in_is_only_a_message() -> None:
    (message,) = logged_in().receive(b"Response: Error\r\nMessage: Permission denied\r\n\r\n")

    assert message.get("message") == "Permission denied"


def test_an_event_with_the_id_of_an_action_is_no_answer_to_it() -> None:
    talk = logged_in()
    heard: list[AmiMessage] = []
    talk.action("CoreShowChannels", then=heard.append)
    (action,) = sent(talk)

    (item,) = talk.receive(answer(action, "Event: CoreShowChannel", "Uniqueid: 1.1"))

    assert item.name == "CoreShowChannel"
    assert heard == []


def test_a_refused_filter_loses_nothing() -> None:
    talk = session(md5=False, drop_events=("VarSet", "RTCPSent"))
    talk.receive(BANNER)
    talk.receive(answer(sent(talk)[0], *ACCEPTED))
    filters = sent(talk)

    left = talk.receive(answer(filters[0], "Response: Error", "Message: Permission denied"))

    assert len(filters) == 2
    assert left == []
    assert talk.state is SessionState.READY


def test_action_ids_are_unique_and_bear_the_prefix() -> None:
    talk = AmiSession(username="edge", secret="x", action_prefix="here-1")

    ids = {talk.action("Ping") for _ in range(100)}

    assert len(ids) == 100
    assert all(re.fullmatch(r"here-1-\d+", action_id) for action_id in ids)


@pytest.mark.parametrize("bad", ["a\r\nAction: Command", "a\nb", "a\rb"])
def test_no_setting_can_smuggle_in_an_action(bad: str) -> None:
    for username, secret in ((bad, "x"), ("edge", bad)):
        with pytest.raises(ValueError, match="line breaks") as refused:
            AmiSession(username=username, secret=secret)
        assert bad not in str(refused.value)


def test_the_secret_is_in_no_representation() -> None:
    talk = session(md5=False)
    talk.receive(BANNER)
    (login,) = sent(talk)

    assert SECRET not in repr(talk) + str(talk) + repr(login)
