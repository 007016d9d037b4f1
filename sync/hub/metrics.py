"""What the hub counts, for Prometheus. No site, tenant or call is named: they are many, and some are secrets."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)


class Metrics:
    """One hub's counters; docs/running-a-hub.md lists them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "edge_hub_requests", "Answers given", ("endpoint", "status", "code"), registry=self.registry
        )
        self.seconds = Histogram(
            "edge_hub_request_seconds",
            "From the headers of a request to the end of its answer",
            ("endpoint",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self.records = Counter("edge_hub_records", "Records by verdict", ("verdict", "code"), registry=self.registry)
        self.sent_bytes = Counter(
            "edge_hub_batch_sent_bytes", "Bytes of batches as they were sent", registry=self.registry
        )
        self.unpacked_bytes = Histogram(
            "edge_hub_batch_bytes", "Bytes of a batch, unpacked", registry=self.registry, buckets=_SIZES
        )
        self.store_seconds = Histogram(
            "edge_hub_store_seconds", "Storing a batch in the database", registry=self.registry, buckets=_SECONDS
        )
        ProcessCollector(namespace="edge_hub", registry=self.registry)

    def watch(self, name: str, text: str, tell: Callable[[], float]) -> None:
        """A value that is asked for when somebody looks."""
        Gauge(f"edge_hub_{name}", text, registry=self.registry).set_function(tell)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
