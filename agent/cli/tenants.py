"""`edge-agent tenants …`: whose call is whose, and why."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli.faults import CommandFailed, NotRunning
from agent.cli.output import AsJson, Colour, counted, note, painted, printable, say, say_json, table
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load_to_look

if TYPE_CHECKING:
    from agent.calls.tenancy import CallFacts
    from config.settings import Settings, TenantRule

app = typer.Typer(help="Whose call is whose.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_tenants(*, file: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """List the tenants: their rules in the settings and their calls in the local database."""
    from agent.cli.local import LocalCalls
    from agent.errors import StoreUnavailable

    settings = load_to_look(file)
    counts: dict[str | None, int] | None = None
    try:
        with LocalCalls.of(settings) as calls:
            counts = calls.count_by_tenant()
    except StoreUnavailable as exc:
        note(f"edge-agent: calls are not counted: {exc}")
    tenants = sorted(settings.tenancy.tenants() | {name for name in counts or {} if name is not None})
    told = [_tenant(name, settings, counts) for name in tenants]
    unassigned = (counts or {}).get(None, 0)
    if as_json:
        say_json({"tenants": told, "unassigned": None if counts is None else unassigned})
        return
    if not tenants:
        say("No tenant is known: add [[tenancy.rules]] or tenancy.default to the settings.")
    else:
        rows = [(tenant["tenant"], _by(tenant), str(tenant["calls"] if counts is not None else "-")) for tenant in told]
        for line in table(("TENANT", "BY", "CALLS"), rows):
            say(line)
    if unassigned:
        say(f"{counted(unassigned, 'call')} unassigned: edge-agent calls list --unassigned")


def _tenant(name: str, settings: "Settings", counts: dict[str | None, int] | None) -> dict[str, Any]:
    rules = [number for number, rule in enumerate(settings.tenancy.rules, start=1) if rule.tenant == name]
    calls = None if counts is None else counts.get(name, 0)
    return {"tenant": name, "rules": rules, "default": settings.tenancy.default == name, "calls": calls}


def _by(tenant: dict[str, Any]) -> str:
    words = [f"rule {number}" for number in tenant["rules"]] + ["default"] * tenant["default"]
    return ", ".join(words) or "no rule any more"


@app.command("test")
def tell_winner(
    *,
    did: Annotated[str | None, typer.Option(help="The number first dialled.")] = None,
    context: Annotated[str | None, typer.Option(help="The dialplan context in which the call begins.")] = None,
    trunk: Annotated[list[str] | None, typer.Option(help="A trunk of the call: PJSIP/trunk-acme.")] = None,
    endpoint: Annotated[list[str] | None, typer.Option(help="A phone or trunk of the call: PJSIP/101.")] = None,
    extension: Annotated[list[str] | None, typer.Option(help="The calling, or called, phone's number.")] = None,
    accountcode: Annotated[str | None, typer.Option(help="The call's account code.")] = None,
    direction: Annotated[str | None, typer.Option(help="inbound, outbound or internal; any if not given.")] = None,
    pbx: Annotated[str | None, typer.Option(help="The PBX; the only one if not given.")] = None,
    file: ConfigFile = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Tell which tenant rule would win for such a call, and why the others would not."""
    from agent.calls.rules import CallRules
    from agent.calls.tenancy import CallFacts, assign

    settings = load_to_look(file)
    name = _pbx(settings, pbx)
    is_trunk = CallRules(trunks=next((each.trunks for each in settings.pbx if each.name == name), ())).is_trunk
    facts = CallFacts(
        pbx=name,
        direction=_direction(direction),
        callee=did,
        context=context,
        accountcode=accountcode,
        endpoints=frozenset([*(endpoint or ()), *(trunk or ())]),
        trunks=frozenset([*(trunk or ()), *(one for one in endpoint or () if is_trunk(one))]),
        extensions=frozenset(extension or ()),
    )
    won = assign(settings.tenancy, facts)
    rules = [
        {"rule": number, "tenant": rule.tenant, "fits": not (failed := _failed(rule, facts)), "because": failed}
        for number, rule in enumerate(settings.tenancy.rules, start=1)
    ]
    winner = None if won.rule is None else won.rule + 1
    if as_json:
        say_json({"tenant": won.tenant, "rule": winner, "by_default": bool(won.tenant and not winner), "rules": rules})
        return
    say(_verdict(won.tenant, winner))
    for odd in trunk or ():
        if not is_trunk(odd):
            say(f"note: {printable(odd)} is no trunk by the settings of PBX {name}; a real call would not count it so")
    if rules:
        say()
        for line in table(("RULE", "TENANT", "FITS", "BECAUSE"), [_row(rule, winner) for rule in rules]):
            say(line)


