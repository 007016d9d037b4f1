"""The daemon: the only place where the parts meet. Opens them in order, runs them in one task group, drains on stop."""

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.api import control
from agent.api.access import Access
from agent.api.listening import Spawn, serving, unix_socket
from agent.api.services import serving_services
from agent.calls.context import CallContext
from agent.calls.masking import Masking
from agent.calls.numbers import NumberPlan
from agent.calls.operations import Operation
from agent.calls.person import Person
from agent.calls.rules import CallRules
from agent.calls.tenancy import assign, facts_of
from agent.calls.wishes import Limits
from agent.coverage.daily import DailyCoverage
from agent.disk import DiskWatch
from agent.errors import (
    AgentError,
    ContextStoreAway,
    SalvageStopped,
    StoreDamaged,
    StoreHeld,
    StoreNewer,
    StoreUnavailable,
)
from agent.health import AgentStatus
from agent.jobs import Jobs
from agent.live.desk import Desk
from agent.live.ended import DeskTimes
from agent.live.feed import UNHURRIED, LiveFeed
from agent.live.home import is_in_process
from agent.live.store import ContextStore
from agent.pbx.asterisk.connector import AsteriskConnector
from agent.pbx.asterisk.interpreter import AsteriskInterpreter
from agent.probe import Probe
from agent.sources.follower import Follower
from agent.sources.opening import PbxSources, follow
from agent.sources.status import SourceStatus
from agent.standby import RawCapture, RawFeed
from agent.store import coverage, services
from agent.store.backfill import BackfillWriter
from agent.store.context_log import ContextLog
from agent.store.coverage import DayCounts
from agent.store.engine import Store, open_store
from agent.store.erasing import Erasing, is_of
from agent.store.filling import Filling, fill
from agent.store.holder import holder_of
from agent.store.journal import Journal
from agent.store.lease import Lease
from agent.store.merge import MergeResult, ToldCall, merging
from agent.store.outbox import SqliteOutbox
from agent.store.outbox_rows import COPIED, ENCODED
from agent.store.quarantine import Chosen
from agent.store.repository import Repository
from agent.store.rescue import rescue_held, told_of_last
from agent.store.reserve import Reserve
from agent.store.retention import Retention
from agent.store.services import Registered
from agent.store.spill import Spill, read_position
from agent.store.tally import SqliteTally
from agent.store.upkeep import Upkeep
from agent.store.writer import FinishedCall, Writer
from agent.tracking.derive import row_so_far
from agent.tracking.rebuild import Rebuild
from agent.tracking.tracker import Tracker
from config.errors import ConfigError
from config.notify import Notifier
from config.settings import AsteriskSettings, LiveSettings, Settings
from sync.backoff import Backoff
from sync.errors import SyncError
from sync.models import Call
from sync.reconciler import USUAL_DAYS, Reconciled, Reconciler
from sync.syncer import Identity, Syncer
from sync.uplink import Uplink

if TYPE_CHECKING:
    from agent.tracing import SpanExporter

log = logging.getLogger(__name__)

PROGRAM = "sentiric-edge-agent"
# systemd gives 20 s; what cannot be sent by then waits in the outbox.
_DRAIN_SECONDS = 4.0
_STOP_SECONDS = 2.0
# A PBX that restarts is back within a second, and what is said meanwhile is not heard.
_FIRST_RETRY_SECONDS = 0.25
_RECONCILE_EVERY = timedelta(hours=24)
_SALVAGE_RETRY_SECONDS = 60.0
_STATUS_SECONDS = 2.0  # how old the line in `systemctl status` may be
_MERGED_AT_ONCE = 100  # calls in one transaction: some 40 ms at worst, while capture waits


def rules_of(settings: Settings) -> dict[str, CallRules]:
    """What the settings say about each PBX's trunks, applications and numbers, by the PBX's name."""
    return {pbx.name: _rules_of(pbx, country=pbx.country or settings.country) for pbx in settings.pbx}


def tenants_by(settings: Settings) -> Callable[[Call], str | None]:
    """What names the tenant of a call that has none, by the tenant rules."""
    rules = rules_of(settings)
    return lambda call: assign(settings.tenancy, facts_of(call, rules.get(call.pbx, CallRules()))).tenant


