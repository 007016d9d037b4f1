"""Reading a service's JSON: bounded in bytes, values and time, whatever is sent."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Final

import orjson
from starlette.requests import Request

from agent.api.problems import malformed, too_large, too_slow, unsupported

JSON_TYPES: Final = ("application/json", "application/merge-patch+json")
_SECONDS: Final = 30.0
# A value of two bytes may become an object of a hundred, so they are counted before they are read.
_MOST_VALUES: Final = 400_000


async def read_json(request: Request, *, most: int, take: Callable[[int], None]) -> Any:  # Any: JSON
    """The body's value; `take` is told of each piece that is held. Raises Refusal and ClientDisconnect."""
    kind = request.headers.get("content-type", JSON_TYPES[0]).partition(";")[0].strip().lower()
    if kind not in JSON_TYPES:
        raise unsupported(f"the content type is none of {', '.join(JSON_TYPES)}")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise unsupported("the body may not be packed")
    told = int(request.headers.get("content-length", "0"))  # h11 has refused anything but digits
    if told > most:
        raise too_large(f"the body is larger than {most} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(_SECONDS), aclosing(request.stream()) as stream:
            async for chunk in stream:
                take(len(chunk))
                body += chunk
                if len(body) > most:
                    raise too_large(f"the body is larger than {most} bytes")
    except TimeoutError:
        raise too_slow(_SECONDS) from None
    if body.count(b",") + body.count(b"[") + body.count(b"{") > _MOST_VALUES:
        raise too_large(f"the body may hold more than {_MOST_VALUES} values")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise malformed(f"the body is no JSON in UTF-8: {exc.msg} at character {exc.pos}") from None
