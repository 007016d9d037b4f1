"""Contexts of live calls in a store that services share: every write compares and sets, so no change is lost."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Iterable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self, TypeVar

from redis.exceptions import RedisError, ResponseError, WatchError

from agent.calls.context import CallContext, CallState
from agent.errors import ContextStoreAway
from agent.live.codec import announced, announcement, from_json, to_json
from agent.live.exchange import Alone, Exchange, Watched
from agent.live.home import MAX_CONNECTIONS, is_in_process, open_home, trouble
from agent.live.keys import (
    ALL_CHANNELS,
    aside_key,
    call_key,
    changes_channel,
    live_key,
    presence_key,
    segment,
    site_key,
)
from agent.live.weaving import Woven, of_facts
from config.settings import LiveSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline, PubSub

logger = logging.getLogger(__name__)

# How long a value that is no context can be looked at.
ASIDE_SECONDS: Final = 24 * 3600
# How many contexts one command fetches; more would keep the store from others.
FETCH_MANY: Final = 200
# What the change channel says of a call that was given to another tenant.
MOVED: Final = "moved"

# How long to wait for an announcement before the line is tried.
_LISTEN_SECONDS: Final = 5.0

T = TypeVar("T")
# What is to be written of the first where the second stands; asked again when others write in between.
Weave = Callable[[CallContext, CallContext | None], Woven]


class ContextStore:
    """Reads and writes contexts. Any method raises `ContextStoreAway` when the store cannot be used.

    The agent uses `put`, `end`, `rewrite` and `clear_stale`; whoever works for services past the agent uses `get`,
    `list_live` and `update`. A write of one never undoes a write of the other.
    """

    def __init__(self, client: "Redis", *, home: str, timeout_seconds: float, is_alone: bool = False) -> None:
        """`is_alone`: nobody reaches this home but through this very store."""
        self.home: Final = home
        self._client = client
        self._timeout_seconds = timeout_seconds
        self._is_alone = is_alone
        # Alone, taking turns is what keeps writes apart. Else more at once would only get into each other's way.
        self._turns = asyncio.Semaphore(1 if is_alone else MAX_CONNECTIONS)
        self._last: dict[str, tuple[bytes, CallContext]] = {}  # by key, what this store wrote: not to be parsed again

    @classmethod
    def open(cls, settings: LiveSettings) -> Self:
        """The store that the settings name; whether it can be reached shows with the first use."""
        return cls(
            open_home(settings),
            home=settings.url,
            timeout_seconds=settings.timeout_seconds,
            is_alone=is_in_process(settings),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; contexts stay where they are."""
        async with self._reaching():
            await self._client.aclose()
            await self._client.connection_pool.disconnect()

    async def put(self, mine: CallContext, weave: Weave) -> Woven:
        """Write what `weave` makes of what is stored for a live call, and return what then stands in the store.

        If the call's tenant has changed, the context moves to the new one's key and the old key is gone. A context that
        had ended is alive again.
        """
        return await self._transact(lambda exchange: self._place(exchange, mine, weave, grace_seconds=None))

    async def put_facts(self, facts: CallContext) -> CallContext:
        """The same with what the tracker knows of a call; what services wrote stays."""
        return (await self.put(facts, of_facts)).context

    async def end(self, mine: CallContext, grace_seconds: int, weave: Weave = of_facts) -> Woven:
        """Mark the call as ended and return its last context with all that services wrote.

        It is no longer listed as live, can be read and updated for the grace time, and then vanishes.
        """
        ended = mine.model_copy(update={"state": CallState.ENDED})
        return await self._transact(lambda exchange: self._place(exchange, ended, weave, grace_seconds=grace_seconds))

    async def rewrite(self, mine: CallContext, weave: Weave) -> Woven | None:
        """Write what `weave` makes of an ended call's context, as long as it is there; None if it is gone."""
        return await self._transact(lambda exchange: self._rewrite(exchange, mine, weave))

    async def forget(self, call_sid: str, tenants: Iterable[str | None]) -> None:
        """Take away the context of a call that is over, whichever of these it belonged to."""
        keys = [call_key(segment(tenant), call_sid) for tenant in tenants]
        for key in keys:
            self._last.pop(key, None)
        async with self._reaching():
            await self._client.delete(*keys, *map(aside_key, keys))

    async def changes(self, ready: Callable[[], None]) -> AsyncGenerator[tuple[str, int], None]:
        """The call_sid and revision of every change from now on, whoever makes it; `ready` when it is heard."""
        async with self._reaching():
            pubsub = self._client.pubsub(ignore_subscribe_messages=True)
            await pubsub.psubscribe(ALL_CHANNELS)
        try:
            ready()
            while True:
                message = await self._heard(pubsub)
                if message is not None and (change := announced(message["data"])) is not None:
                    yield change
        finally:
            with suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # the library's own

    async def update(
        self, tenant: str | None, call_sid: str, change: Callable[[CallContext], CallContext]
    ) -> CallContext | None:
        """Write `change` of the present context and return it; None if there is no such call.

        `change` may be asked several times, when others write in between. Whose call it is cannot be changed.
        """
        return await self._transact(lambda exchange: self._change(exchange, segment(tenant), call_sid, change))

    async def get(self, tenant: str | None, call_sid: str) -> CallContext | None:
        """The context of a live or just ended call."""
        return next(iter(await self._fetch([(segment(tenant), call_sid)])), None)

    async def list_live(self, tenant: str | None) -> list[CallContext]:
        """The contexts of a tenant's live calls, the oldest first; None for the calls that no tenant has yet."""
        owner = segment(tenant)
        async with self._reaching():
            members = await self._client.smembers(live_key(owner))
        return await self._fetch((owner, _text(sid)) for sid in members)

    async def list_site(self, site: str) -> list[CallContext]:
        """The contexts of a site's live calls, whosever they are, the oldest first."""
        async with self._reaching():
            owners = await self._client.hgetall(site_key(site))
        return await self._fetch((_text(owner), _text(sid)) for sid, owner in owners.items())

    async def clear_stale(
        self, site: str, *, known: Collection[str], undecided: Collection[str], grace_seconds: int
    ) -> list[CallContext]:
        """End every context of this site whose call is not among `known`, and return these last contexts.

        Left alone are the calls of PBXes in `undecided`: those that have not yet told which calls are live.
        """
        async with self._reaching():
            owners = await self._client.hgetall(site_key(site))
        cleared = []
        for sid, owner in ((_text(sid), _text(owner)) for sid, owner in owners.items()):
            if sid in known or any(sid.startswith(f"{site}:{pbx}:") for pbx in undecided):
                continue
            context = await self._transact(
                lambda exchange, sid=sid, owner=owner: self._clear(  # type: ignore[misc]  # bound for each round
                    exchange, site, owner, sid, grace_seconds
                )
            )
            if context is not None:
                cleared.append(context)
        return cleared

    async def sign(self, site: str) -> None:
        """Leave the mark that `remembers` looks for."""
        async with self._reaching():
            await self._client.set(presence_key(site), b"1")

    async def remembers(self, site: str) -> bool:
        """Whether the store still has what was written since `sign`; False after a flush or an empty restart."""
        async with self._reaching():
            return bool(await self._client.exists(presence_key(site)))

    # Each of these is one attempt.

    async def _heard(self, pubsub: "PubSub") -> dict[str, Any] | None:  # Any: the library's own
        try:
            message: dict[str, Any] | None = await pubsub.get_message(timeout=_LISTEN_SECONDS)
            if message is None:
                await pubsub.ping()
        except (RedisError, OSError) as exc:
            raise ContextStoreAway(f"the live store {self.home} {trouble(exc)}") from exc
        return message

    async def _place(self, exchange: Exchange, mine: CallContext, weave: Weave, *, grace_seconds: int | None) -> Woven:
        sid, owner = mine.call_sid, segment(mine.tenant_id)
        key, former = call_key(owner, sid), None
        stored = await self._read(exchange, key, sid)
        if stored is None:
            former = await self._former_owner(exchange, mine.site, sid, owner)
            if former is not None:
                stored = await self._read(exchange, call_key(former, sid), sid)
        woven = weave(mine, stored)
        context = woven.context
        if not woven.is_new and former is None and grace_seconds is None:
            return woven
        content = to_json(context)
        writes = exchange.begin()
        if former is not None:
            writes.delete(call_key(former, sid))
            writes.srem(live_key(former), sid)
            writes.publish(changes_channel(former), announcement(context, MOVED))
        if grace_seconds is not None:
            _bury(writes, context, owner, grace_seconds)
        else:
            writes.set(key, content)
            if stored is None or former is not None or stored.state is CallState.ENDED:
                writes.sadd(live_key(owner), sid)
                writes.hset(site_key(mine.site), sid, owner)
        writes.publish(changes_channel(owner), announcement(context, context.state))
        await writes.execute()
        if former is not None:
            self._last.pop(call_key(former, sid), None)
        if grace_seconds is None:
            self._last[key] = (content, context)
        else:
            self._last.pop(key, None)
        return woven

    async def _rewrite(self, exchange: Exchange, mine: CallContext, weave: Weave) -> Woven | None:
        sid, owner = mine.call_sid, segment(mine.tenant_id)
        key = call_key(owner, sid)
        stored = await self._read(exchange, key, sid)
        if stored is None or stored.state is not CallState.ENDED:
            return None
        woven = weave(mine, stored)
        if woven.is_new:
            writes = exchange.begin()
            writes.set(key, to_json(woven.context), keepttl=True)
            writes.publish(changes_channel(owner), announcement(woven.context, woven.context.state))
            await writes.execute()
        return woven

    async def _former_owner(self, exchange: Exchange, site: str, sid: str, owner: str) -> str | None:
        """Who had the call until now, if it was somebody else."""
        entry = await exchange.hget(site_key(site), sid)
        former = _text(entry) if entry is not None else owner
        return former if former != owner else None

    async def _change(
        self, exchange: Exchange, owner: str, sid: str, change: Callable[[CallContext], CallContext]
    ) -> CallContext | None:
        key = call_key(owner, sid)
        stored = await self._read(exchange, key, sid)
        if stored is None:
            return None
        fixed = {"call_sid": sid, "tenant_id": stored.tenant_id, "revision": stored.revision + 1}
        content = to_json(change(stored).model_copy(update=fixed))
        # Nothing is stored that could not be read again; `change` may have put anything anywhere.
        context = CallContext.model_validate_json(content)
        writes = exchange.begin()
        writes.set(key, content, keepttl=True)
        writes.publish(changes_channel(owner), announcement(context, context.state))
        await writes.execute()
        return context

    async def _look(self, exchange: Exchange, owner: str, sid: str) -> CallContext | None:
        key = call_key(owner, sid)
        return await self._read(exchange, key, sid)

    async def _clear(
        self, exchange: Exchange, site: str, owner: str, sid: str, grace_seconds: int
    ) -> CallContext | None:
        key = call_key(owner, sid)
        stored = await self._read(exchange, key, sid)
        writes = exchange.begin()
        if stored is None:
            writes.srem(live_key(owner), sid)
            writes.hdel(site_key(site), sid)
            await writes.execute()
            return None
        context = stored.model_copy(update={"state": CallState.ENDED, "revision": stored.revision + 1})
        self._last.pop(key, None)
        _bury(writes, context, owner, grace_seconds)
        writes.publish(changes_channel(owner), announcement(context, context.state))
        await writes.execute()
        return context

    async def _read(self, exchange: Exchange, key: str, sid: str) -> CallContext | None:
        """The context under a watched key. What is none is set aside, and the attempt starts anew."""
        try:
            content = await exchange.get(key)
        except ResponseError as exc:
            if not _is_wrong_type(exc):
                raise
            await self._set_aside(exchange, key, sid)
        if content is None:
            return None
        known = self._last.get(key)
        if known is not None and known[0] == content:
            return known[1]
        context = from_json(content, sid)
        if context is None:
            await self._set_aside(exchange, key, sid)
        return context

    async def _set_aside(self, exchange: Exchange, key: str, sid: str) -> NoReturn:
        writes = exchange.begin()
        writes.rename(key, aside_key(key))
        writes.expire(aside_key(key), ASIDE_SECONDS)
        await writes.execute()
        logger.warning(
            "what stood in the live store for a call was no context and is set aside",
            extra={"call_sid": sid, "key": aside_key(key)},
        )
        raise WatchError("set aside")

    async def _fetch(self, calls: Iterable[tuple[str, str]]) -> list[CallContext]:
        """The contexts of these calls (owner and call_sid); those that vanished meanwhile are left out."""
        wanted, contexts = list(calls), []
        for start in range(0, len(wanted), FETCH_MANY):
            some = wanted[start : start + FETCH_MANY]
            async with self._reaching():
                values = await self._client.mget([call_key(owner, sid) for owner, sid in some])
            for (owner, sid), content in zip(some, values, strict=True):
                context = from_json(content, sid) if content is not None else None
                if context is None:
                    # Vanished, or no context: the careful way finds out which.
                    context = await self._transact(lambda exchange, o=owner, s=sid: self._look(exchange, o, s))  # type: ignore[misc]
                if context is not None:
                    contexts.append(context)
        return sorted(contexts, key=lambda context: (context.call_start_time, context.call_sid))

    async def _transact(self, attempt: Callable[[Exchange], Awaitable[T]]) -> T:
        """`attempt` again and again until nobody wrote in between."""
        async with self._reaching():
            while True:
                try:
                    if self._is_alone:
                        return await attempt(Alone(self._client))
                    async with self._client.pipeline(transaction=True) as pipe:
                        return await attempt(Watched(pipe))
                except WatchError:
                    continue

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds), self._turns:
                yield
        except (RedisError, OSError) as exc:  # OSError: TimeoutError too
            raise ContextStoreAway(f"the live store {self.home} {trouble(exc)}") from exc


def _bury(writes: "Pipeline", context: CallContext, owner: str, grace_seconds: int) -> None:
    key = call_key(owner, context.call_sid)
    if grace_seconds > 0:
        writes.set(key, to_json(context), ex=grace_seconds)
    else:
        writes.delete(key)
    writes.srem(live_key(owner), context.call_sid)
    writes.hdel(site_key(context.site), context.call_sid)


def _text(value: bytes | str) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _is_wrong_type(exc: ResponseError) -> bool:
    return "WRONGTYPE" in str(exc)