def interpreters_of(settings: Settings) -> Callable[[str], AsteriskInterpreter]:
    """What makes an interpreter of a PBX's words, by the PBX's name."""
    by_name = {pbx.name: pbx for pbx in settings.pbx}

    def interpreter(name: str) -> AsteriskInterpreter:
        pbx = by_name.get(name)
        return AsteriskInterpreter() if pbx is None else _interpreter_of(pbx, settings)

    return interpreter


def _interpreter_of(pbx: AsteriskSettings, settings: Settings) -> AsteriskInterpreter:
    return AsteriskInterpreter(settings.encoding_of(pbx), trace_variable=pbx.trace_variable)


def number_plans(settings: Settings) -> list[NumberPlan]:
    """How numbers are written at each of the site's PBXes."""
    plans = [rules.numbers for rules in rules_of(settings).values()]
    return plans or [NumberPlan(settings.country)]


def _rules_of(pbx: AsteriskSettings, *, country: str | None) -> CallRules:
    return CallRules(
        trunks=pbx.trunks,
        inbound_contexts=pbx.inbound_contexts,
        answering_applications=pbx.answering_applications,
        voicemail_applications=pbx.voicemail_applications,
        numbers=NumberPlan(country, pbx.outside_line_prefixes),
    )


def _with_rules(pbx: AsteriskSettings, new: AsteriskSettings) -> AsteriskSettings:
    """The settings of a PBX with what `_rules_of` reads from new ones."""
    return pbx.model_copy(
        update={
            "trunks": new.trunks,
            "inbound_contexts": new.inbound_contexts,
            "answering_applications": new.answering_applications,
            "voicemail_applications": new.voicemail_applications,
            "country": new.country,
            "outside_line_prefixes": new.outside_line_prefixes,
        }
    )


def limits_of(live: LiveSettings) -> Limits:
    """The bounds of what services write."""
    return Limits(**{bound.name: getattr(live, bound.name) for bound in fields(Limits)})


def make_uplink(settings: Settings) -> Uplink | None:
    """The way to the centre; None without a [central] section."""
    if settings.central is None:
        return None
    if settings.central.is_hub:
        from sync.hub_client import HubUplink, address_of

        address = address_of(settings.central, credential_file=settings.credential_file)
        return HubUplink(address, lanes=settings.central.batches_under_way)
    from sync.central.uplink import DirectUplink

    return DirectUplink(settings.central, site=settings.site, agent_version=version(PROGRAM))


def make_exporter(settings: Settings) -> "SpanExporter | None":
    """The way to a collector of spans; None without one."""
    if settings.tracing.otlp_endpoint is None:
        return None
    from agent.tracing import SpanExporter

    return SpanExporter(settings.tracing, site=settings.site, version=version(PROGRAM))


def identity_of(settings: Settings) -> Identity:
    """Who speaks for the site, once its database is there."""
    return Identity(
        site=settings.site,
        agent_version=version(PROGRAM),
        holder=holder_of(settings.database_file),
        host=socket.gethostname()[:255],
    )


async def run(settings: Settings, *, reload: Callable[[], Settings], environ: Mapping[str, str] | None = None) -> None:
    """Run the agent until SIGTERM or SIGINT. Raises AgentError when it cannot start; a bug passes through."""
    notifier = Notifier(os.environ if environ is None else environ)
    stop = asyncio.Event()
    while not stop.is_set():
        damage, settings = await _run_ordinarily(settings, reload=reload, notifier=notifier, stop=stop)
        if damage is not None and not stop.is_set():
            await _capture_raw(settings, notifier, stop, why=damage, work=rescue_held)


async def _run_ordinarily(
    settings: Settings, *, reload: Callable[[], Settings], notifier: Notifier, stop: asyncio.Event
) -> tuple[str | None, Settings]:
    """Run over the database until told to stop or it turns out to be damaged; how so, and the settings as they are."""
    try:
        return await _run_over_database(settings, reload=reload, notifier=notifier, stop=stop)
    except StoreNewer as exc:
        await _capture_raw(settings, notifier, stop, why=str(exc), work=None)
        return None, settings
    except (StoreDamaged, ExceptionGroup) as exc:  # before there was anybody to end in good order
        told = _only_damage(exc)
        if told is None:
            raise
        return told, settings


