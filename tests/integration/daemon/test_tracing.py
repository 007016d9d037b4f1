"""Spans of ended calls as a collector receives them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent import tracing
from agent.calls.traces import span_id
from agent.tracing import SpanExporter
from config.settings import TracingSettings
from sync.backoff import Backoff
from sync.models import Disposition
from tests.integration.store.facts import START, row, sid


class Collector:
    """Takes export requests over HTTP; answers as it is told, then 200."""

    def __init__(self) -> None:
        self.requests: list[Any] = []  # Any: JSON
        self.answers: list[int] = []
        self.port = 0
        self.news = asyncio.Event()

    async def spans(self, count: int) -> list[Any]:  # Any: JSON
        """So many spans that were taken."""
        async with asyncio.timeout(10):
            while len(found := [span for told in self.requests for span in spans_of(told)]) < count:
                self.news.clear()
                await self.news.wait()
        return found

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                assert head.startswith("POST /v1/traces HTTP/1.1")
                assert "content-type: application/json" in head.lower()
                length = int(head.lower().partition("content-length: ")[2].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                status = self.answers.pop(0) if self.answers else 200
                if status == 200:
                    self.requests.append(body)
                writer.write(f"HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
                await writer.drain()
                self.news.set()
        except asyncio.IncompleteReadError:
            pass  # the client has closed
        finally:
            writer.close()


def spans_of(told: Any) -> list[Any]:
    assert told["resourceSpans"][0]["resource"]["attributes"][0]["key"] == "service.name"
    return list(told["resourceSpans"][0]["scopeSpans"][0]["spans"])


@asynccontextmanager
async def exporting(collector: Collector) -> AsyncIterator[SpanExporter]:
    server = await asyncio.start_server(collector.serve, "127.0.0.1", 0)
    collector.port = server.sockets[0].getsockname()[1]
    settings = TracingSettings(otlp_endpoint=f"http://127.0.0.1:{collector.port}")
    exporter = SpanExporter(settings, site="berlin", version="1", collect_seconds=0)
    async with server:
        task = asyncio.create_task(exporter.run())
        try:
            yield exporter
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_an_ended_call_is_a_span_without_personal_data() -> None:
    collector = Collector()
    async with exporting(collector) as exporter:
        exporter.add(row(1), "acme")
        (span,) = await collector.spans(1)

    assert (span["traceId"], span["spanId"], span["kind"]) == (f"{1:032x}", span_id(sid(1)), 2)
    assert int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) == 95 * 10**9
    assert int(span["startTimeUnixNano"]) // 1000 == round(row(1)["start_time"].timestamp() * 10**6)
    assert [each["name"] for each in span["events"]] == ["answered"]
    values = {each["key"]: each["value"] for each in span["attributes"]}
    assert values["sentiric.call.tenant"] == {"stringValue": "acme"}
    assert values["sentiric.call.talk_seconds"] == {"doubleValue": 88.0}
    assert "status" not in span
    text = json.dumps(span, ensure_ascii=False)
    assert not any(private in text for private in ("5321234567", "Ayşe", "2125550100"))


async def test_a_call_that_failed_is_a_span_with_an_error() -> None:
    collector = Collector()
    async with exporting(collector) as exporter:
        exporter.add(row(1, disposition=Disposition.CONGESTION, answer_time=None, end_time=START), None)
        (span,) = await collector.spans(1)
    assert (span["status"], span["events"]) == ({"code": 2}, [])


async def test_a_call_that_came_with_a_trace_is_a_child_in_it_unless_it_is_not_sampled() -> None:
    def traced(number: int, *, sampled: bool) -> Any:  # Any: columns
        entry = {"at": START.isoformat(), "event": "traced", "parent": "b7ad6b7169203331", "sampled": sampled}
        return row(number, trace_id="0af7651916cd43dd8448eb211c80319c", timeline=[entry])

    collector = Collector()
    async with exporting(collector) as exporter:
        exporter.add(traced(1, sampled=False), "acme")
        exporter.add(traced(2, sampled=True), "acme")
        (span,) = await collector.spans(1)
    assert (span["traceId"], span["parentSpanId"]) == ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    assert (span["spanId"], exporter.dropped) == (span_id(sid(2)), 0)


async def test_what_a_busy_collector_does_not_take_is_sent_again_and_what_it_refuses_is_dropped() -> None:
    collector = Collector()
    collector.answers = [503, 400]
    async with exporting(collector) as exporter:
        exporter._backoff = Backoff(maximum=0.01)
        exporter.add(row(1), "acme")
        while exporter.dropped == 0:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.002)
        exporter.add(row(2), "acme")
        spans = await collector.spans(1)
    assert [span["spanId"] for span in spans] == [span_id(sid(2))]
    assert exporter.dropped == 1


async def test_while_the_collector_is_away_the_latest_spans_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "MAX_WAITING", 3)
    exporter = SpanExporter(TracingSettings(otlp_endpoint="http://127.0.0.1:9"), site="berlin", version="1")
    for number in range(5):
        exporter.add(row(number), None)
    assert exporter.dropped == 2
    assert [span["spanId"] for span in exporter._waiting] == [span_id(sid(number)) for number in (2, 3, 4)]
