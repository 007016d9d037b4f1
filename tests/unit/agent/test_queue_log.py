"""Lines of Asterisk's queue_log: each event with what it tells, and any bytes at all."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pbx.asterisk.queue_log import MAX_LINE_BYTES, MAX_TEXT, QueueEvent, QueueLine, QueueLogFault, read_line

AT = datetime(2026, 11, 22, 22, 39, tzinfo=UTC)
EPOCH = int(AT.timestamp())


def read(text: str) -> QueueLine | None:
    return read_line(text.encode(), "cp1254")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("ENTERQUEUE||05321111011|2", {"number": "05321111011", "position": 2}),
        ("ENTERQUEUE|http://crm/?a|b|05321111011|2", {"number": "05321111011", "position": 2}),
        ("ENTERQUEUE|||1", {"number": None, "position": 1}),
        ("ENTERQUEUE||05321111011", {"number": "05321111011", "position": None}),
        ("CONNECT|4|1795387133.2|3", {"wait": 4, "channel": "1795387133.2", "ring": 3}),
        ("COMPLETECALLER|4|60|1", {"wait": 4, "talk": 60, "position": 1}),
        ("COMPLETEAGENT|4|60|1", {"wait": 4, "talk": 60, "position": 1}),
        ("ABANDON|1|3|20", {"position": 3, "wait": 20}),
        ("EXITWITHTIMEOUT|1|3|20", {"position": 3, "wait": 20}),
        ("EXITWITHTIMEOUT|1", {"position": None, "wait": None}),
        ("EXITEMPTY|1|3|20", {"position": 3, "wait": 20}),
        ("WITHDRAW|1|3|20|by the desk", {"position": 3, "wait": 20}),
        ("EXITWITHKEY|0|1|3|20", {"position": 3, "wait": 20}),
        ("RINGNOANSWER|2000", {"ring": 2}),
        ("RINGCANCELED|1500", {"ring": 1.5}),
        ("BLINDTRANSFER|103|internal|4|60|1", {"to": "103", "context": "internal", "wait": 4, "talk": 60}),
        ("TRANSFER|103|internal|4|60", {"to": "103", "context": "internal", "wait": 4, "talk": 60}),
        ("ATTENDEDTRANSFER|BRIDGE|6780e688|4|60|1", {"wait": 4, "talk": 60, "position": 1}),
        ("ATTENDEDTRANSFER|LINK|PJSIP/1-1|PJSIP/2-2|4|60|1", {"wait": 4, "talk": 60, "position": 1}),
        ("AGENTDUMP|", {}),
        ("SYSCOMPAT|", {}),
    ],
)
def test_each_event_tells_what_stands_behind_it(data: str, told: dict[str, float | str | None]) -> None:
    line = read(f"{EPOCH}|1795387130.0|sales|PJSIP/101|{data}")
    assert line is not None
    assert (line.at, line.call_id, line.queue, line.agent) == (AT, "1795387130.0", "sales", "PJSIP/101")
    assert line.event == data.partition("|")[0]
    for name, value in told.items():
        found = getattr(line, name)
        assert (found.total_seconds() if isinstance(found, timedelta) else found) == value, name


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\r\n",
        f"{EPOCH}|NONE|NONE|NONE|CONFIGRELOAD|",
        f"{EPOCH}|REALTIME|sales|PJSIP/101|ADDMEMBER|",
        f"{EPOCH}|MANAGER|sales|PJSIP/101|PAUSE|lunch",
        f"{EPOCH}|1795387130.0|sales|NONE|DID|902165551015",  # a dialplan's QueueLog()
    ],
)
def test_what_is_of_no_caller_is_passed_over(line: str) -> None:
    assert read(line) is None


def test_a_start_of_asterisk_is_told_although_it_bears_no_id() -> None:
    assert read(f"{EPOCH}|NONE|NONE|NONE|QUEUESTART|") == QueueLine(at=AT, event=QueueEvent.QUEUESTART)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("hello", "it has less than 5 parts"),
        ("noon|1.0|sales|NONE|ABANDON|1|1|1", "no time in seconds"),
        ("१७९५३८७१३०|1.0|sales|NONE|ABANDON|1|1|1", "no time in seconds"),
        (f"{EPOCH}.x|1.0|sales|NONE|ABANDON|1|1|1", "no time in seconds"),
        (f"{EPOCH}|NONE|sales|NONE|ABANDON|1|1|1", "without the id of a channel"),
        (f"{EPOCH}|1.0|NONE|NONE|ABANDON|1|1|1", "or the name of a queue"),
        (f"{EPOCH}|1.0|sales|NONE|ABANDON|1|1|soon", "'soon' is no number"),
        (f"{EPOCH}|1.0|sales|NONE|ABANDON|1|1|{10**30}", "is no number"),
        (f"{EPOCH}|1.0|{'s' * 300}|NONE|ABANDON|1|1|1", "its queue is longer than 256"),
        (f"{EPOCH}|1.0|sales|NONE|ENTERQUEUE||{'5' * 300}|1", "is longer than 256"),
        (f"{EPOCH}|1.0|sales|NONE|ENTERQUEUE|{'x' * 9000}", "longer than 8192 bytes"),
    ],
)
def test_what_is_no_line_of_a_queue_log_is_refused_with_a_reason(line: str, reason: str) -> None:
    with pytest.raises(QueueLogFault, match=reason):
        read(line)


def test_a_clock_that_was_set_back_makes_no_negative_wait() -> None:
    line = read(f"{EPOCH}|1.0|sales|NONE|ABANDON|1|1|-3")
    assert line is not None
    assert line.wait == timedelta(0)


def test_names_are_read_in_the_bytes_of_the_country() -> None:
    line = read_line(f"{EPOCH}|1.0|satış|Çiğdem|CONNECT|1|1.1|1".encode("cp1254"), "cp1254")
    assert line is not None
    assert (line.queue, line.agent) == ("satış", "Çiğdem")


@given(st.binary(max_size=MAX_LINE_BYTES + 10))
def test_any_bytes_are_a_line_none_or_a_fault(raw: bytes) -> None:
    try:
        line = read_line(raw, "cp1254")
    except QueueLogFault:
        return
    assert line is None or (len(line.call_id) <= MAX_TEXT and line.at.tzinfo is UTC)


WORDS = st.text(st.characters(blacklist_characters="|\r\n", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=80)
NAMES = WORDS.filter(lambda word: word not in {"NONE", "REALTIME"})
COUNTS = st.integers(0, 999_999)


@given(
    epoch=st.integers(10**9, 10**10),
    names=st.tuples(NAMES, NAMES, NAMES),
    event=st.sampled_from([QueueEvent.COMPLETEAGENT, QueueEvent.COMPLETECALLER]),
    counts=st.tuples(COUNTS, COUNTS, COUNTS),
)
def test_what_was_written_is_what_is_read(
    epoch: int, names: tuple[str, str, str], event: QueueEvent, counts: tuple[int, int, int]
) -> None:
    call_id, queue, agent = names
    wait, talk, position = counts
    assert read(f"{epoch}|{call_id}|{queue}|{agent}|{event}|{wait}|{talk}|{position}\n") == QueueLine(
        at=datetime.fromtimestamp(epoch, UTC), event=event, call_id=call_id, queue=queue, agent=agent,
        wait=timedelta(seconds=wait), talk=timedelta(seconds=talk), position=position,
    )  # fmt: skip
