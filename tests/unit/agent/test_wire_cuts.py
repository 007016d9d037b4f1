"""Whatever pieces a captured stream arrives in, it is the same frames, and so the same records."""

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.pbx.asterisk.protocol import AmiFramer
from tests.unit.agent.captures import WIRE, new_model
from tests.unit.agent.stories import NOON

CAPTURES = sorted(str(path.relative_to(WIRE).with_suffix("")) for path in WIRE.rglob("*.ami"))
END = b"\r\n\r\n"


@cache
def stream_of(name: str) -> bytes:
    """What came after the banner."""
    return (WIRE / f"{name}.ami").read_bytes().partition(b"\n")[2]


@cache
def frames_of(name: str) -> list[bytes]:
    return AmiFramer().feed(stream_of(name))


def records(raws: list[bytes]) -> list[dict[str, Any]]:  # Any: columns
    model, interpreter = new_model(), AsteriskInterpreter()
    told: list[dict[str, Any]] = []
    for raw in raws:
        event = interpreter.interpret(raw, NOON)
        if event is not None:
            model.apply(event)
            told += [call.to_row() for call in model.take_ended()]
    return told


@pytest.mark.parametrize("name", CAPTURES)
def test_a_cut_at_any_byte_changes_no_frame(name: str) -> None:
    """Between two frames the framer holds nothing, so a cut is a matter of the frame it goes through."""
    frames = frames_of(name)
    if any(END in frame for frame in frames):  # an old-style answer: cut the whole
        pieces = [stream_of(name)]
    else:
        pieces = [frame + END + b"Event: Next" + END for frame in dict.fromkeys(frames)]
    for piece in pieces:
        whole = AmiFramer().feed(piece)
        assert whole
        for cut in range(len(piece) + 1):
            framer = AmiFramer()
            assert framer.feed(piece[:cut]) + framer.feed(piece[cut:]) == whole


@pytest.mark.parametrize("name", CAPTURES)
def test_a_stream_that_comes_byte_by_byte_gives_the_same_frames(name: str) -> None:
    framer, got = AmiFramer(), []
    for number in range(len(stream_of(name))):
        got += framer.feed(stream_of(name)[number : number + 1])

    assert got == frames_of(name)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(CAPTURES), sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=30))
def test_a_stream_in_pieces_of_any_size_gives_the_same_records(name: str, sizes: list[int]) -> None:
    stream, framer, got, start, number = stream_of(name), AmiFramer(), [], 0, 0
    while start < len(stream):
        size = sizes[number % len(sizes)]
        got += framer.feed(stream[start : start + size])
        start, number = start + size, number + 1

    assert records(got) == records(frames_of(name))
