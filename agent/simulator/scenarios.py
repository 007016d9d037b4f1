"""Which calls are made: realistic kinds in a realistic mix, everything that chance decides coming from one seed."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from agent.simulator.plan import Behaviour, CallPlan, Party, far_party, phone_party
from agent.simulator.site import CALLER_NAMES, DID_GROUP, DID_MENU, DID_QUEUES, QUEUE_MEMBERS, TENANTS, Tenant
from sync.models import Direction

RING_SECONDS: Final = 25.0  # how long the dialplan lets phones ring
AGENT_RING_SECONDS: Final = 15.0
QUEUE_PATIENCE_SECONDS: Final = 120.0

_NAMES: Final = tuple(CALLER_NAMES)
_NAME_WEIGHTS: Final = tuple(CALLER_NAMES.values())
_QUICK_SECONDS: Final = 0.01


class _Draw:
    """The dice of one call."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.tenant = dice.choices(TENANTS, [tenant.weight for tenant in TENANTS])[0]

    def talk_seconds(self) -> float:
        """Most calls are short, some very long: log-normal with a median of 75 s."""
        return min(3600.0, max(2.0, self.dice.lognormvariate(4.3, 0.9)))

    def ring_seconds(self, limit: float = RING_SECONDS) -> float:
        return self.dice.uniform(1.5, limit * 0.8)

    def patience_seconds(self, limit: float = RING_SECONDS) -> float:
        return self.dice.uniform(1.0, limit * 0.9)

    def hangs_up(self) -> bool:
        """Whether it is the called one who ends the call."""
        return self.dice.random() < 0.4

    def outsider(self) -> tuple[str, str]:
        """A caller from the public network: number and name as Asterisk tells them."""
        kind = self.dice.random()
        if kind < 0.05:
            return "anonymous", "Anonymous"
        number = self.dice.randrange(10_000_000)
        name = self.dice.choices(_NAMES, _NAME_WEIGHTS)[0]
        if kind < 0.15:
            return f"+4930{number:07}", name
        return f"90532{number:07}", name

    def outside_number(self) -> str:
        number = self.dice.randrange(10_000_000)
        return f"+4989{number:07}" if self.dice.random() < 0.1 else f"0532{number:07}"


def _inbound(
    draw: _Draw,
    scenario: str,
    *,
    did: str,
    parties: tuple[Party, ...],
    timeout_seconds: float = RING_SECONDS,
    patience_seconds: float | None = None,
    menu_seconds: float | None = None,
    digit: str | None = None,
    queue: str | None = None,
) -> CallPlan:
    caller, name = draw.outsider()
    plus = "+" if draw.dice.random() < 0.1 else ""
    return CallPlan(
        scenario=scenario,
        tenant=draw.tenant,
        direction=Direction.INBOUND,
        endpoint=f"PJSIP/{draw.tenant.trunk}",
        caller=caller,
        caller_name=name or "<unknown>",
        dialled=plus + did,
        parties=parties,
        timeout_seconds=timeout_seconds,
        talk_seconds=draw.talk_seconds(),
        callee_hangs_up=draw.hangs_up(),
        patience_seconds=patience_seconds,
        menu_seconds=menu_seconds,
        digit=digit,
        queue=queue,
    )


def _from_phone(draw: _Draw, scenario: str, behaviour: Behaviour, *, gives_up: bool, to_outside: bool) -> CallPlan:
    tenant = draw.tenant
    phone, other = draw.dice.sample(tenant.phones, 2)
    after = _after(draw, behaviour)
    if to_outside:
        party = far_party(tenant, draw.outside_number(), behaviour, after)
    else:
        party = phone_party(tenant, other, behaviour, after)
    return CallPlan(
        scenario=scenario,
        tenant=tenant,
        direction=Direction.OUTBOUND if to_outside else Direction.INTERNAL,
        endpoint=phone.endpoint,
        caller=phone.number,
        caller_name=phone.name,
        dialled=party.number,
        parties=(party,),
        timeout_seconds=RING_SECONDS,
        talk_seconds=draw.talk_seconds(),
        callee_hangs_up=draw.hangs_up(),
        patience_seconds=draw.patience_seconds() if gives_up else None,
    )