def _only_damage(exc: Exception) -> str | None:
    """What is told of the damage, if it is all that went wrong."""
    while isinstance(exc, ExceptionGroup):
        if exc.split(StoreDamaged)[1] is not None:
            return None
        exc = exc.exceptions[0]
    return str(exc)


async def _run_over_database(
    settings: Settings, *, reload: Callable[[], Settings], notifier: Notifier, stop: asyncio.Event
) -> tuple[str | None, Settings]:
    async with AsyncExitStack() as stack:
        reserve = Reserve(settings.database_file, megabytes=settings.store.reserve_megabytes)
        store = await _opened(stack, settings.database_file, reserve)
        writer = await Writer.over(store.connection)
        spill = await Spill.open(settings.database_file, max_bytes=settings.store.spill_max_megabytes << 20)
        stack.callback(spill.close)
        if not spill.size:
            reserve.make()
            if settings.store.reserve_megabytes and not reserve.size:
                log.warning(
                    "there is no room for a reserve, so a full disk leaves only the memory: free some space, or set "
                    "store.reserve_megabytes lower",
                    extra={"megabytes": settings.store.reserve_megabytes},
                )
        spill.begin_at(*await store.connection.run(read_position))
        contexts = await stack.enter_async_context(ContextStore.open(settings.live))
        daemon = Daemon(
            settings,
            store=store,
            writer=writer,
            operations=await ContextLog.over(store, writer),
            spill=spill,
            reserve=reserve,
            retention=await Retention.over(
                store,
                writer,
                settings=settings.retention,
                journal_settings=settings.store,
                tenancy=settings.tenancy,
                has_centre=settings.central is not None,
            ),
            contexts=contexts,
            reload=reload,
            notifier=notifier,
            stop=stop,
        )
        return await daemon.run(), daemon.settings


