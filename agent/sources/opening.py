"""What follows each configured source: by its kind, the reader of its records."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from agent.calls.events import SnapshotTaken
from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment, CallFacts
from agent.sources.cdr_gatherer import CdrGatherer
from agent.sources.cel_gatherer import CelGatherer
from agent.sources.follower import Follower, Opener
from agent.sources.gathering import Gatherer
from agent.sources.mariadb import address_of
from agent.sources.queue_log_gatherer import QueueLogGatherer
from agent.sources.sqlite_table import RowPlace, SqliteTable
from agent.sources.table_layout import TableKind
from agent.sources.tables import WINDOW, Table
from agent.sources.tail import FilePlace, Tail
from agent.store.engine import Store
from agent.store.writer import Writer
from config.settings import PbxSettings, SourceKind, SourceSettings


@dataclass(frozen=True, slots=True)
class PbxSources:
    """What the followers of one PBX's sources need to know of it."""

    site: str
    pbx: PbxSettings
    encoding: str
    rules: Callable[[], CallRules]  # as they are now
    assign: Callable[[CallFacts], Assignment]
    # The channels it told last that it has, None while it is not heard; not asked where sources are read once.
    listed: Callable[[], SnapshotTaken | None] | None = None


def follow(
    source: SourceSettings, of: PbxSources, *, store: Store, writer: Writer, on_found: Callable[[], None]
) -> Follower:
    """The follower of a source."""
    return Follower(
        source,
        pbx=of.pbx.name,
        gatherer=_gatherer(source, of),
        open_source=opener(source, of),
        store=store,
        writer=writer,
        on_found=on_found,
    )


def opener(source: SourceSettings, of: PbxSources) -> Opener:
    """What opens a source at a place, to follow it or to read it once."""
    zone = zone_of(source.time_zone or of.pbx.time_zone)
    match source.kind:
        case SourceKind.CDR_CSV | SourceKind.CEL_CSV:
            return lambda told, _: _tail(source, told, quotes=True)
        case SourceKind.QUEUE_LOG:
            return lambda told, _: _tail(source, told, quotes=False)
        case SourceKind.CDR_MARIADB | SourceKind.CEL_MARIADB:
            kind = TableKind.CEL if source.kind is SourceKind.CEL_MARIADB else TableKind.CDR
            address = address_of(source)
            return lambda told, since: Table(address, kind, told, zone=zone, encoding=of.encoding, since=since - WINDOW)
        case SourceKind.CDR_SQLITE:
            return lambda told, _: SqliteTable(
                _path(source), source.table_name, RowPlace.from_json(told) if told else None, encoding=of.encoding
            )


def _tail(source: SourceSettings, told: dict[str, Any] | None, *, quotes: bool) -> Tail:  # Any: JSON
    """`quotes`: line breaks inside quotes belong to the record."""
    return Tail(_path(source), FilePlace.from_json(told) if told else None, quotes=quotes)


def _path(source: SourceSettings) -> Path:
    assert source.path is not None  # noqa: S101 - the settings say that a file has one
    return source.path


def _gatherer(source: SourceSettings, of: PbxSources) -> Gatherer:
    zone = zone_of(source.time_zone or of.pbx.time_zone)
    match source.kind:
        case SourceKind.CDR_CSV | SourceKind.CDR_MARIADB | SourceKind.CDR_SQLITE:
            return CdrGatherer(
                site=of.site,
                pbx=of.pbx.name,
                rules=of.rules,
                tenant_of=lambda facts: of.assign(facts).tenant,
                zone=zone,
                encoding=of.encoding,
                columns=source.columns or None,
                settle_seconds=source.settle_seconds,
                clock=time.monotonic,
            )
        case SourceKind.CEL_CSV | SourceKind.CEL_MARIADB:
            return CelGatherer(
                site=of.site,
                pbx=of.pbx.name,
                rules=of.rules,
                assign=of.assign,
                zone=zone,
                encoding=of.encoding,
                columns=source.columns or None,
                listed=of.listed,
            )
        case SourceKind.QUEUE_LOG:
            return QueueLogGatherer(
                site=of.site,
                pbx=of.pbx.name,
                rules=of.rules,
                tenant_of=lambda facts: of.assign(facts).tenant,
                encoding=of.encoding,
                settle_seconds=source.settle_seconds,
                clock=time.monotonic,
            )


def zone_of(name: str | None) -> tzinfo:
    """The zone of that name, or this machine's."""
    if name is not None:
        return ZoneInfo(name)
    with suppress(LookupError, ValueError, OSError):
        return ZoneInfo(os.environ["TZ"].removeprefix(":"))
    with suppress(OSError, ValueError), Path("/etc/localtime").open("rb") as local:
        return ZoneInfo.from_file(local, key="localtime")
    return UTC
