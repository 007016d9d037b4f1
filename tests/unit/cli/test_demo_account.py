"""The demonstration's final account."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from agent.cli.demonstration.account import Account, KnownCall

CALLS = (
    KnownCall("demo:main:1", "acme", "inbound", "completed/answered"),
    KnownCall("demo:main:2", "globex", "outbound", "failed/busy"),
)
EQUAL = Account(placed=CALLS, captured=CALLS, central=CALLS[::-1])


def test_equal_sides_are_counted_by_tenant_and_said_to_be_equal() -> None:
    assert EQUAL.is_equal
    lines = list(EQUAL.lines())
    assert lines[0].split() == ["acme", "globex", "total"]
    assert lines[3].split() == ["in", "PostgreSQL", "1", "1", "2"]
    assert lines[-1].startswith("All 2 calls are the same on all three sides")


def test_no_call_at_all_proves_nothing() -> None:
    assert not Account(placed=(), captured=(), central=()).is_equal


@pytest.mark.parametrize(
    ("central", "difference"),
    [
        (CALLS[:1], "1 placed, but not in PostgreSQL: demo:main:2"),
        ((*CALLS, CALLS[0]), "1 doubled in PostgreSQL: demo:main:1"),
        ((*CALLS, CALLS[0]._replace(call_sid="x")), "1 in PostgreSQL, but never placed: x"),
        (
            (CALLS[0]._replace(tenant="globex"), CALLS[1]),
            "1 known differently in PostgreSQL: demo:main:1 "
            "(acme, inbound, completed/answered; there globex, inbound, completed/answered)",
        ),
    ],
)
def test_a_difference_is_said_in_a_sentence(central: Sequence[KnownCall], difference: str) -> None:
    account = replace(EQUAL, central=tuple(central))
    assert not account.is_equal
    assert list(account.differences()) == [difference]
    assert list(account.lines())[-2:] == ["The sides differ:", f"  {difference}"]


def test_a_call_that_never_ended_is_not_passed_over() -> None:
    assert not replace(EQUAL, never_ended=1).is_equal
