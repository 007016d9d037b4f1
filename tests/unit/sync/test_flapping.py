"""A line that flaps every second for an hour, in simulated time."""

import asyncio
import logging
import selectors
from collections import Counter

import pytest

from config.settings import CentralSettings
from sync.errors import UplinkUnavailable
from sync.records import Batch, Greeting, Receipt, Welcome
from sync.syncer import Syncer
from tests.fakes_sync import IDENTITY, FakeUplink, MemoryOutbox, a_record, accept_all

HOUR = 3600
EVERY = 5  # seconds between two calls
LOG_LINES = 3 * HOUR // 60


class SimulatedTime(selectors.DefaultSelector):
    """Whoever waits for a time has it at once; `now` tells how much has passed so."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None:
            self.now += max(timeout, 1e-6)
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """A loop whose clock is the simulated one."""

    def __init__(self) -> None:
        self.simulated = SimulatedTime()
        super().__init__(self.simulated)

    def time(self) -> float:
        return self.simulated.now


class FlappingUplink(FakeUplink):
    """Up in every other second; half of what is cut has come through, and its answer is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: Counter[tuple[str, int]] = Counter()
        self.tries = 0

    async def greet(self, greeting: Greeting) -> Welcome:
        await self._through()
        return await super().greet(greeting)

    async def send(self, batch: Batch) -> Receipt:
        self.tries += 1
        try:
            await self._through()
        except UplinkUnavailable:
            if self.tries % 2:
                self._take(batch)
            raise
        self._take(batch)
        return accept_all(batch)

    def _take(self, batch: Batch) -> None:
        self.taken.update((record.call_sid, record.revision) for record in batch.records)

    async def _through(self) -> None:
        await asyncio.sleep(0.3)
        if int(asyncio.get_running_loop().time()) % 2:
            raise UplinkUnavailable("the connection broke")


def test_a_line_that_flaps_every_second_for_an_hour_loses_nothing_and_hammers_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="sync")
    outbox, uplink = MemoryOutbox(), FlappingUplink()
    settings = CentralSettings.model_validate({"url": "postgresql://site@centre/calls"})
    waited: list[int] = []

    async def an_hour() -> None:
        syncer = Syncer(outbox, uplink, settings, identity=IDENTITY)
        running = asyncio.create_task(syncer.run())
        for number in range(HOUR // EVERY):
            outbox.add(a_record(number))
            syncer.wake()
            await asyncio.sleep(EVERY)
            waited.append(len(outbox.waiting))
        await asyncio.sleep(2 * settings.retry_max_seconds)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        runner.run(an_hour())

    assert not outbox.waiting
    assert len(uplink.taken) == HOUR // EVERY
    assert len(outbox.confirmed) == HOUR // EVERY
    assert uplink.tries < 2 * HOUR
    assert max(waited) * EVERY <= settings.retry_max_seconds
    assert len(caplog.records) < LOG_LINES
