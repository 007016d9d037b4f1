"""The hub as an ASGI application: who a request is from, what it may cost, which of the centre's functions it calls.

It keeps nothing between requests but counts and connections, so that any number of hubs may stand beside each other.
"""

import asyncio
import hashlib
import ipaddress
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from importlib.metadata import version as installed_version
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Final

from fastapi import FastAPI, Query, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from sync.errors import SiteRefused, SyncError
from sync.hub import openapi
from sync.hub.answers import json_answer, receipt_members
from sync.hub.batches import BatchReader
from sync.hub.bodies import read_batch, read_message
from sync.hub.faults import install_handlers
from sync.hub.limits import Budget, Limits, Places, Rate, Turns
from sync.hub.messages import TEXT, EnrolmentMessage, GreetingMessage, read
from sync.hub.metrics import CONTENT_TYPE, Metrics
from sync.hub.pool import Pool
from sync.hub.problems import Busy, Forbidden, Invalid, NotAuthorized, Refusal
from sync.hub.watching import Watch
from sync.records import Receipt, Welcome
from sync.wire import PREFIX, CallsAnswer, CredentialAnswer, DaysAnswer, Enrolled, ReceiptAnswer

log = logging.getLogger(__name__)

_MOST_DAYS: Final = 366
_MOST_CALLS: Final = 10_000  # of a page
_MOST_REMEMBERED: Final = 10_000
_READY_SECONDS: Final = 1.0  # an answer is that old at most
_PING_SECONDS: Final = 3.0
_FIRST_DAY, _LAST_DAY = date(1970, 1, 1), date(2999, 12, 31)

Bearer = Annotated[
    HTTPAuthorizationCredentials | None,
    Security(HTTPBearer(auto_error=False, description="The site's credential", bearerFormat="<id>.<secret>")),
]
Day = Annotated[date, Query(description="A UTC day")]
Text = Annotated[str, Query(max_length=255, pattern=TEXT)]
Network = IPv4Network | IPv6Network
LOCAL_NETWORKS: Final[Sequence[Network]] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


@dataclass
class Hub:
    """What requests share."""

    pool: Pool
    limits: Limits = field(default_factory=Limits)
    metrics: Metrics = field(default_factory=Metrics)
    metrics_from: Sequence[Network] = LOCAL_NETWORKS
    is_stopping: bool = False

    def __post_init__(self) -> None:
        limits, metrics = self.limits, self.metrics
        self.budget = Budget(limits)
        self.places = Places(limits.requests_per_site)
        self.turns = Turns()
        self.reader = BatchReader(limits.batch_records)
        self._refusals = Rate(limits.refusals_per_minute)
        self._enrolments = Rate(limits.enrolments_per_minute)
        self._lately_good: OrderedDict[bytes, None] = OrderedDict()
        self._ready: tuple[float, str] | None = None
        self._looking = asyncio.Lock()
        metrics.watch("bytes_in_flight", "Unpacked bytes of batches in memory", lambda: self.budget.used)
        metrics.watch("database_connections_used", "Database connections lent to requests", lambda: self.pool.lent)
        metrics.watch("database_waiting", "Requests that wait for a connection", lambda: self.pool.waiting)

    async def site_of(self, request: Request, bearer: HTTPAuthorizationCredentials | None) -> str:
        """Which site's credential the request bears. Raises Refusals and SiteRefused.

        An address that shows wrong ones again and again is not listened to for a while, except with credentials that
        were good lately: many sites may share one address.
        """
        if bearer is None or not bearer.credentials.isascii() or len(bearer.credentials) > 256:
            raise NotAuthorized("show the site's credential as Authorization: Bearer")
        key = hashlib.sha256(bearer.credentials.encode()).digest()
        address = _address(request)
        if key not in self._lately_good:
            self._refusals.check(address)
        async with self.pool.lend() as database:
            try:
                site = (await database.verify(bearer.credentials)).site
            except SiteRefused:
                self._lately_good.pop(key, None)
                self._refusals.spend(address)
                raise
        self._lately_good[key] = None
        self._lately_good.move_to_end(key)
        if len(self._lately_good) > _MOST_REMEMBERED:
            self._lately_good.popitem(last=False)
        return site

    def count_enrolment(self, request: Request) -> None:
        """Raise RateLimited if one address tries too many codes."""
        self._enrolments.spend(_address(request))

    async def obstacle(self) -> str:
        """Why no batch could be stored now; empty if one could. The database is asked once a second at most."""
        if self.is_stopping:
            return "the hub stops"
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._ready is None or now - self._ready[0] > _READY_SECONDS:
                self._ready = (now, await self._look())
            return self._ready[1]

    async def _look(self) -> str:
        try:
            async with asyncio.timeout(_PING_SECONDS), self.pool.lend() as database:
                await database.ping()
        except TimeoutError:
            return "the database does not answer"
        except SyncError as exc:
            log.debug("not ready", extra={"reason": str(exc)})
            return "the database does not answer" if not isinstance(exc, Refusal) else str(exc)
        return ""

    def may_see_metrics(self, request: Request) -> bool:
        """Whether the request comes from where the operator's Prometheus is."""
        try:
            address = ipaddress.ip_address(_address(request))
        except ValueError:
            return False
        return any(address in network for network in self.metrics_from)


