"""What the desk needs of others: where operations are kept, and where contexts are carried to."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol

from agent.calls.context import CallContext
from agent.calls.operations import Found, Logged
from agent.calls.tenancy import Sees, sees_all


class OperationLog(Protocol):
    """Where operations are kept. Every method raises StoreUnavailable when the database cannot be used."""

    def next_number(self) -> int:
        """A number for an operation to come; numbers grow and are never given twice."""
        ...

    async def keep(self, operations: Sequence[Logged]) -> None:
        """Make them durable, all or none."""
        ...

    async def of_live_calls(self) -> list[Logged]:
        """The operations on calls that were live when the agent stopped, in order."""
        ...

    async def find(self, call_sid: str, sees: Sees = sees_all) -> Found | None:
        """What is known of a call that has ended; None if there is no such call, or `sees` says no to its tenant's
        name (None: it has none)."""
        ...

    async def move(self, call_sid: str, into: str) -> None:
        """What was written for a call that turned out to be none belongs to another."""
        ...

    async def amend(self, context: CallContext) -> bool:
        """Write what services noted into the ended call's row; whether it changed and waits to be sent."""
        ...

    async def unfinished(self) -> list[str]:
        """Ended calls of which operations are kept."""
        ...

    async def expire(self, before: datetime, *, but: Iterable[str]) -> int:
        """Delete the operations of ended calls to which nothing was written since then, but for these calls'; of how
        many calls."""
        ...


class Shared(Protocol):
    """Where contexts are carried to, for programs that read and write them there; never waits, never fails."""

    def mark(self, context: CallContext) -> None:
        """A live call's context is now so."""
        ...

    def ended(self, context: CallContext) -> None:
        """A call is over; this is its context."""
        ...

    def changed_late(self, context: CallContext) -> None:
        """The context of a call that is over is now so."""
        ...

    def settled(self, pbx: str) -> None:
        """All live calls of this PBX are marked."""
        ...
