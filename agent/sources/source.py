"""What a source is to those who read it, be it a file that grows or a table: the next records, each with its place."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

# What a record says: the bytes of a line, or the texts of a table's row by the names of its columns in lower case.
Content = bytes | Mapping[str, str]


class Place(Protocol):
    """Up to where a source was read; it outlives the reader as JSON."""

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        """The same, for JSON; whatever made it reads it again."""
        ...


class Record(Protocol):
    """One record between two places."""

    @property
    def data(self) -> Content:
        """What it says."""
        ...

    @property
    def at(self) -> Place:
        """Reading from here gives it again."""
        ...

    @property
    def after(self) -> Place:
        """Reading from here gives what follows it."""
        ...

    @property
    def fault(self) -> str | None:
        """Why it is none, if the source itself can tell."""
        ...

    @property
    def raw(self) -> bytes:
        """What stands there, for people."""
        ...

    @property
    def position(self) -> str:
        """Where in the source it stands, for people."""
        ...


class Look(Protocol):
    """What one look at a source gave."""

    @property
    def place(self) -> Place | None:
        """Behind its records; None: the source could never be looked at, and what was kept stays."""
        ...

    @property
    def records(self) -> Sequence[Record]:
        """In the order in which they were written, as far as the source knows it."""
        ...

    @property
    def is_at_end(self) -> bool:
        """Whether all was told that had been written when the look began."""
        ...

    @property
    def trouble(self) -> str | None:
        """Why nothing can be read, a sentence."""
        ...

    @property
    def notes(self) -> Sequence[str]:
        """What may be lost, sentences."""
        ...

    @property
    def rest_seconds(self) -> float:
        """So long the source wants to be left alone."""
        ...


class Source(Protocol):
    """One file or table and the place in it. May be called from any thread; calls never overlap."""

    def read(self) -> Look:
        """The next records; never raises for the world's faults. May take a minute."""
        ...

    def close(self) -> None:
        """Let go of it; waits for a read that is under way."""
        ...


async def looks(
    source: Source, *, poll_seconds: float, pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncGenerator[Look, None]:
    """What comes, for ever; each look happens in a thread, and where there is nothing more it pauses."""
    try:
        while True:
            look = await asyncio.to_thread(source.read)
            yield look
            seconds = look.rest_seconds if look.records else max(poll_seconds, look.rest_seconds)
            if seconds > 0:
                await pause(seconds)
    finally:
        await asyncio.to_thread(source.close)
