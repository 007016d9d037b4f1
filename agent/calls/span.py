"""An ended call as a span of OpenTelemetry, in OTLP's JSON. Nothing in it tells of a person."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from agent.calls.traces import span_id, traced_entry
from sync.models import Direction, Disposition

Json = dict[str, Any]  # Any: JSON

_ATTRIBUTES: Final = (
    "site", "pbx", "direction", "status", "disposition", "ring_seconds", "talk_seconds", "hold_seconds",
    "hangup_cause", "hangup_source", "queue", "queue_wait_seconds", "transferred", "source", "start_estimated",
    "end_estimated",
)  # fmt: skip
# A call comes in as a request does, goes out as one, or is within.
_KINDS: Final = {Direction.INBOUND: 2, Direction.OUTBOUND: 3, Direction.INTERNAL: 1}
_ERROR: Final = 2
_FAILED: Final = frozenset({Disposition.FAILED, Disposition.CONGESTION})


def is_sampled(row: Mapping[str, Any]) -> bool:  # Any: as below
    """Whether the call's span is to be sent: what a caller did not sample is left out, as OpenTelemetry does it."""
    traced = traced_entry(row.get("timeline") or ())
    return traced is None or bool(traced["sampled"])


def span_of(row: Mapping[str, Any], tenant: str | None) -> Json:  # Any: the columns' own types
    """The span of a call's columns. The call's name is in it, no number, no name and nothing that was said."""
    traced = traced_entry(row.get("timeline") or ())
    told = {"call_sid": row["call_sid"], "tenant": tenant, **{name: row.get(name) for name in _ATTRIBUTES}}
    started = row["start_time"]
    span: Json = {
        "traceId": row["trace_id"],
        "spanId": span_id(row["call_sid"]),
        **({"parentSpanId": traced["parent"]} if traced is not None else {}),
        "name": f"call {row['direction']}",
        "kind": _KINDS[Direction(row["direction"])],
        "startTimeUnixNano": _nanoseconds(started),
        "endTimeUnixNano": _nanoseconds(row.get("end_time") or started),
        "attributes": _attributes({f"sentiric.call.{name}": value for name, value in told.items()}),
        "events": [
            {"name": name, "timeUnixNano": _nanoseconds(moment)}
            for name, moment in (("picked up", row.get("pbx_answer_time")), ("answered", row.get("answer_time")))
            if moment is not None
        ],
    }
    if row.get("disposition") in _FAILED:
        span["status"] = {"code": _ERROR}
    return span


def request_of(spans: Iterable[Json], *, site: str, version: str) -> Json:
    """The body of an export request."""
    resource = {"service.name": "sentiric-edge-agent", "service.version": version, "service.instance.id": site}
    scope = {"name": "sentiric-edge-agent", "version": version}
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource)},
                "scopeSpans": [{"scope": scope, "spans": list(spans)}],
            }
        ]
    }


def _nanoseconds(moment: datetime) -> str:
    """OTLP's JSON tells 64-bit numbers as text."""
    return str(round(moment.timestamp() * 1_000_000) * 1000)


def _attributes(values: Mapping[str, Any]) -> list[Json]:
    return [{"key": name, "value": _value(value)} for name, value in values.items() if value is not None]


def _value(value: Any) -> Json:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": str(value)}
