"""Tracker, services by the agent and services past it, crashes of the agent and mishaps of the store, in any order:
nothing is lost, nothing comes twice, each one's order stays, and desk and store agree in the end."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from fakeredis import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.calls.context import CallContext, CallState, TaskState
from agent.calls.operations import (
    AppendInteractions,
    Found,
    Logged,
    Operation,
    Patch,
    PopTask,
    PushTask,
    from_json,
    kind_of,
    to_json,
)
from agent.calls.tenancy import Sees, sees_all
from agent.live.desk import Desk
from agent.live.store import ContextStore
from tests.unit.live.contexts import START, facts, store_on, with_interaction

SID = facts().call_sid
STATES = [CallState.RINGING, CallState.ANSWERED, CallState.HELD]
actions = st.sampled_from(
    ["speech", "dialogue", "direct", "other direct", "tracker", "carry", "crash", "flush", "old copy", "save copy"]
)


@dataclass
class MemoryLog:
    """Operations as the database keeps them: in their written form."""

    kept: list[tuple[Logged, str, bytes]] = field(default_factory=list)
    numbers: "count[int]" = field(default_factory=lambda: count(1))

    def next_number(self) -> int:
        return next(self.numbers)

    async def keep(self, operations: Sequence[Logged]) -> None:
        self.kept += [(each, kind_of(each.operation), to_json(each.operation)) for each in operations]

    async def of_live_calls(self) -> list[Logged]:
        return [
            Logged(each.number, SID, from_json(kind, content), each.service, each.at, each.revision)
            for each, kind, content in self.kept
        ]

    async def find(self, call_sid: str, sees: Sees = sees_all) -> Found | None:
        return None

    async def move(self, call_sid: str, into: str) -> None: ...

    async def amend(self, context: CallContext) -> bool:
        return False

    async def unfinished(self) -> list[str]:
        return []

    async def expire(self, before: datetime, *, but: Iterable[str]) -> int:
        return 0


@dataclass
class Story:
    """Everything that is told, and what has to be true in the end."""

    store: ContextStore
    log: MemoryLog = field(default_factory=MemoryLog)
    told: CallContext = field(default_factory=facts)
    said: dict[str, list[str]] = field(default_factory=dict)
    last: dict[str, str] = field(default_factory=dict)
    copy: bytes | str | None = None
    is_old: bool = False  # the store holds an old copy, and the agent has not looked
    numbers: "count[int]" = field(default_factory=count)

    @asynccontextmanager
    async def desk(self) -> AsyncIterator[Desk]:
        """A life of the agent."""
        desk = Desk(self.log, now=lambda: START)
        await desk.restore()
        running = asyncio.create_task(desk.run())
        desk.mark(self.told)
        desk.committed(opened=[SID], ended=())
        try:
            yield desk
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def carry(self, desk: Desk) -> None:
        """Until desk and store hold the same."""
        for _ in range(10):
            mine = desk.current(SID)
            assert mine is not None
            result = await self.store.put(mine, desk.weave)
            desk.carried(result)
            self.is_old = False
            if not result.is_new and result.taken is None:
                return
            for _ in range(5):
                await asyncio.sleep(0)  # what was taken over is kept
        raise AssertionError("desk and store do not come together")

    async def by_the_agent(self, desk: Desk, who: str) -> None:
        """A service says something, notes it and is busy with it; what it was busy with before is done."""
        text = f"{who} {next(self.numbers)}"
        wishes: list[Operation] = [
            AppendInteractions([{"text": text}]),
            Patch({"variables": {who: text}}),
            PushTask(self._task(text)),
        ]
        former = self.last.get(who)
        context = desk.current(SID)
        assert context is not None
        if former in {task.id for task in context.task_stack}:
            wishes.append(PopTask(str(former)))
        await desk.write(SID, wishes, service=who)
        self.said.setdefault(who, []).append(text)
        self.last[who] = text

    async def past_the_agent(self, who: str) -> None:
        """The same in the store; one without ids for what it says."""
        text = f"{who} {next(self.numbers)}"
        former = self.last.get(who)

        def change(context: CallContext) -> CallContext:
            entry = {"text": text} if who == "direct" else {"text": text, "id": text}
            if self.is_old:  # what is said is always found; what is changed in an old copy cannot be told from it
                return with_interaction(context, **entry)
            stack = [task for task in context.task_stack if task.id != former]
            return context.model_copy(
                update={
                    "interaction_history": [*context.interaction_history, entry],
                    "variables": {**context.variables, who: text},
                    "task_stack": [*stack, TaskState.model_validate(self._task(text))],
                }
            )

        if await self.store.update("acme", SID, change) is None:
            return
        self.said.setdefault(who, []).append(text)
        if not self.is_old:
            self.last[who] = text

    def _task(self, text: str) -> dict[str, str]:
        return {"id": text, "task_name": text, "start_time": START.isoformat()}

    def check(self, context: CallContext) -> None:
        texts = [entry["text"] for entry in context.interaction_history]
        assert sorted(texts) == sorted(text for own in self.said.values() for text in own)
        for who, own in self.said.items():
            assert [text for text in texts if text.startswith(f"{who} ")] == own
        assert context.variables == self.last
        tasks = [task.id for task in (*context.tasks_done, *context.task_stack)]
        assert len(set(tasks)) == len(tasks)
        # What was put into the store and taken out again before the agent looked, it cannot know.
        assert {*self.said.get("speech", ()), *self.said.get("dialogue", ())} <= set(tasks) <= set(texts)
        assert {task.id for task in context.task_stack} == set(self.last.values())
        assert context.state is self.told.state


@given(st.lists(actions, max_size=25))
@settings(max_examples=150, deadline=None)
def test_no_order_of_events_loses_doubles_or_mixes_up_anything(order: list[str]) -> None:
    asyncio.run(tell([*order]))


async def tell(order: list[str]) -> None:
    async with store_on(FakeServer()) as store:
        story = Story(store)
        while True:
            async with story.desk() as desk:
                while order and (action := order.pop(0)) != "crash":
                    await act(story, desk, action)
                if story.is_old:
                    # One that others go on from while the agent is away may bear the numbers of the one that is lost.
                    await story.carry(desk)
                if order:
                    continue
                await story.carry(desk)
                at_desk, stored = desk.current(SID), await store.get("acme", SID)
                assert at_desk is not None
                assert stored is not None
                story.check(at_desk)
                story.check(stored)
                assert stored.interaction_history == at_desk.interaction_history
                return


async def act(story: Story, desk: Desk, action: str) -> None:
    key = f"smcp:acme:call:{SID}"
    match action:
        case "speech" | "dialogue":
            await story.by_the_agent(desk, action)
        case "direct" | "other direct":
            await story.past_the_agent(action)
        case "tracker":
            story.told = facts(state=STATES[next(story.numbers) % 3], caller_name=str(next(story.numbers)))
            desk.mark(story.told)
        case "save copy":
            await story.carry(desk)
            story.copy = await story.store._client.get(key)
        case "flush":
            await story.carry(desk)  # what only the store had was lost with it
            await story.store._client.flushall()
        case "old copy" if story.copy is not None:
            await story.carry(desk)
            await story.store._client.set(key, story.copy)
            story.is_old = True
        case _:
            await story.carry(desk)
