import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.sources.lines import MAX_RECORD_BYTES, NEVER_CLOSED, TOO_LONG, Cut, cut


def told(found: Cut, data: bytes) -> list[bytes]:
    return [data[piece.start : piece.end] for piece in found.pieces if piece.fault is None]


def test_a_line_without_its_end_is_left_for_next_time() -> None:
    found = cut(b"one\ntwo\nthr", quotes=False, skipping=False)
    assert told(found, b"one\ntwo\nthr") == [b"one\n", b"two\n"]
    assert found.used == 8


def test_a_line_break_within_quotes_belongs_to_the_record() -> None:
    data = b'"a ""quoted"" name\nof two lines",1\n"b",2\n'
    assert told(cut(data, quotes=True, skipping=False), data) == [data[:35], b'"b",2\n']


def test_quotes_are_letters_where_records_are_lines() -> None:
    data = b'queue "one\ntwo\n'
    assert told(cut(data, quotes=False, skipping=False), data) == [b'queue "one\n', b"two\n"]


def test_an_open_quotation_at_the_end_waits() -> None:
    assert cut(b'"a",1\n"b\n', quotes=True, skipping=False).used == 6


def test_a_quotation_that_is_never_closed_costs_one_line() -> None:
    data = b'"torn,1\n' + b'"good",1\n' * 30
    found = cut(data, quotes=True, skipping=False)
    assert [piece.fault for piece in found.pieces] == [NEVER_CLOSED, *[None] * 30]


@pytest.mark.parametrize("quotes", [True, False])
def test_a_line_that_is_too_long_is_set_aside_once(quotes: bool) -> None:
    long = b"x" * (MAX_RECORD_BYTES + 10)
    first = cut(long, quotes=quotes, skipping=False)
    assert [piece.fault for piece in first.pieces] == [TOO_LONG]
    assert first.skipping
    assert cut(b"still", quotes=quotes, skipping=True) == Cut([], 5, True)
    rest = b"its end\ngood\n"
    last = cut(rest, quotes=quotes, skipping=True)
    assert told(last, rest) == [b"good\n"]
    assert not last.skipping


def test_a_line_that_is_too_long_but_ends_is_followed_by_the_next() -> None:
    data = b"x" * MAX_RECORD_BYTES + b"x\ngood\n"
    found = cut(data, quotes=False, skipping=False)
    assert [piece.fault for piece in found.pieces] == [TOO_LONG, None]
    assert not found.skipping


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"").replace(b'"', b'""')), max_size=12))
def test_whatever_pieces_it_is_read_in_the_records_are_the_same(lines: list[bytes]) -> None:
    data = b"".join(b'"' + line + b'"\n' for line in lines)
    whole = told(cut(data, quotes=True, skipping=False), data)
    assert b"".join(whole) == data
    for at in range(len(data)):
        found = cut(data[:at], quotes=True, skipping=False)
        rest = data[found.used :]
        assert told(found, data) + told(cut(rest, quotes=True, skipping=False), rest) == whole
