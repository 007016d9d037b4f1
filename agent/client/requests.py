"""What both clients share: which request says what, what its answer means, and whether to ask again."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import httpx

from agent.client.errors import (
    AccessDenied,
    CallNotFound,
    ContextChanged,
    EdgeError,
    EdgeUnavailable,
    WriteRefused,
)
from agent.client.models import Interaction, Task

Json = Any  # JSON

DEFAULT_SOCKET: Final = "/run/sentiric-edge/services.sock"
PATIENCE_SECONDS: Final = 30.0
ANSWER_SECONDS: Final = 20.0  # the agent gives up on a write before
WAIT_SECONDS: Final = 30.0  # in one question for the next call
# Heartbeats come every 15 s; a stream that is silent for longer is dead.
SILENCE_SECONDS: Final = 40.0
_FIRST_PAUSE_SECONDS: Final = 0.1
_LONGEST_PAUSE_SECONDS: Final = 5.0
_ERRNO: Final = re.compile(r"^\[Errno \d+\] ")
_AGAIN: Final = frozenset({408, 429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. Sent again, a write is the same write: its key says so."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    body: Json = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = ANSWER_SECONDS

    def as_request(self) -> dict[str, Any]:  # Any: httpx's arguments
        """For httpx."""
        content = None if self.method in {"GET", "DELETE"} else json.dumps(self.body, default=_as_json).encode()
        headers = {**self.headers, **({"Content-Type": "application/json"} if content is not None else {})}
        return {
            "method": self.method,
            "url": self.path,
            "params": dict(self.params),
            "content": content,
            "headers": headers,
            "timeout": httpx.Timeout(self.seconds, connect=5.0),
        }


@dataclass(frozen=True, slots=True)
class Place:
    """Where the agent is: a socket or, with a URL, a port of this machine."""

    socket: str | Path = DEFAULT_SOCKET
    url: str | None = None
    token: str | None = field(default=None, repr=False)

    @property
    def base_url(self) -> str:
        """For httpx; the socket's own host has no meaning."""
        return self.url or "http://edge-agent"

    @property
    def headers(self) -> dict[str, str]:
        """Who asks."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def unreached(self, exc: httpx.TransportError) -> EdgeUnavailable:
        """The agent was not reached at all."""
        reason = _ERRNO.sub("", str(exc)) or type(exc).__name__
        return EdgeUnavailable(f"the agent is not reached at {self.url or self.socket}: {reason}")


class Pauses:
    """How long to wait before asking again, until patience ends."""

    def __init__(self, patience_seconds: float, *, now: float) -> None:
        self._until = now + patience_seconds
        self._pause = _FIRST_PAUSE_SECONDS

    def next(self, *, now: float, least: float = 0.0) -> float | None:
        """Seconds; None when it is enough."""
        pause = max(least, self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - only to spread the load
        self._pause = min(self._pause * 2, _LONGEST_PAUSE_SECONDS)
        return pause if now + pause < self._until else None


def live_calls(tenant: str | None, state: str | None) -> Ask:
    """Live calls."""
    return Ask("GET", "/v1/calls", _params(tenant=tenant, state=state))


def next_call(tenant: str | None, wait_seconds: float, after: str | None) -> Ask:
    """The next call."""
    params = _params(tenant=tenant, wait=f"{wait_seconds:g}", after=after)
    return Ask("GET", "/v1/calls/next", params, seconds=wait_seconds + ANSWER_SECONDS)


def context(call_sid: str) -> Ask:
    """A call's context."""
    return Ask("GET", _of(call_sid, "context"))


def patch(call_sid: str, changes: Mapping[str, Any], if_revision: int | None) -> Ask:
    """Merge a patch."""
    return _write("PATCH", _of(call_sid, "context"), dict(changes), if_revision)


def push_task(call_sid: str, name: str, state: Mapping[str, Any] | None, others: Mapping[str, Any]) -> Ask:
    """Push a task."""
    return _write("POST", _of(call_sid, "tasks"), {**others, "task_name": name, "state_data": dict(state or {})})


def update_task(call_sid: str, task: str | Task, changes: Mapping[str, Any]) -> Ask:
    """Change a task."""
    return _write("PATCH", _of(call_sid, "tasks", _id(task)), dict(changes))


def pop_task(call_sid: str, task: str | Task) -> Ask:
    """Pop a task."""
    return _write("DELETE", _of(call_sid, "tasks", _id(task)))


def append(call_sid: str, interactions: Sequence[Interaction | Mapping[str, Any]]) -> Ask:
    """Append interactions."""
    return _write("POST", _of(call_sid, "interactions"), [dict(each) for each in interactions])


def set_transcript(call_sid: str, transcript: Sequence[Interaction | Mapping[str, Any]] | None) -> Ask:
    """Set the transcript."""
    told = None if transcript is None else [dict(each) for each in transcript]
    return _write("PUT", _of(call_sid, "transcript"), told)


def events(tenant: str | None, call_sid: str | None, after: str | None) -> dict[str, Any]:  # Any: httpx's arguments
    """A stream of events."""
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=5.0)
    params = _params(tenant=tenant, call=call_sid)
    return {"method": "GET", "url": "/v1/events", "params": params, "headers": headers, "timeout": timeout}


def answer_of(response: httpx.Response) -> Json:
    """What a good answer holds. Raises EdgeError."""
    if response.status_code < 400:
        return response.json()
    raise error_of(response)


def error_of(response: httpx.Response) -> EdgeError:
    """What a bad answer means."""
    try:
        told = response.json()
    except ValueError:
        told = {}
    if not isinstance(told, dict):
        told = {}
    detail = str(told.get("detail") or f"HTTP {response.status_code}")
    code, at_fault = str(told.get("code", "")), told.get("field")
    match response.status_code:
        case 401 | 403:
            return AccessDenied(detail, code=code, field=at_fault)
        case 404 | 410:
            return CallNotFound(detail, code=code, field=at_fault)
        case 412:
            etag = response.headers.get("etag", "").strip('"')
            return ContextChanged(detail, revision=int(etag) if etag.isdecimal() else None, code=code, field=at_fault)
        case status if status in _AGAIN or status >= 500:
            return EdgeUnavailable(detail, code=code)
        case _:
            return WriteRefused(detail, code=code, field=at_fault)


def is_to_be_asked_again(response: httpx.Response) -> bool:
    """Whether nothing was done, and it may be done later."""
    return response.status_code in _AGAIN


def wait_of(response: httpx.Response) -> float:
    """How long the agent asks to wait, in seconds."""
    told = response.headers.get("retry-after", "0")
    return min(float(told), _LONGEST_PAUSE_SECONDS) if told.isdecimal() else 0.0


def _write(method: str, path: str, body: Json = None, if_revision: int | None = None) -> Ask:
    headers = {"Idempotency-Key": uuid4().hex}
    if if_revision is not None:
        headers["If-Match"] = f'"{if_revision}"'
    return Ask(method, path, body=body, headers=headers)


def _of(call_sid: str, *parts: str) -> str:
    return "/".join(["/v1/calls", *(quote(part, safe=":") for part in (call_sid, *parts))])


def _id(task: str | Task) -> str:
    return task.id if isinstance(task, Task) else task


def _params(**given: str | None) -> dict[str, str]:
    return {name: value for name, value in given.items() if value is not None}


def _as_json(value: object) -> str:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form; moments need a zone")
