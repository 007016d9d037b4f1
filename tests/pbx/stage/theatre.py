"""The stage itself: one Asterisk with the phones of all scenarios, on which scenarios are played, several at a time."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.pbx.asterisk import VERSIONS, Asterisk
from tests.pbx.configuration import Options
from tests.pbx.stage.configuration import stage_configuration
from tests.pbx.stage.exchange import Exchange
from tests.pbx.stage.pulse import Pulse
from tests.pbx.stage.scenario import SECOND_TRUNK, TRUNK, Cast, Scenario
from tests.pbx.stage.truth import CallTruth

PHONES_HOST = "127.0.0.5"
TRUNK_HOSTS = {TRUNK: "127.0.0.6", SECOND_TRUNK: "127.0.0.7"}
AT_A_TIME = 10
PLAY_SECONDS = 60.0


@dataclass(slots=True)
class Played:
    """What a scenario says of its calls, or why it could not be played to its end."""

    scenario: Scenario
    calls: list[CallTruth] = field(default_factory=list)
    failure: str | None = None


class Theatre:
    """Asterisk with the stage's configuration. The phones' sockets are bound first, their ports stand in it."""

    def __init__(self, scenarios: Sequence[Scenario], *, version: int = VERSIONS[0], read: str | None = None) -> None:
        self._sockets = {host: _bound(host) for host in (PHONES_HOST, *TRUNK_HOSTS.values())}
        appended = stage_configuration(
            scenarios,
            phones=self._sockets[PHONES_HOST].getsockname(),
            trunks={name: self._sockets[host].getsockname() for name, host in TRUNK_HOSTS.items()},
        )
        options = Options(appended=appended) if read is None else Options(appended=appended, read=read)
        self.asterisk = Asterisk(version=version, options=options)
        self.pulse = Pulse()

    def __enter__(self) -> Self:
        try:
            self.asterisk.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.asterisk.close()
        for made in self._sockets.values():
            made.close()

    def play(self, scenarios: Sequence[Scenario], *, at_a_time: int = AT_A_TIME) -> list[Played]:
        """Plays them and waits until Asterisk has no channel left."""
        played = asyncio.run(self._play(scenarios, at_a_time))
        self.asterisk.wait_until_quiet(seconds=30)
        return played

    async def _play(self, scenarios: Sequence[Scenario], at_a_time: int) -> list[Played]:
        turn = asyncio.Semaphore(at_a_time)
        async with self._exchanges() as exchanges:

            async def one(scenario: Scenario) -> Played:
                async with turn:
                    return await _play_one(scenario, self._cast(scenario, exchanges))

            return await asyncio.gather(*(one(scenario) for scenario in scenarios))

    @asynccontextmanager
    async def _exchanges(self) -> AsyncIterator[dict[str, Exchange]]:
        pbx = ("127.0.0.1", self.asterisk.ports.sip)
        exchanges = {host: Exchange(bound.dup(), pbx) for host, bound in self._sockets.items()}
        for exchange in exchanges.values():
            await exchange.open()
        phones = exchanges[PHONES_HOST]
        phones.run(self.pulse.beat(phones), name="pulse")
        try:
            yield exchanges
        finally:
            for exchange in exchanges.values():
                await exchange.close()

    def _cast(self, scenario: Scenario, exchanges: dict[str, Exchange]) -> Cast:
        return Cast(
            digits=scenario.digits,
            phones=exchanges[PHONES_HOST],
            trunk=exchanges[TRUNK_HOSTS[TRUNK]],
            second_trunk=exchanges[TRUNK_HOSTS[SECOND_TRUNK]],
            originate=self.asterisk.originate,
            cli=self.asterisk.cli,
        )


async def _play_one(scenario: Scenario, cast: Cast) -> Played:
    """A scenario whose people wait in vain says so; the others go on."""
    try:
        async with asyncio.timeout(PLAY_SECONDS):
            return Played(scenario, list(await scenario.play(cast)))
    except (AssertionError, TimeoutError) as failure:
        return Played(scenario, failure=f"{type(failure).__name__}: {failure}")
    finally:
        await cast.hang_up_all()


def _bound(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.bind((host, 0))
    return made
