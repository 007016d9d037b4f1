"""Calls, segments and groups for the store's tests."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.calls.context import TaskState
from agent.store.segment import Frame, Segment
from agent.store.writer import FinishedCall
from sync.models import Direction, Disposition, Status

START = datetime(2026, 11, 22, 9, 0, 0, 123456, tzinfo=UTC)
LATER = START + timedelta(minutes=2)


def sid(number: int) -> str:
    """The call_sid of the call of this number."""
    return f"berlin:main:{1_790_000_000 + number}.{number}"


def row(number: int = 1, **changes: Any) -> dict[str, Any]:  # Any: the columns' own types
    """The columns of an answered inbound call."""
    start = START + timedelta(seconds=number)
    return {
        "call_sid": sid(number),
        "trace_id": f"{number:032x}",
        "site": "berlin",
        "pbx": "main",
        "direction": Direction.INBOUND,
        "caller_id": "+905321234567",
        "caller_name": "Ayşe Yılmaz",
        "callee_id": "2125550100",
        "status": Status.COMPLETED,
        "disposition": Disposition.ANSWERED,
        "start_time": start,
        "answer_time": start + timedelta(seconds=7),
        "end_time": start + timedelta(seconds=95),
        "talk_seconds": 88.0,
        "total_seconds": 95.0,
        "legs": [{"channel": f"PJSIP/{number}", "cause": 16}],
        **changes,
    }


def call(
    number: int = 1,
    *,
    tenant: str | None = "acme",
    tasks: Sequence[TaskState] | None = None,
    interactions: Sequence[Mapping[str, Any]] | None = None,
    **changes: Any,
) -> FinishedCall:
    """The finished call of this number."""
    return FinishedCall(row(number, **changes), tenant, tasks, interactions)


def task(name: str = "route", **state: Any) -> TaskState:
    """A task in a call."""
    return TaskState(task_name=name, state_data=state, start_time=START)


def segment(segment_id: int, *frames: bytes, pbx: str = "main", at: datetime = START) -> Segment:
    """A segment whose frames come a millisecond apart."""
    told = [Frame(number * 1000, data) for number, data in enumerate(frames or (b"Event: Ping\r\n\r\n",))]
    return Segment(segment_id, pbx, "a-boot", 1, at, 5_000_000_000, told)