def make_app(hub: Hub) -> FastAPI:
    """The application; docs/hub.md is its contract."""
    app = FastAPI(
        title="Sentiric edge hub",
        version=installed_version("sentiric-edge-agent"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
        responses=openapi.PROBLEMS,
    )
    app.add_middleware(Watch, metrics=hub.metrics, answer_seconds=hub.limits.answer_seconds)
    install_handlers(app)
    _add_sites_endpoints(app, hub)
    _add_reconciliation(app, hub)
    _add_operators_endpoints(app, hub)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # as FastAPI's manual has it
    return app


def _add_sites_endpoints(app: FastAPI, hub: Hub) -> None:
    @app.post(f"{PREFIX}/enrol", response_model=Enrolled, openapi_extra=openapi.body_of(EnrolmentMessage))
    async def enrol(request: Request) -> Response:
        """Give a one-time code, take the site's credential."""
        hub.count_enrolment(request)
        message = read(EnrolmentMessage, await read_message(request, hub.limits))
        async with hub.pool.lend() as database:
            enrolled = await database.enrol(message.code, site=message.site, host=message.host)
        log.info("a site was enrolled", extra={"site": enrolled.site, "host": message.host})
        return json_answer(request, enrolled)

    @app.post(f"{PREFIX}/handshake", response_model=Welcome, openapi_extra=openapi.body_of(GreetingMessage))
    async def handshake(request: Request, bearer: Bearer) -> Response:
        """Take the lease, hear how far the centre has come."""
        site = await hub.site_of(request, bearer)
        with hub.places.taken(site):
            message = read(GreetingMessage, await read_message(request, hub.limits))
            _speaks_for(site, message.site)
            async with hub.turns.of(site), hub.pool.lend() as database:
                welcome = await database.greet(message.greeting())
        return json_answer(request, welcome)

    @app.post(f"{PREFIX}/batches", response_model=ReceiptAnswer, openapi_extra=openapi.BATCH)
    async def batches(request: Request, bearer: Bearer) -> Response:
        """Store calls; each gets its own verdict."""
        site = await hub.site_of(request, bearer)
        with hub.places.taken(site), hub.budget.share(site) as share:
            body = await read_batch(request, hub.limits, share)
            incoming = hub.reader.open(body.data)
            _speaks_for(site, incoming.site)
            batch = await incoming.batch()
            async with hub.turns.of(site), hub.pool.lend() as database:
                with hub.metrics.store_seconds.time():
                    stored = await database.store(batch)
        receipt = incoming.receipt(stored)
        hub.metrics.sent_bytes.inc(body.sent_bytes)
        hub.metrics.unpacked_bytes.observe(len(body.data))
        _count(hub.metrics, receipt)
        return json_answer(request, receipt_members(receipt))

    @app.post(f"{PREFIX}/credential/rotate", response_model=CredentialAnswer)
    async def rotate(request: Request, bearer: Bearer) -> Response:
        """Get a new credential; the old one works until the new one is used."""
        site = await hub.site_of(request, bearer)
        with hub.places.taken(site):
            await read_message(request, hub.limits)
            async with hub.pool.lend() as database:
                credential = await database.rotate(bearer.credentials if bearer else "")
        log.info("a site's credential was renewed", extra={"site": site})
        return json_answer(request, {"credential": credential})


def _add_reconciliation(app: FastAPI, hub: Hub) -> None:
    @app.get(f"{PREFIX}/reconcile/days", response_model=DaysAnswer)
    async def days(request: Request, bearer: Bearer, first: Day, last: Day) -> Response:
        """How many calls of each day the centre holds, and their digest."""
        site = await hub.site_of(request, bearer)
        for name, day in (("first", first), ("last", last)):
            _require_plausible(name, day)
        if not timedelta(0) <= last - first < timedelta(days=_MOST_DAYS):
            raise Invalid(f"last: not between first and {_MOST_DAYS - 1} days later")
        with hub.places.taken(site):
            async with hub.pool.lend() as database:
                found = await database.days(site, first, last)
        return json_answer(request, {"days": found})

    @app.get(f"{PREFIX}/reconcile/calls", response_model=CallsAnswer)
    async def calls(
        request: Request,
        bearer: Bearer,
        *,
        tenant: Text,
        day: Day,
        after: Text = "",
        limit: Annotated[int, Query(ge=1, le=_MOST_CALLS)] = 1000,
    ) -> Response:
        """The calls of a day and their revisions, page by page."""
        site = await hub.site_of(request, bearer)
        _require_plausible("day", day)
        with hub.places.taken(site):
            async with hub.pool.lend() as database:
                found = await database.calls(site, tenant, day, after=after, limit=limit)
        return json_answer(request, {"calls": found})


def _add_operators_endpoints(app: FastAPI, hub: Hub) -> None:
    @app.get("/health")
    async def health(request: Request) -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready(request: Request) -> dict[str, str]:
        """Batches can be stored."""
        if obstacle := await hub.obstacle():
            raise Busy(obstacle, code="not_ready")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, include_in_schema=False)
    async def metrics(request: Request) -> Response:
        """For Prometheus, where the operator allows it."""
        if not hub.may_see_metrics(request):
            raise Forbidden("metrics are not shown to this address", code="forbidden")
        return Response(hub.metrics.text(), media_type=CONTENT_TYPE)


def _speaks_for(site: str, claimed: str) -> None:
    if site != claimed:
        raise Forbidden("the credential is another site's", code="wrong_site")


def _require_plausible(name: str, day: date) -> None:
    if not _FIRST_DAY <= day <= _LAST_DAY:
        raise Invalid(f"{name}: not between {_FIRST_DAY} and {_LAST_DAY}")


def _count(metrics: Metrics, receipt: Receipt) -> None:
    told = Counter((verdict.verdict, verdict.code or "") for verdict in receipt.verdicts)
    for (verdict, code), records in told.items():
        metrics.records.labels(verdict, code).inc(records)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
