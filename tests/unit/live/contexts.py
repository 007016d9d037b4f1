"""Contexts for tests, and stores inside the process."""

from datetime import UTC, datetime, timedelta
from typing import Any

from fakeredis import FakeAsyncRedis, FakeServer

from agent.calls.context import CallContext, CallState, Participant, TaskState
from agent.calls.traces import traceparent
from agent.live.feed import FactsOnly
from agent.live.store import ContextStore
from agent.live.weaving import Woven

_TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
START = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)


def facts(number: int = 1, *, tenant: str | None = "acme", seconds: float = 0, **changes: Any) -> CallContext:
    """What the tracker tells of a call so many seconds after its start."""
    values: dict[str, Any] = {
        "call_sid": f"istanbul-1:main:{number}",
        "trace_id": _TRACE_ID,
        "traceparent": traceparent(f"istanbul-1:main:{number}", _TRACE_ID, sampled=True),
        "tenant_id": tenant,
        "site": "istanbul-1",
        "pbx": "main",
        "direction": "inbound",
        "caller_id": "+902121234567",
        "caller_name": "Ayşe Yılmaz",
        "callee_id": "100",
        "participants": [Participant(channel="PJSIP/trunk-1", role="caller", state="up")],
        "call_start_time": START + timedelta(seconds=number),
        "last_interaction_time": START + timedelta(seconds=number + seconds),
    }
    return CallContext.model_validate(values | changes)


def with_task(context: CallContext, name: str) -> CallContext:
    """As a service pushes a task."""
    task = TaskState(task_name=name, start_time=START)
    return context.model_copy(update={"task_stack": [*context.task_stack, task]})


def with_interaction(context: CallContext, **interaction: Any) -> CallContext:
    """As a service notes what was said."""
    return context.model_copy(update={"interaction_history": [*context.interaction_history, interaction]})


class Finals(FactsOnly):
    """Collects the last contexts of calls."""

    def __init__(self, finals: list[CallContext]) -> None:
        self._finals = finals

    def carried(self, result: Woven) -> None:
        if result.context.state is CallState.ENDED:
            self._finals.append(result.context)

    def found_last(self, context: CallContext) -> None:
        self._finals.append(context)


def store_on(server: FakeServer) -> ContextStore:
    """A store in this process whose server the test holds, and can disconnect."""
    return ContextStore(FakeAsyncRedis(server=server, socket_timeout=None), home="memory://", timeout_seconds=5)