def _pbx(settings: "Settings", given: str | None) -> str:
    names = [pbx.name for pbx in settings.pbx]
    if given is None:
        if len(names) > 1 and any(rule.pbx is not None for rule in settings.tenancy.rules):
            raise CommandFailed(f"some rules are for one PBX only; say which with --pbx: {', '.join(names)}")
        return names[0] if names else ""
    if given not in names:
        raise CommandFailed(f"no PBX is named {given!r}; there is {', '.join(names) or 'none'}")
    return given


def _direction(given: str | None) -> Any:  # Any: Direction, whose module takes long to import
    if given is None:
        return None
    from sync.models import Direction

    try:
        return Direction(given)
    except ValueError:
        raise CommandFailed(f"{given!r} is no direction; use inbound, outbound or internal") from None


def _failed(rule: "TenantRule", facts: "CallFacts") -> list[str]:
    """The conditions of the rule that do not hold, in words."""
    from agent.calls.tenancy import matches

    conditions = {name: value for name, value in dict(rule).items() if name != "tenant" and value is not None}
    failed = []
    for name, value in conditions.items():
        alone = rule.model_copy(update=dict.fromkeys(conditions.keys() - {name}))
        if not matches(alone, facts):
            wanted = " to ".join(map(str, value)) if isinstance(value, tuple) else value
            failed.append(f"{name} {wanted} does not fit {_had(name, facts)}")
    return failed


def _had(condition: str, facts: "CallFacts") -> str:
    """What the call has that the condition looks at."""
    match condition:
        case "pbx":
            had: Any = facts.pbx
        case "trunk":
            had = facts.trunks
        case "endpoint":
            had = facts.endpoints
        case "context":
            had = facts.context
        case "accountcode":
            had = facts.accountcode
        case "extension_range":
            had = facts.extensions
        case _:
            had = facts.callee
            if facts.direction not in {None, "inbound"}:
                return f"an {facts.direction} call"
    text = ", ".join(sorted(had)) if isinstance(had, frozenset) else had
    return text or "a call without one"


def _verdict(tenant: str | None, rule: int | None) -> str:
    if tenant is None:
        return painted("unassigned: no rule fits and there is no tenancy.default; the call is kept and not synced",
                       Colour.CAREFUL)  # fmt: skip
    return painted(f"{tenant}, by {f'rule {rule}' if rule else 'tenancy.default, since no rule fits'}", Colour.GOOD)


def _row(rule: dict[str, Any], winner: int | None) -> tuple[str, str, str, str]:
    if rule["rule"] == winner:
        fits, because = "yes", "it is the first that fits"
    elif rule["fits"]:
        fits, because = "late", f"it fits too, but rule {winner} comes first"
    else:
        fits, because = "no", "; ".join(rule["because"])
    return str(rule["rule"]), rule["tenant"], fits, because


@app.command("reassign")
def reassign(*, file: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Give unassigned calls to the tenants whose rules they match now, and have them synced."""
    from agent.cli.client import RunningAgent

    settings = load_to_look(file)
    try:
        result = RunningAgent(settings.socket_file, timeout=120).post("/v1/tenants/reassign")
    except NotRunning:
        import asyncio

        from agent.cli.local import reassign_without_agent

        result = asyncio.run(reassign_without_agent(settings))
    if as_json:
        say_json(result)
        return
    given = sum(result["assigned"].values())
    say(f"{counted(result['looked_at'], 'unassigned call')} looked at, {given} assigned, {result['unassigned']} left")
    for tenant, count in sorted(result["assigned"].items()):
        say(f"  {tenant}  {count}")
