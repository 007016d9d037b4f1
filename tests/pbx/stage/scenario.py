"""What a scenario is, and who plays in it: numbers of its own, so that many are played at the same time.

Every scenario has two digits of its own, written `ii` in its dialplan and other configuration. Its phones are
1ii1 to 1ii6; the same last three digits make everything else that is its own: 902165551ii1 is the number under which
the public network reaches 1ii1, 05321111ii1 somebody outside, 6ii1 a queue, 5ii1 a group, 7ii0 a parking lot, 8ii1 a
conference room, 4ii1 anything else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.pbx.stage.exchange import Exchange
from tests.pbx.stage.phone import Call, Phone
from tests.pbx.stage.truth import CallTruth

PHONES = range(1, 7)
PHONE_NAMES = ("Ayşe", "Bülent", "Çiğdem", "Doğan", "Emel", "Ferit")
OUTSIDE_NAMES = ("Gül", "Hakan", "Işıl", "Jale", "Kemal", "Lale")
TRUNK = "trunk-stage"
SECOND_TRUNK = "trunk-reserve"


@dataclass(frozen=True, slots=True)
class Cast:
    """The people and numbers of one scenario while it is played."""

    digits: str
    phones: Exchange
    trunk: Exchange
    second_trunk: Exchange
    originate: Callable[..., None]
    """Asterisk.originate."""
    cli: Callable[[str], str]
    """Asterisk.cli."""

    def phone(self, number: int) -> Phone:
        """A phone of the house, 1 to 6."""
        extension = self.extension(number)
        return self.phones.phones.get(extension) or Phone(self.phones, extension, PHONE_NAMES[number - 1])

    def outside(self, number: int) -> Phone:
        """Somebody in the public network, behind the trunk."""
        return self._behind(self.trunk, number)

    def outside_second(self, number: int) -> Phone:
        """The same, reached through the second trunk."""
        return self._behind(self.second_trunk, number)

    def _behind(self, trunk: Exchange, number: int) -> Phone:
        outside = self.outside_number(number)
        return trunk.phones.get(outside) or Phone(trunk, outside, OUTSIDE_NAMES[number - 1])

    def extension(self, number: int) -> str:
        return f"1{self.digits}{number}"

    def outside_number(self, number: int) -> str:
        return f"05321111{self.digits}{number}"

    def did(self, number: int) -> str:
        """The public number; 1 to 6 ring that phone for 20 s unless the scenario says otherwise."""
        return f"902165551{self.digits}{number}"

    def special(self, first: int, number: int) -> str:
        """A queue (6), group (5), parking lot (7), conference (8) of the scenario."""
        return f"{first}{self.digits}{number}"

    def text(self, text: str) -> str:
        """`ii` made the scenario's digits."""
        return in_digits(text, self.digits)

    async def hang_up_all(self) -> None:
        """Ends what a scenario that went wrong has left."""
        for exchange in (self.phones, self.trunk, self.second_trunk):
            for call in list(exchange.calls.values()):
                if self.owns(call.phone.number):
                    await call.make_over()

    def owns(self, number: str | None) -> bool:
        """Whether a number is one of this scenario's."""
        return number is not None and len(number) >= 4 and number.lstrip("+")[-3:-1] == self.digits


def in_digits(text: str, digits: str) -> str:
    return text.replace("ii", digits)


Play = Callable[[Cast], Awaitable[Sequence[CallTruth]]]


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    digits: str
    play: Play
    internal: str
    """Dialplan of its own in the context of the phones; `ii` for its digits, as in all configuration."""
    inbound: str
    """Dialplan of its own in the context of the trunks."""
    files: Mapping[str, str] = field(default_factory=dict)
    """More configuration, by file name without `.conf`."""
    skips: Mapping[int, str] = field(default_factory=dict)
    """Versions of Asterisk on which it cannot be played, and why."""

    def text(self, text: str) -> str:
        return in_digits(text, self.digits)


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *, internal: str = "", inbound: str = "", skips: Mapping[int, str] | None = None, **files: str
) -> Callable[[Play], Play]:
    """Registers a play under its function's name; it returns the truth of its calls in the order they began."""

    def register(play: Play) -> Play:
        name = getattr(play, "__name__", "")
        assert name not in SCENARIOS, f"two scenarios are called {name}"
        digits = f"{(len(SCENARIOS) + 1) % 100:02}"
        assert len(SCENARIOS) < 100, "there are numbers for 100 scenarios"
        SCENARIOS[name] = Scenario(name, digits, play, internal, inbound, files, skips or {})
        return play

    return register


async def connect(caller: Phone, number: str, callee: Phone) -> tuple[Call, Call]:
    """`caller` dials `number`, `callee` rings a little and picks up: both ends of the call that talks."""
    theirs = await caller.call(number)
    ours = await callee.rings()
    await pause(RING)
    await ours.answer()
    await theirs.until_answered()
    return theirs, ours


RING = 0.5
TALK = 0.8


async def pause(seconds: float) -> None:
    """People take their time; the lengths in a truth are measured, not taken from here."""
    await asyncio.sleep(seconds)
