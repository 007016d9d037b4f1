"""Calls of every kind, chosen by a seed, placed on a real Asterisk at a given rate, and what each was meant to be."""

import random
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from tests.pbx import town
from tests.pbx.asterisk import Asterisk, free_port
from tests.pbx.intention import Intention
from tests.pbx.sipp import Attempt, CallingSide
from tests.pbx.town import Tenant
from tests.pbx.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Planned:
    attempt: Attempt
    intention: Intention
    source: str
    """The host it is placed from: one of the trunks', or the phones'."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of call. `to` is the number's last two digits, of the tenant's own or of the outside world."""

    name: str
    to: tuple[int, ...]
    then: str
    """What the caller does, a word of `Attempt.then`."""
    outcome: tuple[str, str]
    """Status and disposition."""
    direction: str
    answered_by: tuple[int, ...] | None = None
    """The behaviours that may answer; None means the one that was called, if the call is answered at all."""
    queue: str | None = None
    before_talk: float = 0.0
    """Seconds the PBX itself holds the line before the other person is there."""
    patience: tuple[float, float] | None = None
    """For callers who give up: after how many seconds, from and to."""
    digit: str = "1"
    plus: bool = False
    weight: int = 2


ANSWERED = ("completed", "answered")
CANCELLED = ("abandoned", "cancelled")
NO_ANSWER = ("failed", "no_answer")
REFUSED_BUSY = ("failed", "busy")
NO_WAY = ("failed", "congestion")
FAILED = ("failed", "failed")


_inbound = partial(Scenario, direction="inbound")
_outbound = partial(Scenario, direction="outbound")
_internal = partial(Scenario, direction="internal")

SALES = (town.ANSWERS_SOON, town.ANSWERS_LATER)
SUPPORT = (town.HANGS_UP_AFTER_A_WHILE, town.HANGS_UP_LATER)