def _after(draw: _Draw, behaviour: Behaviour) -> float:
    match behaviour:
        case Behaviour.ANSWERS:
            return draw.ring_seconds()
        case Behaviour.DECLINES:
            return draw.dice.uniform(0.5, 8.0)
        case _:
            return _QUICK_SECONDS


_Maker = Callable[[_Draw, str], CallPlan]


def _to_phone(behaviour: Behaviour, *, gives_up: bool = False) -> _Maker:
    def make(draw: _Draw, scenario: str) -> CallPlan:
        place = draw.dice.randrange(len(draw.tenant.phones))
        party = phone_party(draw.tenant, draw.tenant.phones[place], behaviour, _after(draw, behaviour))
        patience = draw.patience_seconds() if gives_up else None
        return _inbound(draw, scenario, did=draw.tenant.did(place + 1), parties=(party,), patience_seconds=patience)

    return make


def _outbound(behaviour: Behaviour, *, gives_up: bool = False) -> _Maker:
    return lambda draw, scenario: _from_phone(draw, scenario, behaviour, gives_up=gives_up, to_outside=True)


def _internal(behaviour: Behaviour, *, gives_up: bool = False) -> _Maker:
    return lambda draw, scenario: _from_phone(draw, scenario, behaviour, gives_up=gives_up, to_outside=False)


def _group(*behaviours: Behaviour, gives_up: bool = False) -> _Maker:
    def make(draw: _Draw, scenario: str) -> CallPlan:
        phones = draw.dice.sample(draw.tenant.phones, len(behaviours))
        parties = tuple(
            phone_party(draw.tenant, phone, behaviour, _after(draw, behaviour))
            for phone, behaviour in zip(phones, behaviours, strict=True)
        )
        patience = draw.patience_seconds() if gives_up else None
        return _inbound(draw, scenario, did=draw.tenant.did(DID_GROUP), parties=parties, patience_seconds=patience)

    return make


def _agents(draw: _Draw, kind: str, *, answers: bool, missed: int) -> tuple[Party, ...]:
    """The agents whom a queue tries one after another."""
    phones = [draw.tenant.phones[place] for place in QUEUE_MEMBERS[kind]]
    draw.dice.shuffle(phones)
    parties = [phone_party(draw.tenant, phone, Behaviour.RINGS) for phone in phones[:missed]]
    if answers:
        after = draw.ring_seconds(AGENT_RING_SECONDS)
        parties.append(phone_party(draw.tenant, phones[missed], Behaviour.ANSWERS, after))
    return tuple(parties)


def _queue(*, answers: bool, gives_up: bool = False) -> _Maker:
    def make(draw: _Draw, scenario: str) -> CallPlan:
        kind = draw.dice.choice(tuple(QUEUE_MEMBERS))
        missed = draw.dice.choice((0, 0, 0, 1, 2)) if answers else len(QUEUE_MEMBERS[kind])
        return _inbound(
            draw,
            scenario,
            did=draw.tenant.did(DID_QUEUES[kind]),
            parties=_agents(draw, kind, answers=answers, missed=missed),
            timeout_seconds=QUEUE_PATIENCE_SECONDS if answers or gives_up else draw.dice.choice((20.0, 40.0)),
            patience_seconds=draw.patience_seconds(40.0) if gives_up else None,
            queue=draw.tenant.queue(kind),
        )

    return make


def _menu(*, choice: str | None) -> _Maker:
    def make(draw: _Draw, scenario: str) -> CallPlan:
        did, listens = draw.tenant.did(DID_MENU), draw.dice.uniform(1.5, 15.0)
        if choice == "2":
            parties = _agents(draw, "sales", answers=True, missed=0)
            return _inbound(
                draw,
                scenario,
                did=did,
                parties=parties,
                timeout_seconds=QUEUE_PATIENCE_SECONDS,
                menu_seconds=listens,
                digit=choice,
                queue=draw.tenant.queue("sales"),
            )
        party = phone_party(draw.tenant, draw.tenant.phones[0], Behaviour.ANSWERS, draw.ring_seconds())
        return _inbound(draw, scenario, did=did, parties=(party,), menu_seconds=listens, digit=choice)

    return make


@dataclass(frozen=True, slots=True)
class Scenario:
    """A kind of call and how often it comes among a hundred or so."""

    name: str
    weight: int
    make: _Maker


