"""Who may speak for a site: the table of docs/hub.md, row by row."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.central.lease import KeptLease, Standing, bounded, fenced, held, next_token, standing

NEW, SAME, HELD, FENCED = Standing.NEW, Standing.SAME, Standing.HELD, Standing.FENCED
FREE = KeptLease(None, None, None, None, None, 0.0)
FRESH = KeptLease("5.now", "4.before", "us", "pbx-1", datetime(2026, 3, 2, 12, 0, tzinfo=UTC), 42.5)
RUN_OUT = replace(FRESH, left_seconds=-1.0)


@pytest.mark.parametrize(
    ("kept", "shown", "holder", "comes_to"),
    [
        (FREE, None, "us", NEW),
        (FREE, "9.any", "us", NEW),
        (replace(FREE, token_before="5.released"), "5.released", "them", NEW),
        (FRESH, "5.now", "us", SAME),
        (FRESH, "4.before", "us", SAME),  # the answer with the present one was lost
        (FRESH, None, "us", SAME),  # so was the answer to the very first greeting
        (RUN_OUT, "5.now", "us", SAME),
        (FRESH, "6.later", "us", NEW),  # the centre went back
        (FRESH, "6.later", "them", NEW),
        (RUN_OUT, "5.now", "them", NEW),  # rebooted
        (FRESH, "5.now", "them", HELD),  # rebooted quickly, or a copy
        (FRESH, "4.before", "them", FENCED),
        (RUN_OUT, "4.before", "them", FENCED),
        (FRESH, None, "them", FENCED),
        (RUN_OUT, None, "them", FENCED),
        (FRESH, "5.other", "us", FENCED),
        (FRESH, "5.other", "them", FENCED),
        (FRESH, "no token", "us", FENCED),
        (FRESH, "99999999999999999999.x", "them", FENCED),
    ],
)
def test_each_row_of_the_table(kept: KeptLease, shown: str | None, holder: str, comes_to: Standing) -> None:
    assert standing(kept, shown=shown, holder=holder) is comes_to


tokens = st.one_of(st.none(), st.text(max_size=8), st.builds("{}.{}".format, st.integers(0, 10**18 - 2), st.just("x")))


@given(present=tokens, before=tokens, shown=tokens)
def test_a_new_token_is_later_than_all_that_are_known(
    present: str | None, before: str | None, shown: str | None
) -> None:
    kept = replace(FRESH, token=present, token_before=before)
    new = next_token(kept, shown=shown)
    renewed = replace(kept, token=new, token_before=present, left_seconds=60.0)

    assert standing(renewed, shown=new, holder="us") is SAME
    for old in (present, before, shown):
        assert standing(renewed, shown=old, holder="them") is FENCED


def test_the_one_that_is_refused_is_told_who_is_there_and_what_to_do() -> None:
    assert "on pbx-1), since 2026-03-02 12:00 UTC" in str(fenced(FRESH, "istanbul"))
    assert "`edge-hub sites release istanbul`" in str(fenced(FRESH, "istanbul"))
    assert "on pbx-1), since 2026-03-02 12:00 UTC" in str(held(FRESH, "istanbul"))
    assert held(FRESH, "istanbul").retry_after_seconds == 42.5


@pytest.mark.parametrize(
    ("wished", "given"), [(60, 60), (0, 10), (-1, 10), (1e9, 600), (float("nan"), 600), (float("inf"), 600)]
)
def test_the_time_of_a_lease_is_within_bounds(wished: float, given: float) -> None:
    assert bounded(wished) == given


def test_tokens_stay_out_of_what_is_printed() -> None:
    assert "now" not in repr(FRESH)
    assert "before" not in repr(FRESH)
