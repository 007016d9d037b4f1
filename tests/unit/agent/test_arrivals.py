"""The index beside a capture: whatever order and separators it has, or one sentence about what is wrong."""

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pbx.arrivals import Arrivals, IndexUnreadable, read_arrivals

EPOCH = 1_795_366_581


def parse(text: str | bytes, *, size: int = 10_000) -> Arrivals:
    data = text.encode() if isinstance(text, str) else text
    return read_arrivals(io.BytesIO(data), capture_bytes=size)


@pytest.mark.parametrize(
    "text",
    [
        f"0 {EPOCH}.5\n100 {EPOCH + 1}\n",
        f"{EPOCH}.5 0\n{EPOCH + 1} 100\n",
        f"0\t{EPOCH}.5\n100\t{EPOCH + 1}",
        f"offset,epoch\r\n0,{EPOCH}.5\r\n100,{EPOCH + 1}\r\n",
        f"# made by us\n\n  0 ;{EPOCH}.5  # the banner\n100 , {EPOCH + 1}\n",
        f"\ufefftime offset\n{EPOCH}.5, 0\n{EPOCH + 1}, 100\n",
    ],
)
def test_orders_separators_headers_and_comments_are_recognised(text: str) -> None:
    told = parse(text)

    assert (list(told.offsets), list(told.moments)) == ([0, 100], [EPOCH + 0.5, EPOCH + 1])


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 10**9)), min_size=1, max_size=30),
    st.booleans(),
    st.sampled_from([" ", "\t", ",", ", ", ";", "   "]),
)
def test_every_index_comes_back_as_it_was_written(told: list[tuple[int, int]], swapped: bool, separator: str) -> None:
    offsets, moments = sorted(offset for offset, _ in told), [EPOCH + micros / 1e6 for _, micros in told]
    pairs = [(str(offset), f"{moment:.6f}") for offset, moment in zip(offsets, moments, strict=True)]

    found = parse("\n".join(separator.join(reversed(pair) if swapped else pair) for pair in pairs), size=5000)

    assert list(found.offsets) == offsets
    assert list(found.moments) == pytest.approx(moments, abs=1e-6)


@given(st.binary(max_size=400))
def test_noise_is_refused_and_never_crashes(noise: bytes) -> None:
    try:
        found = parse(noise)
    except IndexUnreadable:
        return
    assert len(found.offsets) == len(found.moments) > 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it holds no line"),
        ("# nothing\n", "it holds no line"),
        ("offset epoch\n", "it holds no line"),
        ("0 17\n", "line 1 does not hold an offset within"),
        (f"0 {EPOCH}\n5\n", "line 2 does not hold"),
        (f"0 {EPOCH}\n5 {EPOCH} 7\n", "line 2 does not hold"),
        (f"0 {EPOCH}\nfive {EPOCH}\n", "line 2 does not hold"),
        (f"0 {EPOCH}\n5 12\n", "line 2 does not hold"),
        (f"0 {EPOCH}\n9 {EPOCH}\n5 {EPOCH}\n", "line 3: offset 5 comes after 9"),
        ("x" * 5000, "line 1 is longer"),
        (f"0 {EPOCH}\n" + "7" * 5000, "line 2 is longer"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, what: str) -> None:
    with pytest.raises(IndexUnreadable, match=what):
        parse(text)


def test_two_moments_without_any_offset_cannot_be_told_apart() -> None:
    with pytest.raises(IndexUnreadable, match="begin with 0"):
        parse(f"{EPOCH} {EPOCH}\n", size=2 * EPOCH)


def test_bytes_come_when_their_piece_came() -> None:
    told = parse(f"0 {EPOCH}\n3 {EPOCH + 1}\n3 {EPOCH + 2}\n8 {EPOCH + 3}\n")

    pieces = list(told.pieces(io.BytesIO(b"abcdefghij")))

    moments = [datetime.fromtimestamp(EPOCH + seconds, UTC) for seconds in (0, 2, 3)]
    assert pieces == list(zip(moments, [b"abc", b"defgh", b"ij"], strict=True))


def test_an_index_longer_than_its_capture_is_read_as_far_as_that_goes() -> None:
    told = parse(f"0 {EPOCH}\n4 {EPOCH + 1}\n90 {EPOCH + 2}\n")

    assert b"".join(data for _, data in told.pieces(io.BytesIO(b"abcdef"))) == b"abcdef"