SCENARIOS: Final = tuple(
    Scenario(name, weight, make)
    for name, weight, make in (
        ("inbound_answered", 24, _to_phone(Behaviour.ANSWERS)),
        ("inbound_no_answer", 5, _to_phone(Behaviour.RINGS)),
        ("inbound_busy", 3, _to_phone(Behaviour.BUSY)),
        ("inbound_declined", 1, _to_phone(Behaviour.DECLINES)),
        ("inbound_congestion", 1, _to_phone(Behaviour.CONGESTED)),
        ("inbound_unreachable", 1, _to_phone(Behaviour.UNREACHABLE)),
        ("inbound_cancelled", 4, _to_phone(Behaviour.RINGS, gives_up=True)),
        ("group_answered", 5, _group(Behaviour.RINGS, Behaviour.ANSWERS, Behaviour.BUSY)),
        ("group_no_answer", 2, _group(Behaviour.RINGS, Behaviour.BUSY, Behaviour.DECLINES)),
        ("group_cancelled", 1, _group(Behaviour.RINGS, Behaviour.RINGS, gives_up=True)),
        ("queue_answered", 9, _queue(answers=True)),
        ("queue_abandoned", 3, _queue(answers=False, gives_up=True)),
        ("queue_timeout", 1, _queue(answers=False)),
        ("menu_answered", 6, _menu(choice="1")),
        ("menu_to_queue", 2, _menu(choice="2")),
        ("menu_abandoned", 3, _menu(choice=None)),
        ("outbound_answered", 17, _outbound(Behaviour.ANSWERS)),
        ("outbound_busy", 2, _outbound(Behaviour.BUSY)),
        ("outbound_no_answer", 3, _outbound(Behaviour.RINGS)),
        ("outbound_congestion", 1, _outbound(Behaviour.CONGESTED)),
        ("outbound_failed", 1, _outbound(Behaviour.UNALLOCATED)),
        ("outbound_cancelled", 2, _outbound(Behaviour.RINGS, gives_up=True)),
        ("internal_answered", 7, _internal(Behaviour.ANSWERS)),
        ("internal_no_answer", 2, _internal(Behaviour.RINGS)),
        ("internal_busy", 1, _internal(Behaviour.BUSY)),
        ("internal_declined", 1, _internal(Behaviour.DECLINES)),
        ("internal_cancelled", 1, _internal(Behaviour.RINGS, gives_up=True)),
    )
)
_BY_NAME: Final = {scenario.name: scenario for scenario in SCENARIOS}
_WEIGHTS: Final = tuple(scenario.weight for scenario in SCENARIOS)


def plan_calls(seed: int) -> Iterator[CallPlan]:
    """An endless mix of calls, always the same for one seed."""
    dice = random.Random(seed)
    while True:
        scenario = dice.choices(SCENARIOS, _WEIGHTS)[0]
        yield scenario.make(_Draw(dice), scenario.name)


def plan_call(name: str, seed: int) -> CallPlan:
    """One call of a kind. Raises KeyError for a kind that there is not."""
    scenario = _BY_NAME[name]
    return scenario.make(_Draw(random.Random(seed)), name)


def queue_members(tenants: tuple[Tenant, ...] = TENANTS) -> dict[str, list[tuple[str, str]]]:
    """Which queues each phone serves, and under which name."""
    members: dict[str, list[tuple[str, str]]] = {}
    for tenant in tenants:
        for kind, places in QUEUE_MEMBERS.items():
            for place in places:
                phone = tenant.phones[place]
                members.setdefault(phone.endpoint, []).append((tenant.queue(kind), phone.name))
    return members


def traced(plans: Iterator[CallPlan], seed: int) -> Iterator[CallPlan]:
    """The same calls; what comes from outside comes with a W3C traceparent, one in ten of them not sampled."""
    dice = random.Random(seed ^ 0x7ACE)
    for plan in plans:
        flags = "00" if dice.random() < 0.1 else "01"
        text = f"00-{dice.getrandbits(128) | 1:032x}-{dice.getrandbits(64) | 1:016x}-{flags}"
        yield replace(plan, traceparent=text) if plan.direction is Direction.INBOUND else plan
