"""What holds for every order of rows of the channel event log, however mangled, and wherever reading was broken off."""

import random
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pbx.asterisk.cel import CelReader, CelRow, NoCelRow
from tests.unit.agent.cel_files import STAGE, cel_rows, close_all, ended, lines, new_calls
from tests.unit.agent.stories import NOON

ROWS = {name: cel_rows(lines(name)) for name in STAGE if name.startswith("stage/22/")}


def _of_one_run() -> list[str]:
    """The captures of the longest run of Asterisk: within it, the counter in uniqueids never goes back."""
    runs: list[list[str]] = []
    last = 0
    for name in sorted(ROWS, key=lambda name: ROWS[name][0].at):
        counter = int(ROWS[name][0].channel.rpartition(".")[2])
        if not runs or counter < last:
            runs.append([])
        runs[-1].append(name)
        last = counter
    return max(runs, key=len)


NAMES = _of_one_run()
several = st.lists(st.sampled_from(NAMES), min_size=2, max_size=5, unique=True)
randoms = st.randoms(use_true_random=False)


def mixed(names: list[str], choice: random.Random) -> list[CelRow]:
    """The rows of all these captures, those of each in their order."""
    waiting = [list(reversed(ROWS[name])) for name in names]
    told = []
    while waiting:
        told.append(choice.choice(waiting).pop())
        waiting = [story for story in waiting if story]
    return told


@settings(max_examples=60, deadline=None)
@given(several, randoms)
def test_calls_told_in_between_each_other_are_told_as_each_alone(names: list[str], choice: random.Random) -> None:
    alone = {sid: row for name in names for sid, row in ended(new_calls(), ROWS[name]).items()}
    calls = new_calls()

    together = ended(calls, mixed(names, choice))

    assert together == alone
    assert len(calls) == 0


@settings(max_examples=150, deadline=None)
@given(several, randoms, st.floats(0, 1))
def test_reading_again_from_the_oldest_unfinished_row_tells_each_call_once_and_the_same(
    names: list[str], choice: random.Random, part: float
) -> None:
    rows = mixed(names, choice)
    whole = ended(new_calls(), rows)
    cut = int(part * len(rows))

    before = new_calls()
    first = ended(before, rows[:cut])
    place = before.oldest_unfinished
    place = cut if place is None else place
    after = new_calls()
    again = ended(after, rows[place:cut], first=place)
    rest = ended(after, rows[cut:], first=cut)

    assert again.items() <= first.items()
    assert first.keys().isdisjoint(rest)
    assert first | rest == whole
    assert len(after) == 0


# Mangled stories

CHANNELS = [f"{1_795_366_581 + number // 3}.{number}" for number in range(6)]
channels = st.sampled_from([*CHANNELS, "pbx-1795366581.4", "odd"])
events = st.sampled_from([
    "CHAN_START", "CHAN_START", "CHAN_END", "HANGUP", "ANSWER", "APP_START", "APP_END", "BRIDGE_ENTER", "BRIDGE_EXIT",
    "PARK_START", "PARK_END", "BLINDTRANSFER", "ATTENDEDTRANSFER", "USER_DEFINED", "LINKEDID_END", "PICKUP", "FORWARD",
    "LOCAL_OPTIMIZE", "STREAM_BEGIN", "STREAM_END", "DTMF", "NONSENSE",
])  # fmt: skip
names = st.sampled_from(["PJSIP/trunk-acme-01", "PJSIP/101-02", "Local/101@x-03;1", "Local/101@x-03;2", "", "/"])
texts = st.sampled_from(["", "101", "s", "9" * 300, "Ayşe"])
applications = st.sampled_from(["Dial", "Queue", "AppDial", "AppDial2", "ConfBridge", "VoiceMail", "Busy", ""])
extras = st.dictionaries(
    st.sampled_from(
        [
            "hangupcause", "hangupsource", "dialstatus", "bridge_id", "bridge_technology", "channel2_uniqueid",
            "forward", "extension", "transfer_target_channel_uniqueid", "pickup_channel_uniqueid", "reason",
            "retriever", "parker_dial_string", "class",
        ]
    ),
    st.one_of(
        channels, names, texts, st.integers(-5, 300), st.none(), st.lists(st.integers(), max_size=2), st.booleans(),
        st.sampled_from(["N/A", "CANCEL", "holding_bridge", "b1", "ParkedCallUnparked", "PJSIP/101"]),
    ),
    max_size=4,
)  # fmt: skip
mangled = st.builds(
    CelRow,
    event=events,
    at=st.integers(-100, 1000).map(lambda seconds: NOON + timedelta(seconds=seconds)),
    channel=channels,
    linked=channels,
    name=names,
    number=texts | st.none(),
    caller_name=texts | st.none(),
    context=texts,
    exten=texts,
    application=applications,
    data=st.sampled_from(["", "PJSIP/101&PJSIP/5@trunk-acme,20", "sales,,,,5", "&&,", "Local/101@x/n"]),
    accountcode=texts,
    extra=extras,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(mangled, max_size=60))
def test_no_mangled_rows_raise_or_are_kept_once_all_is_closed(told: list[CelRow]) -> None:
    calls = new_calls(max_rows=40)

    rows = ended(calls, told)
    assert len(calls) <= 40
    close_all(calls)

    assert (len(calls), calls._groups, calls._by_key, calls._waiting) == (0, {}, {}, {})
    for row in [*rows.values(), *(call.row for call in calls.take_ended())]:
        assert row["end_time"] >= row["start_time"]
        assert row["talk_seconds"] >= 0


LINES = [line for name in NAMES[::8] for line in lines(name)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(LINES), st.integers(0, 400), st.binary(max_size=6)), max_size=40))
def test_no_mangled_line_raises(told: list[tuple[bytes, int, bytes]]) -> None:
    reader, calls = CelReader(), new_calls()

    for number, (line, place, bite) in enumerate(told):
        row = reader.read(line[:place] + bite + line[place + len(bite) :])
        if isinstance(row, NoCelRow):
            assert row.reason
        else:
            calls.add(row, number)
    close_all(calls)

    assert len(calls) == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_at_all_raise(told: bytes) -> None:
    assert isinstance(CelReader().read(told), CelRow | NoCelRow)