async def _capture_raw(
    settings: Settings, notifier: Notifier, stop: asyncio.Event, *, why: str, work: Callable[..., object] | None
) -> None:
    """Capture into the spill while `work` mends the database, or until told to stop."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    database = settings.database_file.absolute()

    def connect(pbx: AsteriskSettings, feed: RawFeed) -> AsteriskConnector:
        backoff = Backoff(initial=_FIRST_RETRY_SECONDS, maximum=pbx.reconnect_max_seconds)
        return AsteriskConnector(pbx, feed=feed, backoff=backoff, encoding=settings.encoding_of(pbx))

    async def mended() -> None:
        if work is None:
            await stop.wait()
            return
        while not stop.is_set():
            try:
                await asyncio.to_thread(work, database, is_stopped=stop.is_set)
            except SalvageStopped as exc:
                log.warning("the agent stops: %s; the next start begins it again", exc)
            except StoreUnavailable as exc:
                log.error("the database cannot be salvaged now; it is tried again: %s", exc)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_SALVAGE_RETRY_SECONDS):
                        await stop.wait()
            else:
                return

    lease = await asyncio.to_thread(Lease.take, database)
    try:
        spill = await Spill.open(database, max_bytes=settings.store.spill_max_megabytes << 20)
        try:
            await RawCapture(settings, spill=spill, why=why, connect=connect, notifier=notifier).run(mended())
        finally:
            spill.close()
    finally:
        lease.leave()


async def _opened(stack: AsyncExitStack, file: Path, reserve: Reserve) -> Store:
    """The database; on a full disk with what the reserve keeps, since even opening takes some room."""
    try:
        return await stack.enter_async_context(open_store(file))
    except StoreHeld:
        raise
    except StoreUnavailable:
        if not reserve.release_if_full():
            raise
    return await stack.enter_async_context(open_store(file))


class Daemon:
    """One running agent; implements `agent.api.control.Control`."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        writer: Writer,
        operations: ContextLog,
        spill: Spill,
        reserve: Reserve,
        retention: Retention,
        contexts: ContextStore,
        reload: Callable[[], Settings],
        notifier: Notifier,
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._reload = reload
        self._notifier = notifier
        self._store = store
        self._writer = writer
        self._retention = retention
        self._is_rebuilding = False
        self._stop = stop
        self._bug: asyncio.Future[None]
        self._repository = Repository(store, writer)
        form = ENCODED if settings.central is not None and settings.central.is_hub else COPIED
        self._outbox = SqliteOutbox(store, writer, site=settings.site, form=form)
        uplink = self._uplink = make_uplink(settings)
        self._syncer = (
            Syncer(self._outbox, uplink, settings.central, identity=identity_of(settings))
            if uplink and settings.central
            else None
        )
        self._masking = Masking(settings.tenancy.privacy)
        self._desk = Desk(
            operations,
            limits=limits_of(settings.live),
            times=DeskTimes(grace=settings.live.grace_seconds, late=settings.live.late_seconds),
            mask=self._mask,
            on_amended=self._syncer.wake if self._syncer else _nothing,
        )
        self._access = Access(settings.api.socket_access)
        self._contexts = contexts
        self._live_feed = LiveFeed(
            contexts,
            site=settings.site,
            pbxes=[pbx.name for pbx in settings.pbx],
            grace_seconds=settings.live.grace_seconds,
            book=self._desk,
            times=UNHURRIED if is_in_process(settings.live) else None,
        )
        self._desk.share_with(self._live_feed)
        self._spans = make_exporter(settings)
        journal = Journal(store, writer)
        self._tracker = Tracker(
            site=settings.site,
            tenancy=settings.tenancy,
            writer=writer,
            journal=journal,
            live=self._desk,
            commit_interval=timedelta(milliseconds=settings.store.commit_interval_ms),
            on_commit=self._syncer.wake if self._syncer else _nothing,
            spill=spill,
            on_ended=self._trace,
        )
        self._disk = DiskWatch(store, reserve=reserve, spilled=lambda: spill.size, settings=settings.store)
        self._backfill = BackfillWriter(store.connection, is_stopped=self._disk.is_backfill_stopped)
        self._rules = rules_of(settings)
        self._connectors = [self._connector(pbx) for pbx in settings.pbx]
        sources = [source for pbx in settings.pbx for source in self._sources(pbx)]
        self._followers = [source for source in sources if isinstance(source, Follower)]
        verified = DailyCoverage([self._sources_of(pbx) for pbx in settings.pbx], store=store, writer=self._backfill)
        self._tally = SqliteTally(store.path, writer)
        self._upkeep = Upkeep(store, site=settings.site, settings=settings.store, directory=settings.backup_directory)
        self._jobs = Jobs(
            retention=retention,
            upkeep=self._upkeep,
            reconcile=self._reconcile_daily,
            verify=verified.verify_due,
        )
        self._probe = Probe(
            settings,
            version=version(PROGRAM),
            tracker=self._tracker,
            lines=[connector.status for connector in self._connectors],
            live_feed=self._live_feed,
            syncer=self._syncer,
            repository=self._repository,
            outbox=self._outbox,
            disk=self._disk,
            tally=self._tally,
            upkeep=self._upkeep,
            sources=[source.status if isinstance(source, Follower) else source for source in sources],
        )

    def _mask(self, tenant: str | None, operation: Operation) -> Operation:
        """By the rules as they are now."""
        return self._masking(tenant, operation)

    def _trace(self, call: FinishedCall) -> None:
        if self._spans is not None:
            self._spans.add(call.row, call.tenant)

    def _connector(self, pbx: AsteriskSettings) -> AsteriskConnector:
        interpreter = _interpreter_of(pbx, self._settings)
        feed = self._tracker.add_pbx(pbx.name, rules=self._rules[pbx.name], interpreter=interpreter)
        return AsteriskConnector(
            pbx,
            feed=feed,
            backoff=Backoff(initial=_FIRST_RETRY_SECONDS, maximum=pbx.reconnect_max_seconds),
            encoding=self._settings.encoding_of(pbx),
        )

    def _sources_of(self, pbx: AsteriskSettings) -> PbxSources:
        return PbxSources(
            site=self._settings.site,
            pbx=pbx,
            encoding=self._settings.encoding_of(pbx),
            rules=lambda: self._rules[pbx.name],
            assign=lambda facts: assign(self._settings.tenancy, facts),
            listed=lambda: self._tracker.listed(pbx.name),
        )

    def _sources(self, pbx: AsteriskSettings) -> Iterator[Follower | SourceStatus]:
        of = self._sources_of(pbx)
        on_found = self._syncer.wake if self._syncer else _nothing
        for source in pbx.sources:
            yield follow(source, of, store=self._store, writer=self._backfill, on_found=on_found)

    @property
    def settings(self) -> Settings:
        """With what was read again since the start."""
        return self._settings

    async def run(self) -> str | None:
        """Restore, then capture, keep and send until told to stop; then drain. What is damaged, if that was the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._bug = loop.create_future()
        loop.set_exception_handler(self._note_bug)
        await self._tracker.take_up()
        await self._desk.restore()
        await self._tracker.restore(interpreter=AsteriskInterpreter)
        loop.add_signal_handler(signal.SIGHUP, self._take_new_settings)
        async with asyncio.TaskGroup() as tasks:

            def spawn(work: Awaitable[None]) -> asyncio.Task[None]:
                return tasks.create_task(_run(work), name="api")

            async with self._answering(spawn):
                tracking = tasks.create_task(self._tracker.run(), name="tracker")
                telling = tasks.create_task(self._live_feed.run(), name="live")
                keeping = tasks.create_task(self._desk.run(), name="desk")
                lines = [tasks.create_task(line.run(), name=f"pbx-{line.status.pbx}") for line in self._connectors]
                others = [
                    tasks.create_task(self._jobs.run(), name="jobs"),
                    tasks.create_task(self._disk.run(self._retention), name="disk"),
                    tasks.create_task(self._bugs(), name="bugs"),
                ]
                others += [
                    tasks.create_task(each.run(), name=f"source-{each.status.pbx}-{each.status.name}")
                    for each in self._followers
                ]
                if not is_in_process(self._settings.live):
                    others.append(tasks.create_task(self._live_feed.listen(), name="live-changes"))
                if self._spans is not None:
                    others.append(tasks.create_task(self._spans.run(), name="spans"))
                if self._syncer is not None:
                    others.append(tasks.create_task(self._syncer.run(), name="syncer"))
                others.append(tasks.create_task(self._tell_systemd(), name="notify"))
                others.append(tasks.create_task(self._give_tenants_back(), name="tenants"))
                # What is loaded stays for good: the collector need not look through it again and again.
                gc.collect()
                gc.freeze()
                log.info("the agent captures", extra={"site": self._settings.site, "pbx": len(lines)})
                await self._until_the_end()
                if self._stop.is_set():
                    self._notifier.stopping("draining")
                    log.info("the agent stops")
                await _cancelled(*lines)
                self._tracker.finish()
                await tracking
                if self._stop.is_set():
                    if self._syncer is not None:
                        await self._syncer.drain(timeout=_DRAIN_SECONDS)
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_STOP_SECONDS):
                            await self._live_feed.in_step()
            # Nobody asks any more: what services wrote until now has been kept and answered.
            await _cancelled(telling, keeping, *others)
        if self._stop.is_set():
            log.info("the agent has stopped")
        return self._store.damage.told

    async def _until_the_end(self) -> None:
        """Until told to stop, or the database turns out to be damaged."""
        ends = [asyncio.ensure_future(event.wait()) for event in (self._stop, self._store.damage.met)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()

    @asynccontextmanager
    async def _answering(self, spawn: Spawn) -> AsyncIterator[None]:
        """Answer on the sockets while the block runs."""
        self._access.use(await self.services())
        to_services = serving_services(
            self._desk,
            self._access,
            limits=limits_of(self._settings.live),
            settings=self._settings.api,
            socket_file=self._settings.services_socket_file,
            spawn=spawn,
        )
        with unix_socket(self._settings.socket_file) as operators:
            async with serving(control.make_app(self), [operators], spawn=spawn), to_services:
                yield

    async def _bugs(self) -> None:
        """End the agent by a bug in a callback, as one in a task would; asyncio alone would log it and go on."""
        await self._bug

    def _note_bug(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        exc = context.get("exception")
        # "handle" names a callback. What transports and forgotten futures tell is the world's, and is logged.
        if "handle" in context and isinstance(exc, Exception) and not self._bug.done():
            self._bug.set_exception(exc)
        else:
            loop.default_exception_handler(context)

    async def _tell_systemd(self) -> None:
        """READY once calls can be kept; then the watchdog, which proves that the loop turns and commits end."""
        self._notifier.ready()
        watched = self._notifier.watchdog_seconds()
        pause = min(watched / 3, _STATUS_SECONDS) if watched else _STATUS_SECONDS
        while True:
            if self._tracker.is_alive():
                self._notifier.watchdog()
            self._notifier.status(self._probe.line())
            await asyncio.sleep(pause)

    def _take_new_settings(self) -> None:
        """SIGHUP: tenant rules and PBX rules are read again; the rest needs a restart, and is told so."""
        self._notifier.reloading()
        try:
            self.reload_rules()
        except ConfigError as exc:
            log.error("the new settings are not used, the old ones stay: %s", exc)
        finally:
            self._notifier.ready()

    def reload_rules(self) -> None:
        """Read the settings again. Raises ConfigError and changes nothing if they are wrong."""
        new = self._reload()
        by_name = {pbx.name: pbx for pbx in new.pbx}
        pbxes = tuple(_with_rules(pbx, by_name.get(pbx.name, pbx)) for pbx in self._settings.pbx)
        self._settings = self._settings.model_copy(
            update={"country": new.country, "tenancy": new.tenancy, "pbx": pbxes}
        )
        self._probe.settings_changed(self._settings)
        self._rules = rules_of(self._settings)
        self._tracker.use_rules(new.tenancy, self._rules)
        self._masking = Masking(new.tenancy.privacy)
        self._retention.use_rules(new.tenancy)
        waiting = [name for name in type(new).model_fields if getattr(new, name) != getattr(self._settings, name)]
        log.info("tenant and trunk rules were read again")
        if waiting:
            log.warning("changed settings that need a restart: %s", ", ".join(waiting))

    # agent.api.control.Control

    async def services(self) -> Sequence[Registered]:
        """Who may use the live context."""
        return await self._store.connection.run(services.read_all)

    async def add_service(self, new: Registered) -> bool:
        """Let a service use the live context."""
        is_new = await self._writer.transact(partial(services.add, new=new))
        self._access.use(await self.services())
        return is_new

    async def remove_service(self, name: str) -> bool:
        """Let it no more."""
        is_gone = await self._writer.transact(partial(services.remove, name=name))
        self._access.use(await self.services())
        return is_gone

    async def status(self) -> AgentStatus:
        """How the agent is."""
        return await self._probe.status()

    def live_contexts(self) -> list[CallContext]:
        """Every live call as services see it."""
        return self._desk.live()

    def sync_now(self) -> bool:
        """Look at the outbox at once."""
        if self._syncer is None:
            return False
        self._syncer.wake_now()
        return True

    async def reassign(self) -> dict[str, Any]:
        """Read the rules again and apply them to unassigned calls."""
        self.reload_rules()
        return await self._reassign()

    async def _reassign(self) -> dict[str, Any]:
        result = await self._repository.reassign(tenants_by(self._settings))
        if self._syncer is not None:
            self._syncer.wake()
        return result.as_dict()

    async def _give_tenants_back(self) -> None:
        """A salvage that could not read a tenant's name left its calls to nobody; the rules name it again."""
        file = self._settings.database_file
        try:
            is_salvaged = await asyncio.to_thread(told_of_last, file, datetime.now(UTC)) is not None
            if is_salvaged and await self._repository.count_unassigned():
                found = await self._reassign()
                log.info("after the salvage, the tenant rules were applied to calls without a tenant", extra=found)
        except StoreUnavailable as exc:
            log.warning("calls without a tenant could not be given back to theirs: %s", exc)

    async def merge(self, calls: Sequence[ToldCall], *, again: bool) -> MergeResult:
        """Keep what another source tells of calls, between the groups that capture commits."""
        result = MergeResult()
        for first in range(0, len(calls), _MERGED_AT_ONCE):
            part = calls[first : first + _MERGED_AT_ONCE]
            result.add(await self._writer.transact(merging(part, now=self._writer.now_text(), again=again)))
        if self._syncer is not None and result.new + result.amended:
            self._syncer.wake()
        return result

    async def fill(self, filling: Filling) -> int:
        """Mark gaps as filled."""
        return await self._writer.transact(partial(fill, filling=filling, now=self._writer.now_text()))

    async def keep_day(self, counts: DayCounts) -> None:
        """Keep what the verification of a day found."""
        await self._writer.transact(partial(coverage.keep, counts=counts))

    async def rebuild(
        self, *, since: datetime, until: datetime | None, dry_run: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Derive stored calls again from the journal by the rules as they are in the settings now."""
        if self._is_rebuilding:
            raise AgentError("calls are being rebuilt already; wait until that has ended")
        self._is_rebuilding = True
        try:
            settings = self._reload() if dry_run else self._reloaded()
            rebuild = Rebuild(
                store=self._store,
                writer=self._writer,
                site=self._settings.site,
                tenancy=settings.tenancy,
                rules=rules_of(settings),
                interpreter=interpreters_of(settings),
                since=since,
                until=until,
                dry_run=dry_run,
            )
            async with aclosing(rebuild.run()) as steps:
                async for progress in steps:
                    if self._syncer is not None and progress.changed and not dry_run:
                        self._syncer.wake()
                    yield progress.as_dict()
        finally:
            self._is_rebuilding = False

    async def erase(
        self, number: str, *, tenant: str | None, by: str, dry_run: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Take a person out of the database, the desk and the live store."""
        emptied: list[str] = []

        def forget(sids: list[str]) -> None:
            emptied.extend(sids)
            self._desk.forget(sids)
            self._live_feed.forget(sids)

        erasing = Erasing(
            Person(number, number_plans(self._settings)),
            store=self._store,
            writer=self._writer,
            tenant=tenant,
            by=by,
            live=self._live_calls_of,
            dry_run=dry_run,
            on_emptied=forget,
        )
        async with aclosing(erasing.run()) as steps:
            async for progress in steps:
                sids, emptied = emptied, []
                away = await self._forget_shared(sids)
                if self._syncer is not None and sids:
                    self._syncer.wake()
                yield progress.as_dict() | ({"live_store": away} if away else {})

    def _live_calls_of(self, person: Person) -> list[str]:
        now = datetime.now(UTC)
        return [call.call_sid for call in self._tracker.live_calls() if is_of(person, row_so_far(call, now))]

    async def _forget_shared(self, sids: Sequence[str]) -> str | None:
        """Why the live store could not be reached; what it holds of ended calls vanishes in their grace time."""
        tenants = [None, *self._settings.tenancy.tenants()]
        try:
            for sid in sids:
                await self._contexts.forget(sid, tenants)
        except ContextStoreAway as exc:
            return str(exc)
        return None

    def _reloaded(self) -> Settings:
        self.reload_rules()
        return self._settings

    async def reconcile(self, first: date, last: date, *, heal: bool) -> AsyncGenerator[dict[str, Any], None]:
        """Compare some days with the centre."""
        if self._uplink is None:
            raise AgentError("the settings have no [central] section, so there is nothing to compare with")
        async with aclosing(Reconciler(self._tally, self._uplink).run(first, last, heal=heal)) as steps:
            async for step in steps:
                if isinstance(step, Reconciled) and self._syncer is not None and step.resent:
                    self._syncer.wake()
                yield step.as_dict()

    async def _reconcile_daily(self) -> None:
        """Once a day, when the centre can be asked."""
        if self._syncer is None or self._syncer.status.last_error is not None:
            return
        now, found = datetime.now(UTC), await self._tally.last()
        if found is not None and now - datetime.fromisoformat(str(found["at"])) < _RECONCILE_EVERY:
            return
        try:
            async with aclosing(
                self.reconcile(now.date() - timedelta(days=USUAL_DAYS - 1), now.date(), heal=True)
            ) as steps:
                async for step in steps:
                    if step.get("differing"):
                        log.warning("calls were not the same at the centre", extra=_counts(step))
        except (AgentError, SyncError) as exc:
            log.warning("site and centre could not be compared: %s", exc)

    async def retry_refused(self, chosen: Chosen) -> int:
        """Send refused calls again."""
        count = await self._outbox.retry(chosen)
        if self._syncer is not None:
            self._syncer.wake_now()
        return count

    async def drop_refused(self, chosen: Chosen, *, by: str) -> int:
        """Give refused calls up."""
        count = await self._outbox.drop(chosen, by=by)
        log.warning("refused calls were given up; they are not sent", extra={"calls": count, "by": by})
        return count


def _counts(step: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    return {name: step[name] for name in ("calls", "missing", "older", "newer", "unknown", "resent")}


def _nothing() -> None:
    return None


async def _run(work: Awaitable[None]) -> None:
    await work


async def _cancelled(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)  # a task group reports what was more than a cancellation
