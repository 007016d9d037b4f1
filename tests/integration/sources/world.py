"""A database, a clock on which nothing takes time but pauses, and a follower in between that may die at any of them."""

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.calls.rules import CallRules
from agent.calls.tenancy import Assignment
from agent.sources.cdr_gatherer import CdrGatherer
from agent.sources.cel_gatherer import CelGatherer
from agent.sources.follower import Follower
from agent.sources.gathering import Gatherer
from agent.sources.source import Source
from agent.sources.tail import FilePlace, Tail
from agent.store.engine import Store
from agent.store.writer import FinishedCall, GapClosed, GapOpened, Group, Writer
from config.settings import SourceKind, SourceSettings

NINE = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SETTLE = 5.0


class Enough(Exception):
    """The test has seen what it waited for."""


@dataclass
class World:
    """A source, a database and a clock on which nothing takes time but pauses."""

    file: Path
    store: Store
    writer: Writer
    seconds: float = 0.0
    kind: SourceKind = SourceKind.CDR_CSV
    history_days: int = 0
    rules: CallRules = field(default_factory=CallRules)
    steps: list[Callable[[], object]] = field(default_factory=list)
    follower: Follower | None = None

    def now(self) -> datetime:
        return NINE + 10 * MINUTE + timedelta(seconds=self.seconds)

    async def run(self, until: Callable[[], bool] = lambda: False, *, pauses: int = 30) -> Follower:
        """A follower's life, until the condition holds or for so many pauses; it ends without any goodbye."""
        left = pauses

        async def pause(seconds: float) -> None:
            nonlocal left
            self.seconds += 1.0
            left -= 1
            if until() or left < 0:
                raise Enough
            if self.steps:
                self.steps.pop(0)()

        self.follower = self._follower(pause)
        with pytest.raises(Enough):
            await self.follower.run()
        return self.follower

    def settings(self) -> SourceSettings:
        return SourceSettings(kind=self.kind, path=self.file, settle_seconds=SETTLE, history_days=self.history_days)

    def _follower(self, pause: Callable[[float], Awaitable[None]]) -> Follower:
        return Follower(
            self.settings(),
            pbx="main",
            gatherer=self._gatherer(),
            open_source=self.opened,
            store=self.store,
            writer=self.writer,
            on_found=lambda: None,
            now=self.now,
            monotonic=lambda: self.seconds,
            pause=pause,
        )

    def opened(self, told: dict[str, Any] | None, since: datetime) -> Source:  # Any: JSON
        place = FilePlace.from_json(told) if told is not None else None
        return Tail(self.file, place, quotes=True, monotonic=lambda: self.seconds)

    def _gatherer(self) -> Gatherer:
        if self.kind in {SourceKind.CEL_CSV, SourceKind.CEL_MARIADB}:
            return CelGatherer(
                site="s", pbx="main", rules=lambda: self.rules, assign=lambda _: Assignment("acme"), zone=UTC,
                encoding="cp1254", columns=None,
            )  # fmt: skip
        return CdrGatherer(
            site="s", pbx="main", rules=lambda: self.rules, tenant_of=lambda _: "acme", zone=UTC, encoding="cp1254",
            columns=None, settle_seconds=SETTLE, clock=lambda: self.seconds,
        )  # fmt: skip

    def append(self, *lines: str) -> None:
        with self.file.open("a", encoding="utf-8") as file:
            file.writelines(lines)

    async def rows(self, query: str) -> list[Any]:  # Any: rows
        def read(connection: sqlite3.Connection) -> list[Any]:  # Any: rows
            return connection.execute(query).fetchall()

        return await self.store.reader.run(read)

    async def calls(self) -> list[tuple[str, str, int]]:
        """Id, source and revision."""
        return await self.rows("SELECT substr(call_sid, 19), source, revision FROM call ORDER BY id")

    async def blind(self, begin: datetime, end: datetime | None) -> None:
        gaps: list[GapOpened | GapClosed] = [GapOpened("main", begin, "agent_down")]
        await self.writer.commit(Group(gaps=[*gaps, *([GapClosed("main", end)] if end else [])]))


def heard(number: int, **changes: Any) -> FinishedCall:  # Any: columns
    """The call of `cdr(number)` as the live feed told it."""
    start = NINE + number * MINUTE
    row = {
        "call_sid": f"s:main:1795340000.{number}", "trace_id": "t", "site": "s", "pbx": "main",
        "direction": "internal", "caller_id": "101", "caller_name": "Ayşe", "callee_id": "102",
        "caller_presentation": "allowed", "answered_by": "102", "status": "completed", "disposition": "answered",
        "start_time": start, "answer_time": start + timedelta(seconds=1), "end_time": start + timedelta(seconds=10),
        "total_seconds": 10.0, "source": "ami", "legs": [], "timeline": [], **changes,
    }  # fmt: skip
    return FinishedCall(row, "acme")
