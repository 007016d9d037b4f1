"""The second sources of a PBX as commands read them, and what to write where there is none."""

import time
from typing import TYPE_CHECKING, Final

from agent.cli.faults import CommandFailed

if TYPE_CHECKING:
    from agent.sources.opening import PbxSources
    from config.settings import PbxSettings, Settings

HOW_TO_ADD: Final = (
    "    [[pbx.sources]]",
    '    kind = "cdr-csv"',
    '    path = "/var/log/asterisk/cdr-csv/Master.csv"',
)


def pbxes_named(settings: "Settings", name: str | None) -> "list[PbxSettings]":
    """The PBX of that name, or all. Raises CommandFailed."""
    found = [pbx for pbx in settings.pbx if name in {None, pbx.name}]
    if not found:
        known = ", ".join(pbx.name for pbx in settings.pbx) or "none"
        raise CommandFailed(f"no PBX of the settings is named {name!r}; there is {known}")
    return found


def sources_for(settings: "Settings", pbx: "PbxSettings") -> "PbxSources":
    """What reading a PBX's sources needs to know of it."""
    from agent.calls.tenancy import assign
    from agent.daemon import rules_of
    from agent.sources.opening import PbxSources

    rules = rules_of(settings)[pbx.name]
    return PbxSources(
        site=settings.site,
        pbx=pbx,
        encoding=settings.encoding_of(pbx),
        rules=lambda: rules,
        assign=lambda facts: assign(settings.tenancy, facts),
    )


def leave_alone(seconds: float) -> None:
    """Give a source the rest that it wants."""
    if seconds > 0:
        time.sleep(seconds)