SCENARIOS: tuple[Scenario, ...] = (
    _inbound("inbound_answered", SALES, "talk", ANSWERED, weight=8),
    _inbound("inbound_answered_callee_hangs_up", SUPPORT, "listen", ANSWERED, weight=5),
    _inbound("inbound_no_answer", (town.RINGS_FOR_EVER,), "talk", NO_ANSWER, weight=3),
    _inbound("inbound_busy", (town.BUSY,), "talk", REFUSED_BUSY),
    _inbound("inbound_declined", (town.DECLINES,), "talk", FAILED),
    _inbound("inbound_congestion", (town.CONGESTED,), "talk", NO_WAY),
    _inbound("inbound_unreachable", (town.NOT_THERE,), "talk", FAILED),
    _inbound("inbound_cancelled", (town.RINGS_FOR_EVER,), "cancel", CANCELLED, patience=(0.3, 2.0), weight=3),
    _inbound("group_answered", (town.DID_GROUP_ONE_ANSWERS,), "talk", ANSWERED, answered_by=(town.ANSWERS_LATER,)),
    _inbound("group_nobody", (town.DID_GROUP_NOBODY,), "talk", NO_ANSWER),
    _inbound("group_cancelled", (town.DID_GROUP_NOBODY,), "cancel", CANCELLED, patience=(0.3, 1.5), weight=1),
    _inbound(
        "queue_answered",
        (town.DID_QUEUE,),
        "talk",
        ANSWERED,
        answered_by=SALES,
        queue="sales",
        before_talk=1.5,
        weight=4,
    ),
    _inbound(
        "queue_answered_agent_hangs_up",
        (town.DID_QUEUE_AGENT_HANGS_UP,),
        "listen",
        ANSWERED,
        answered_by=SUPPORT,
        queue="support",
    ),
    _inbound(
        "queue_abandoned", (town.DID_QUEUE_NOBODY,), "talk", CANCELLED, queue="night", patience=(1.0, 4.0), weight=3
    ),
    _inbound("queue_gives_up", (town.DID_QUEUE_GIVES_UP,), "listen", NO_ANSWER, queue="night", weight=1),
    _inbound(
        "ivr_answered", (town.DID_IVR,), "press", ANSWERED, answered_by=(town.ANSWERS_SOON,), before_talk=0.8, weight=3
    ),
    _inbound(
        "ivr_to_queue",
        (town.DID_IVR,),
        "press",
        ANSWERED,
        digit="2",
        answered_by=SALES,
        queue="sales",
        before_talk=1.5,
        weight=1,
    ),
    _inbound("ivr_abandoned", (town.DID_IVR,), "talk", CANCELLED, patience=(0.5, 3.0)),
    _inbound("inbound_plus_answered", (town.ANSWERS_SOON,), "talk", ANSWERED, plus=True),
    _outbound("outbound_answered", (town.ANSWERS_SOON,), "talk", ANSWERED, weight=6),
    _outbound("outbound_answered_callee_hangs_up", (town.HANGS_UP_AFTER_A_WHILE,), "listen", ANSWERED, weight=3),
    _outbound("outbound_busy", (town.BUSY,), "talk", REFUSED_BUSY),
    _outbound("outbound_no_answer", (town.RINGS_FOR_EVER,), "talk", NO_ANSWER),
    _outbound("outbound_congestion", (town.CONGESTED,), "talk", NO_WAY, weight=1),
    _outbound("outbound_failed", (town.NOT_THERE,), "talk", FAILED, weight=1),
    _outbound("outbound_cancelled", (town.RINGS_FOR_EVER,), "cancel", CANCELLED, patience=(0.3, 2.0)),
    _outbound("outbound_plus_answered", (town.ANSWERS_SOON,), "talk", ANSWERED, plus=True, weight=1),
    _internal("internal_answered", (town.ANSWERS_LATER,), "talk", ANSWERED, weight=4),
    _internal("internal_answered_callee_hangs_up", (town.HANGS_UP_AFTER_A_WHILE,), "listen", ANSWERED),
    _internal("internal_no_answer", (town.RINGS_FOR_EVER,), "talk", NO_ANSWER),
    _internal("internal_busy", (town.BUSY,), "talk", REFUSED_BUSY, weight=1),
    _internal("internal_declined", (town.DECLINES,), "talk", FAILED, weight=1),
    _internal("internal_cancelled", (town.RINGS_FOR_EVER,), "cancel", CANCELLED, patience=(0.3, 2.0), weight=1),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@dataclass(frozen=True, slots=True)
class Caller:
    """One outside caller: what stands in the From header, and what it means."""

    number: str
    display: bytes
    name: str
    host: str


# `number` is completed by a running count, so that no two callers of a run share one, except the anonymous.
def _named(name: str, *, encoding: str = "utf-8", prefix: str = "9053") -> Callable[[int, str], Caller]:
    raw = name.encode(encoding)
    escaped = raw.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    # Asterisk keeps SIP's backslashes.
    return lambda count, host: Caller(f"{prefix}{count:08}", b'"' + escaped + b'"', escaped.decode(encoding), host)


def _nameless(count: int, host: str) -> Caller:
    return Caller(f"9053{count:08}", b"", "", host)


def _anonymous(_count: int, _host: str) -> Caller:
    return Caller("anonymous", b'"Anonymous"', "Anonymous", "anonymous.invalid")


CALLERS: dict[str, Callable[[int, str], Caller]] = {
    "turkish": _named("Ayşe Yılmaz"),
    "turkish_capitals": _named("İBRAHİM ÖZTÜRK ÇAĞLAR"),
    "plain": _named("Mehmet Demir"),
    "nameless": _nameless,
    "latin5": _named("Şükrü Gündoğdu", encoding="iso-8859-9"),
    "quotes": _named('Ali "Baba" Can'),
    "plus": _named("Jörg Müller", prefix="+491"),
    "anonymous": _anonymous,
}


class Plan:
    """Turns scenarios into attempts, all choices coming from one seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._seed = seed
        self._count = 0

    def mixed(self, calls: int) -> list[Planned]:
        """Every scenario at least once when there is room, the rest by weight, tenants three to two."""
        chosen = list(SCENARIOS[:calls])
        chosen += self._random.choices(SCENARIOS, [scenario.weight for scenario in SCENARIOS], k=calls - len(chosen))
        self._random.shuffle(chosen)
        return [
            self.one(
                scenario,
                tenant=self._random.choices(town.TENANTS, (3, 2))[0],
                caller=self._random.choices(tuple(CALLERS), (6, 2, 3, 3, 1, 1, 2, 1))[0],
            )
            for scenario in chosen
        ]

    def one(
        self,
        scenario: Scenario | str,
        *,
        tenant: Tenant = town.ACME,
        caller: str = "turkish",
        talk: timedelta | None = None,
    ) -> Planned:
        kind = BY_NAME[scenario] if isinstance(scenario, str) else scenario
        self._count += 1
        called = self._random.choice(kind.to)
        after, stay = self._how_long(kind, talk)
        number = self._number(kind, tenant, called)
        who, source = self._caller(kind, tenant, caller)
        call = f"{self._seed}-{self._count}-{kind.name}"
        return Planned(
            attempt=Attempt(
                call=call,
                from_number=who.number,
                from_display=who.display,
                from_host=who.host,
                to_number=number,
                then=kind.then,
                after=after,
                digit=kind.digit,
            ),
            intention=Intention(
                call=call,
                scenario=kind.name,
                tenant=tenant.name,
                direction=kind.direction,
                caller=who.number,
                caller_name=who.name,
                callee=number,
                status=kind.outcome[0],
                disposition=kind.outcome[1],
                answered_by=_who_answers(kind, tenant, called, number),
                queue=tenant.queue(kind.queue) if kind.queue else None,
                talk=stay,
            ),
            source=source,
        )

    def _how_long(self, kind: Scenario, talk: timedelta | None) -> tuple[timedelta, timedelta | None]:
        if kind.patience is not None:
            return timedelta(seconds=round(self._random.uniform(*kind.patience), 2)), None
        if talk is None:
            long = self._random.random() < 0.1
            talk = timedelta(seconds=round(self._random.uniform(*((8, 15) if long else (1, 4))), 2))
        stays = kind.then in ("talk", "press") and kind.outcome == ANSWERED
        return talk + timedelta(seconds=kind.before_talk), talk if stays else None

    def _number(self, kind: Scenario, tenant: Tenant, called: int) -> str:
        match kind.direction:
            case "inbound":
                return ("+" if kind.plus else "") + tenant.did(called)
            case "outbound":
                return ("+4930" if kind.plus else "0532") + f"{self._count:05}0{called}"
            case _:
                return tenant.extension(called)

    def _caller(self, kind: Scenario, tenant: Tenant, caller: str) -> tuple[Caller, str]:
        if kind.direction == "inbound":
            return CALLERS[caller](self._count, tenant.trunk_host), tenant.trunk_host
        behaviour = self._random.choice((town.ANSWERS_SOON, town.HANGS_UP_AFTER_A_WHILE, town.HANGS_UP_LATER))
        if (behaviour,) == kind.to:
            behaviour = town.HANGS_UP_LATER
        name = tenant.phone_names[behaviour - 1]
        return Caller(tenant.extension(behaviour), b"", name, town.PHONES_HOST), town.PHONES_HOST


def _who_answers(kind: Scenario, tenant: Tenant, called: int, number: str) -> tuple[str, ...]:
    if kind.outcome != ANSWERED:
        return ()
    if kind.answered_by is not None:
        return tuple(tenant.extension(behaviour) for behaviour in kind.answered_by)
    return (number,) if kind.direction == "outbound" else (tenant.extension(called),)


class Placing:
    """Calls on their way, placed by SIPp in the background. `wait` for them, or look at `finished`."""

    def __init__(self, planned: Sequence[Planned], sides: list[CallingSide], asterisk: Asterisk) -> None:
        self.planned = planned
        self._sides = sides
        self._asterisk = asterisk

    @property
    def intentions(self) -> list[Intention]:
        return [plan.intention for plan in self.planned]

    @property
    def finished(self) -> bool:
        return all(side.finished for side in self._sides)

    def wait(self, *, seconds: float, disturbed: bool = False) -> list[Intention]:
        """Until every caller is done and Asterisk is quiet. `disturbed`: the PBX was restarted or killed meanwhile,
        so that callers may have been left standing; they are not waited for once Asterisk is quiet."""
        if disturbed:
            self._asterisk.wait_until_quiet(seconds=seconds)
            self.stop()
            return self.intentions
        wait_until(lambda: self.finished, what="all calls placed and done", seconds=seconds, pause=0.1)
        self._asterisk.wait_until_quiet()
        wrong = "\n".join(side.errors()[-1500:] for side in self._sides if side.result != 0)
        assert not wrong, f"SIPp could not play a caller's part:\n{wrong}"
        return self.intentions

    def stop(self) -> None:
        for side in self._sides:
            side.stop()


def place(asterisk: Asterisk, planned: Sequence[Planned], *, over: timedelta) -> Placing:
    """Starts the attempts, spread evenly over a time, and returns at once."""
    sides = []
    for host in sorted({plan.source for plan in planned}):
        side = CallingSide(
            host=host,
            port=free_port(socket.SOCK_DGRAM, host),
            asterisk_port=asterisk.ports.sip,
            directory=asterisk.sipp_directory,
            name=f"callers-{host}-{random.getrandbits(24):06x}",
        )
        side.start(_from(host, planned), over=over)
        sides.append(side)
    placing = Placing(planned, sides, asterisk)
    asterisk.on_close(placing.stop)
    return placing


def _from(host: str, planned: Iterable[Planned]) -> list[Attempt]:
    return [plan.attempt for plan in planned if plan.source == host]


class Mix:
    """`Mix(seed).place(asterisk, calls=300, rate=10.0)`, or `.start(...)` to do other things meanwhile."""

    def __init__(self, seed: int) -> None:
        self._plan = Plan(seed)

    def start(self, asterisk: Asterisk, *, calls: int, rate: float) -> Placing:
        return place(asterisk, self._plan.mixed(calls), over=timedelta(seconds=calls / rate))

    def place(self, asterisk: Asterisk, *, calls: int, rate: float) -> list[Intention]:
        """The last call ends at most about half a minute after it was placed."""
        return self.start(asterisk, calls=calls, rate=rate).wait(seconds=calls / rate + 60)
