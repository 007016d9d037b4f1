"""Whose call it is: the first of a site's rules that matches, else its default tenant, else nobody's yet."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple, Protocol, Self

from agent.calls.rules import CallRules, extension_of
from config.settings import TenancySettings, TenantRule
from sync.models import Call, Direction

_MAX_DIGITS: Final = 18  # no telephone number is longer, and Python refuses to read numbers of thousands of digits

# Whether the calls of a tenant, by its name, or of none (None) may be seen.
Sees = Callable[[str | None], bool]


def sees_all(_tenant: str | None) -> bool:
    """The agent's own sight."""
    return True


@dataclass(frozen=True, slots=True)
class CallFacts:
    """What tenant rules can look at. Numbers as the PBX told them."""

    pbx: str
    direction: Direction | None = None  # None: not known, a rule that needs it may match
    callee: str | None = None
    context: str | None = None
    accountcode: str | None = None
    endpoints: frozenset[str] = frozenset()
    trunks: frozenset[str] = frozenset()
    extensions: frozenset[str] = field(default_factory=frozenset)  # of the phones of this site


@dataclass(frozen=True, slots=True)
class Assignment:
    """Who gets the call, and by which rule (its place in the settings, counted from 0; None: by default)."""

    tenant: str | None = None
    rule: int | None = None


def assign(tenancy: TenancySettings, facts: CallFacts) -> Assignment:
    """The first rule that matches wins."""
    for number, rule in enumerate(tenancy.rules):
        if matches(rule, facts):
            return Assignment(rule.tenant, number)
    return Assignment(tenancy.default)


def matches(rule: TenantRule, facts: CallFacts) -> bool:
    """Whether every condition of the rule holds."""
    return all(_conditions(rule, facts))


def _conditions(rule: TenantRule, facts: CallFacts) -> Iterable[bool]:
    if rule.pbx is not None:
        yield rule.pbx == facts.pbx
    if rule.context is not None:
        yield facts.context is not None and fnmatchcase(facts.context, rule.context)
    if rule.accountcode is not None:
        yield rule.accountcode == facts.accountcode
    if rule.trunk is not None:
        yield any(fnmatchcase(trunk, rule.trunk) for trunk in facts.trunks)
    if rule.endpoint is not None:
        yield any(fnmatchcase(endpoint, rule.endpoint) for endpoint in facts.endpoints)
    if rule.did_prefix is not None:
        did = _did(facts)
        yield did is not None and did.startswith(rule.did_prefix.lstrip("+"))
    if rule.did_range is not None:
        did = _did(facts)
        low, high = (number.lstrip("+") for number in rule.did_range)
        yield did is not None and did.isdigit() and len(did) == len(low) and low <= did <= high
    if rule.extension_range is not None:
        low_ext, high_ext = rule.extension_range
        yield any(
            low_ext <= int(number) <= high_ext
            for number in facts.extensions
            if number.isdecimal() and len(number) <= _MAX_DIGITS
        )


def _did(facts: CallFacts) -> str | None:
    if facts.callee is None or facts.direction not in {None, Direction.INBOUND}:
        return None
    return facts.callee.lstrip("+")


def facts_of(call: Call, rules: CallRules) -> CallFacts:
    """The facts of a stored call, for looking at the rules again."""
    legs = [(_ToldLeg.of(leg), leg.get("caller") is True) for leg in call.legs]
    return facts_of_legs(
        pbx=call.pbx,
        direction=Direction(call.direction),
        caller_number=call.caller_id,
        callee=call.callee_id,
        caller=next((leg for leg, is_caller in legs if is_caller), None),
        others=[leg for leg, is_caller in legs if not is_caller],
        rules=rules,
    )


class LegFacts(Protocol):
    """What is looked at of a leg, live or stored."""

    @property
    def endpoint(self) -> str: ...
    @property
    def number(self) -> str | None: ...
    @property
    def context(self) -> str: ...
    @property
    def accountcode(self) -> str: ...


def facts_of_legs(
    *,
    pbx: str,
    direction: Direction,
    caller_number: str | None,
    callee: str | None,
    caller: LegFacts | None,
    others: Sequence[LegFacts],
    rules: CallRules,
) -> CallFacts:
    """The facts of a call, live or stored; `caller` is the caller's leg, None if it was never seen."""
    legs = others if caller is None else [caller, *others]
    endpoints = frozenset(leg.endpoint for leg in legs if leg.endpoint)
    if direction is Direction.INBOUND:
        numbers = {leg.number for leg in others}
    else:
        numbers = {caller_number}
        if caller is not None:
            numbers |= {caller.number, extension_of(caller.endpoint)}
    return CallFacts(
        pbx=pbx,
        direction=direction,
        callee=callee,
        context=(caller.context or None) if caller else None,
        accountcode=(caller.accountcode or None) if caller else None,
        endpoints=endpoints,
        trunks=frozenset(endpoint for endpoint in endpoints if rules.is_trunk(endpoint)),
        extensions=frozenset(number for number in numbers if number),
    )


class _ToldLeg(NamedTuple):
    """A leg as it stands in `Call.legs`, where what was not known is left out."""

    endpoint: str
    number: str | None
    context: str
    accountcode: str

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        return cls(
            endpoint=told.get("endpoint", ""),
            number=told.get("number"),
            context=told.get("context", ""),
            accountcode=told.get("accountcode", ""),
        )
