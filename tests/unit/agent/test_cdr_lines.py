"""CDR files cut into records, whatever happened to them."""

import pytest

from agent.pbx.asterisk.cdr_lines import MAX_RECORD_BYTES, NEVER_CLOSED, TOO_LONG
from tests.unit.agent.cdrs import WIRE, cut, master_line

LINE = master_line().encode()


def test_a_file_is_cut_the_same_wherever_its_pieces_end() -> None:
    data = b'"a","b\nc","d ""e"" f"\n' + LINE + b"\n" + b'"x","'
    whole = cut(data)

    assert [one.line for one in whole] == [1, 3, 4]
    assert all(cut(data, pieces=at) == whole for at in range(1, len(data)))


def test_the_captured_file_is_one_record_a_line() -> None:
    data = (WIRE / "stage.master.csv").read_bytes()
    found = cut(data, pieces=1000)
    assert [one.raw for one in found] == data.splitlines()
    assert not any(one.fault or one.is_half for one in found)


def test_a_quote_that_is_never_closed_swallows_no_other_line() -> None:
    found = cut(b'"cut by a cra\n' + LINE + b"\n" + LINE + b"\n")
    assert [(one.line, one.fault) for one in found] == [(1, NEVER_CLOSED), (2, None), (3, None)]


def test_an_open_quote_before_lines_without_columns_is_given_up_after_some() -> None:
    found = cut(b'"open\n' + b"short\n" * 100 + LINE + b"\n")
    assert found[0].fault == NEVER_CLOSED
    assert found[-1].raw == LINE
    assert len(found) == 102


@pytest.mark.parametrize("pieces", [0, 10, MAX_RECORD_BYTES, MAX_RECORD_BYTES + 100])
def test_a_line_that_is_too_long_is_set_aside_and_the_next_is_read(pieces: int) -> None:
    found = cut(b"x" * (3 * MAX_RECORD_BYTES) + b"\n" + LINE + b"\n", pieces=pieces)
    assert [(one.line, one.fault) for one in found] == [(1, TOO_LONG), (2, None)]


def test_a_last_line_without_an_end_is_told_as_half() -> None:
    assert [(one.raw, one.is_half) for one in cut(LINE + b"\n" + LINE[:40])] == [(LINE, False), (LINE[:40], True)]
