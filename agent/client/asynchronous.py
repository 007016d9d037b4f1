"""The client for programs with asyncio."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from agent.client import requests
from agent.client.errors import EdgeUnavailable
from agent.client.models import CallContext, Event, Interaction, LiveCall, Task, Written
from agent.client.requests import Ask, Pauses, Place
from agent.client.streams import EventReader

Json = Any  # JSON


class AsyncEdgeClient:
    """The agent on this machine, by its socket or, with `url`, by its port.

    What fails for lack of an answer is asked again for `patience_seconds`, also writes: the agent does each once.
    """

    def __init__(
        self,
        socket: str | Path = requests.DEFAULT_SOCKET,
        *,
        url: str | None = None,
        token: str | None = None,
        patience_seconds: float = requests.PATIENCE_SECONDS,
    ) -> None:
        self._place = place = Place(socket, url, token)
        self._patience = patience_seconds
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket) if url is None else None),
            base_url=place.base_url,
            headers=place.headers,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def live_calls(self, *, tenant: str | None = None, state: str | None = None) -> list[LiveCall]:
        """The live calls this service may see, the oldest first."""
        return [LiveCall.of(call) for call in (await self._ask(requests.live_calls(tenant, state)))["calls"]]

    async def now(self) -> str:
        """The place after which `new_calls` and `events` tell all that happens from this moment on."""
        return str((await self._ask(requests.next_call(None, 0, None)))["after"])

    async def new_calls(
        self, *, tenant: str | None = None, after: str | None = None
    ) -> AsyncGenerator[CallContext, None]:
        """Every call that begins after this place (None: now), as soon as it does, without end.

        After a restart of the agent the live calls are told again.
        """
        place = await self.now() if after is None else after
        while True:
            told = await self._ask(requests.next_call(tenant, requests.WAIT_SECONDS, place))
            place = told["after"]
            if told["call"] is not None:
                yield CallContext.of(told["call"])

    async def context(self, call_sid: str) -> CallContext:
        """A call's context, live or over."""
        return CallContext.of(await self._ask(requests.context(call_sid)))

    async def patch(self, call_sid: str, changes: Mapping[str, Any], *, if_revision: int | None = None) -> Written:
        """Merge changes into `variables` and members of one's own; None removes. With `if_revision`, ContextChanged if
        anybody has written since."""
        return Written.of(await self._ask(requests.patch(call_sid, changes, if_revision)))

    async def set_variables(self, call_sid: str, /, **variables: Json) -> Written:
        """Set some variables and leave the others; None removes one."""
        return await self.patch(call_sid, {"variables": variables})

    async def push_task(
        self, call_sid: str, name: str, state: Mapping[str, Any] | None = None, /, **others: Json
    ) -> Written:
        """Put a task on the stack; its id is the answer's first."""
        return Written.of(await self._ask(requests.push_task(call_sid, name, state, others)))

    async def update_task(self, call_sid: str, task: str | Task, /, **changes: Json) -> Written:
        """Change a task, `"top"` or by its id: `state_data` is merged, other members are replaced."""
        return Written.of(await self._ask(requests.update_task(call_sid, task, changes)))

    async def pop_task(self, call_sid: str, task: str | Task = "top") -> Written:
        """Take a task from the stack."""
        return Written.of(await self._ask(requests.pop_task(call_sid, task)))

    async def append(self, call_sid: str, *interactions: Interaction | Mapping[str, Any]) -> Written:
        """Note what was said or done, all of it or nothing."""
        return Written.of(await self._ask(requests.append(call_sid, interactions)))

    async def say(self, call_sid: str, speaker: str, text: str, /, **others: Json) -> Written:
        """Note an utterance."""
        return await self.append(call_sid, {"speaker": speaker, "text": text, **others})

    async def set_transcript(self, call_sid: str, *transcript: Interaction | Mapping[str, Any]) -> Written:
        """Say what the transcript is, in place of what was said."""
        return Written.of(await self._ask(requests.set_transcript(call_sid, transcript)))

    async def events(
        self, *, tenant: str | None = None, call_sid: str | None = None, after: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """What happens to calls from now on, or after an event's id, without end: a lost connection is made again."""
        reader = EventReader(after)
        pauses = self._pauses()
        while True:
            try:
                async with self._http.stream(**requests.events(tenant, call_sid, reader.last_id)) as response:
                    if response.status_code != 200:
                        await response.aread()
                        raise requests.error_of(response)
                    pauses = self._pauses()
                    async for line in response.aiter_lines():
                        if (event := reader.feed(line)) is not None:
                            yield event
                failure = EdgeUnavailable("the agent has ended the stream")
            except httpx.TransportError as exc:
                failure = self._place.unreached(exc)
            except EdgeUnavailable as exc:
                failure = exc
            reader.restart()
            await self._pause(pauses, failure)

    async def _ask(self, ask: Ask) -> Json:
        pauses = self._pauses()
        while True:
            least = 0.0
            try:
                response = await self._http.request(**ask.as_request())
                if not requests.is_to_be_asked_again(response):
                    return requests.answer_of(response)
                failure, least = requests.error_of(response), requests.wait_of(response)
            except httpx.TransportError as exc:
                failure = self._place.unreached(exc)
            await self._pause(pauses, failure, least)

    def _pauses(self) -> Pauses:
        return Pauses(self._patience, now=asyncio.get_running_loop().time())

    @staticmethod
    async def _pause(pauses: Pauses, failure: Exception, least: float = 0.0) -> None:
        seconds = pauses.next(now=asyncio.get_running_loop().time(), least=least)
        if seconds is None:
            raise failure
        await asyncio.sleep(seconds)
