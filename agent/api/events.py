"""What happens to calls, as server-sent events that can be resumed.

Nothing is queued for a client: each one reads the desk's ring of changes at its own pace, and is told to `resync` when
the ring has gone round. One that does not read at all is cut by its connection (`agent.api.connections`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

import orjson

from agent.live.changes import Change, Changes

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_SECONDS: Final = 15.0
_RETRY_MILLISECONDS: Final = 1000


async def told(
    changes: Changes,
    *,
    after: str | None,
    allowed: Callable[[Change], bool],
    goes_on: Callable[[], bool],
    stopping: "asyncio.Future[None]",
    heartbeat_seconds: float = HEARTBEAT_SECONDS,
) -> AsyncIterator[bytes]:
    """The allowed changes after this one, until `stopping` or as long as it `goes_on`.

    What does not go on after a known change begins with a `resync`. Each heartbeat tells the place reached, so that
    what was not for this client need not be looked through again.
    """
    clock = asyncio.get_running_loop().time
    place = after or ""
    yield f"retry: {_RETRY_MILLISECONDS}\n\n".encode()
    last = clock()
    while not stopping.done() and goes_on():
        found = changes.after(place)
        if found is None:
            place = changes.latest
            last = clock()
            yield _event(place, "resync", b"{}")
            continue
        for change in found:
            place = change.id
            if allowed(change):
                last = clock()
                yield _event(change.id, change.kind, _data(change))
        if clock() - last >= heartbeat_seconds:
            last = clock()
            yield f": \nid: {place}\n\n".encode()
        await _news(changes, place, stopping=stopping, seconds=last + heartbeat_seconds - clock())


async def _news(changes: Changes, place: str, *, stopping: "asyncio.Future[None]", seconds: float) -> None:
    """Wait until there is something after this change, or the time is over, or the agent stops."""
    news = asyncio.ensure_future(changes.news(place))
    try:
        await asyncio.wait({news, stopping}, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        news.cancel()


def _event(place: str, kind: str, data: bytes) -> bytes:
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (place.encode(), kind.encode(), data)


def _data(change: Change) -> bytes:
    """One line of JSON."""
    told = {
        "call_sid": change.call_sid,
        "tenant_id": change.tenant,
        "revision": change.revision,
        "state": change.state,
        "at": change.at,
    }
    if change.merged_into is not None:
        told["merged_into"] = change.merged_into
    return orjson.dumps(told)
