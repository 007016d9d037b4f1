"""One attempt to read a context and write what comes of it, without anybody writing in between."""

from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline


class Exchange(Protocol):
    """First reads, then `begin`, then writes that are made together or not at all."""

    async def get(self, key: str) -> bytes | str | None:
        """A value that must still be the same when the writes are made."""
        ...

    async def hget(self, key: str, field: str) -> bytes | str | None:
        """A hash's value; asked after `get`."""
        ...

    def begin(self) -> Pipeline:
        """Where the writes are collected; its `execute` makes them, or raises WatchError if others were faster."""
        ...


class Watched:
    """For a store that others write to as well: the server watches what was read."""

    def __init__(self, pipe: Pipeline) -> None:
        self._pipe = pipe

    async def get(self, key: str) -> bytes | str | None:
        """Watch, then read."""
        await self._pipe.watch(key)
        return await self._pipe.get(key)

    async def hget(self, key: str, field: str) -> bytes | str | None:
        """Read at once, since something is watched."""
        return await self._pipe.hget(key, field)

    def begin(self) -> Pipeline:
        """From here on commands wait for `execute`."""
        self._pipe.multi()  # type: ignore[no-untyped-call]  # the library's own
        return self._pipe


class Alone:
    """For a store inside this process whose users take turns: half the commands, and half the cost."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def get(self, key: str) -> bytes | str | None:
        """Just read."""
        return await self._client.get(key)

    async def hget(self, key: str, field: str) -> bytes | str | None:
        """Just read."""
        return await self._client.hget(key, field)

    def begin(self) -> Pipeline:
        """Sent, and so carried out, as one."""
        return self._client.pipeline(transaction=False)
