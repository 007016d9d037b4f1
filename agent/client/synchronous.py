"""The client for programs without asyncio; it may be shared by threads."""

import time
from collections.abc import Generator, Mapping
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


class EdgeClient:
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
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(socket) if url is None else None),
            base_url=place.base_url,
            headers=place.headers,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def live_calls(self, *, tenant: str | None = None, state: str | None = None) -> list[LiveCall]:
        """The live calls this service may see, the oldest first."""
        return [LiveCall.of(call) for call in self._ask(requests.live_calls(tenant, state))["calls"]]

    def now(self) -> str:
        """The place after which `new_calls` and `events` tell all that happens from this moment on."""
        return str((self._ask(requests.next_call(None, 0, None)))["after"])

    def new_calls(self, *, tenant: str | None = None, after: str | None = None) -> Generator[CallContext, None, None]:
        """Every call that begins after this place (None: now), as soon as it does, without end.

        After a restart of the agent the live calls are told again.
        """
        place = self.now() if after is None else after
        while True:
            told = self._ask(requests.next_call(tenant, requests.WAIT_SECONDS, place))
            place = told["after"]
            if told["call"] is not None:
                yield CallContext.of(told["call"])

    def context(self, call_sid: str) -> CallContext:
        """A call's context, live or over."""
        return CallContext.of(self._ask(requests.context(call_sid)))

    def patch(self, call_sid: str, changes: Mapping[str, Any], *, if_revision: int | None = None) -> Written:
        """Merge changes into `variables` and members of one's own; None removes. With `if_revision`, ContextChanged if
        anybody has written since."""
        return Written.of(self._ask(requests.patch(call_sid, changes, if_revision)))

    def set_variables(self, call_sid: str, /, **variables: Json) -> Written:
        """Set some variables and leave the others; None removes one."""
        return self.patch(call_sid, {"variables": variables})

    def push_task(self, call_sid: str, name: str, state: Mapping[str, Any] | None = None, /, **others: Json) -> Written:
        """Put a task on the stack; its id is the answer's first."""
        return Written.of(self._ask(requests.push_task(call_sid, name, state, others)))

    def update_task(self, call_sid: str, task: str | Task, /, **changes: Json) -> Written:
        """Change a task, `"top"` or by its id: `state_data` is merged, other members are replaced."""
        return Written.of(self._ask(requests.update_task(call_sid, task, changes)))

    def pop_task(self, call_sid: str, task: str | Task = "top") -> Written:
        """Take a task from the stack."""
        return Written.of(self._ask(requests.pop_task(call_sid, task)))

    def append(self, call_sid: str, *interactions: Interaction | Mapping[str, Any]) -> Written:
        """Note what was said or done, all of it or nothing."""
        return Written.of(self._ask(requests.append(call_sid, interactions)))

    def say(self, call_sid: str, speaker: str, text: str, /, **others: Json) -> Written:
        """Note an utterance."""
        return self.append(call_sid, {"speaker": speaker, "text": text, **others})

    def set_transcript(self, call_sid: str, *transcript: Interaction | Mapping[str, Any]) -> Written:
        """Say what the transcript is, in place of what was said."""
        return Written.of(self._ask(requests.set_transcript(call_sid, transcript)))

    def events(
        self, *, tenant: str | None = None, call_sid: str | None = None, after: str | None = None
    ) -> Generator[Event, None, None]:
        """What happens to calls from now on, or after an event's id, without end: a lost connection is made again."""
        reader = EventReader(after)
        pauses = self._pauses()
        while True:
            try:
                with self._http.stream(**requests.events(tenant, call_sid, reader.last_id)) as response:
                    if response.status_code != 200:
                        response.read()
                        raise requests.error_of(response)
                    pauses = self._pauses()
                    for line in response.iter_lines():
                        if (event := reader.feed(line)) is not None:
                            yield event
                failure = EdgeUnavailable("the agent has ended the stream")
            except httpx.TransportError as exc:
                failure = self._place.unreached(exc)
            except EdgeUnavailable as exc:
                failure = exc
            reader.restart()
            self._pause(pauses, failure)

    def _ask(self, ask: Ask) -> Json:
        pauses = self._pauses()
        while True:
            least = 0.0
            try:
                response = self._http.request(**ask.as_request())
                if not requests.is_to_be_asked_again(response):
                    return requests.answer_of(response)
                failure, least = requests.error_of(response), requests.wait_of(response)
            except httpx.TransportError as exc:
                failure = self._place.unreached(exc)
            self._pause(pauses, failure, least)

    def _pauses(self) -> Pauses:
        return Pauses(self._patience, now=time.monotonic())

    @staticmethod
    def _pause(pauses: Pauses, failure: Exception, least: float = 0.0) -> None:
        seconds = pauses.next(now=time.monotonic(), least=least)
        if seconds is None:
            raise failure
        time.sleep(seconds)
