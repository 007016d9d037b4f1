"""A site with settings and a real local database, and the command line over it."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from agent.calls.context import TaskState
from agent.cli.main import app
from agent.store.engine import open_store
from agent.store.outbox import SqliteOutbox
from agent.store.writer import FinishedCall, GapOpened, Group, LiveAnchor, Writer
from sync.records import Receipt, RecordReceipt, Verdict

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET = "kırk-yedi-anahtar"
SETTINGS = f"""
site = "istanbul-1"
state_directory = "state"
runtime_directory = "run"

[[pbx]]
name = "main"
username = "sentiric"
secret = "{SECRET}"

[[tenancy.rules]]
tenant = "acme"
did_prefix = "90212555"

[[tenancy.rules]]
tenant = "globex"
extension_range = [200, 299]

[central]
url = "postgresql://edge@central.example:5432/sentiric"
password = "{SECRET}-2"
"""


class LocalSite:
    """Settings in a directory of a test's own."""

    def __init__(self, directory: Path, settings: str = SETTINGS) -> None:
        self.directory = directory
        self.file = directory / "agent.toml"
        self.write(settings)

    def write(self, settings: str) -> None:
        """Other settings."""
        self.file.write_text(settings, encoding="utf-8")
        self.file.chmod(0o600)

    @property
    def database(self) -> Path:
        return self.directory / "state" / "edge.db"

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> Result:
        """`edge-agent` with these arguments; bugs pass through."""
        environ = {"SENTIRIC_EDGE_CONFIG": str(self.file), **(env or {})}
        return CliRunner().invoke(app, list(arguments), env=environ, catch_exceptions=False)

    def json(self, *arguments: str) -> Any:  # Any: JSON
        """What a command that ends well writes with --json."""
        result = self.run(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def keep(self, *calls: FinishedCall, group: Group | None = None) -> None:
        """Put calls into the database, as the tracker does."""

        async def work() -> None:
            async with open_store(self.database) as store:
                await (await Writer.over(store.connection)).commit(group or Group(finished=calls))

        asyncio.run(work())

    def settle(self, *verdicts: RecordReceipt) -> None:
        """Have the centre answer."""

        async def work() -> None:
            async with open_store(self.database) as store:
                outbox = SqliteOutbox(store, await Writer.over(store.connection), site="istanbul-1")
                await outbox.settle(Receipt(verdicts))

        asyncio.run(work())


def call(
    number: int,
    *,
    tenant: str | None = "acme",
    tasks: Sequence[TaskState] | None = None,
    interactions: Sequence[Mapping[str, Any]] | None = None,
    **changes: Any,  # Any: columns of a call
) -> FinishedCall:
    """The call `number` of the day: a minute after the one before, unless told otherwise."""
    start: datetime = changes.pop("start_time", NOON + timedelta(minutes=number))
    row = {
        "call_sid": sid(number),
        "trace_id": f"{number:032x}",
        "site": "istanbul-1",
        "pbx": "main",
        "direction": "inbound",
        "caller_id": f"90532000{number:04}",
        "caller_name": "Ayşe Yılmaz",
        "callee_id": "902125551001",
        "answered_by": "101",
        "status": "completed",
        "disposition": "answered",
        "start_time": start,
        "answer_time": start + timedelta(seconds=5),
        "end_time": start + timedelta(seconds=70),
        "ring_seconds": 5.0,
        "talk_seconds": 65.0,
        "total_seconds": 70.0,
        "hangup_cause": 16,
        "hangup_source": "caller",
        "source": "ami",
    }
    return FinishedCall(row | changes, tenant, tasks=tasks, interactions=interactions)


def sid(number: int) -> str:
    """The id of the call `number`."""
    return f"istanbul-1:main:17638128{number:02}.{number}"


def refused(number: int, *, code: str = "22P05", reason: str = "untranslatable character") -> RecordReceipt:
    """The centre's refusal of the call `number`."""
    return RecordReceipt(sid(number), 1, Verdict.REJECTED, code, reason)


def gap(minutes: int = 0) -> Group:
    """The PBX is not heard since then."""
    return Group(gaps=[GapOpened("main", NOON + timedelta(minutes=minutes), "line_lost")])


def anchor(number: int) -> LiveAnchor:
    """A call that was live when the agent stopped."""
    return LiveAnchor(sid(number), "main", 1, NOON)
