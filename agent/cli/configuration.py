"""`edge-agent config …`: whether the settings are right, and what they come to."""

from typing import TYPE_CHECKING

import typer

from agent.cli.output import AsJson, counted, say, say_json
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load, load_to_look

if TYPE_CHECKING:
    from config.settings import Settings

app = typer.Typer(help="Check and show the settings.", no_args_is_help=True, rich_markup_mode=None)


@app.command("check")
def check(*, file: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Check the settings and every secret, and tell all that is wrong. Nothing is changed or connected to."""
    from config.errors import ConfigError

    try:
        settings = load(file)
    except ConfigError as exc:
        if as_json:
            say_json({"file": str(file), "ok": False, "problems": str(exc).splitlines()})
        raise
    if as_json:
        say_json({"file": str(file), "ok": True, "problems": [], "advice": _advice(settings)})
        return
    say(f"{file} is right: {', '.join(_checked(settings))}")
    for sentence in _advice(settings):
        say(f"note: {sentence}")
    say("Checked: every key and value, references between them, secrets and certificate files.")
    say("Not checked: whether the PBX, the centre and the live store answer; edge-agent status shows that.")


@app.command("show")
def show(*, file: ConfigFile = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Show the settings in force, the environment's included and the secrets left out."""
    from config.describe import to_dict, to_toml

    settings = load_to_look(file)
    if as_json:
        say_json(to_dict(settings))
    else:
        say(to_toml(settings).rstrip("\n"))


def _checked(settings: "Settings") -> list[str]:
    return [
        f"site {settings.site}",
        counted(len(settings.pbx), "PBX") if len(settings.pbx) == 1 else f"{len(settings.pbx)} PBXes",
        counted(len(settings.tenancy.rules), "tenant rule"),
        "a centre" if settings.central is not None else "no centre",
    ]


def _advice(settings: "Settings") -> list[str]:
    """What is allowed, but rarely meant."""
    advice = []
    if not settings.pbx:
        advice.append("no [[pbx]] section, so nothing will be captured")
    if settings.central is None:
        advice.append("no [central] section, so calls stay here")
    if not settings.tenancy.tenants():
        advice.append("no tenant rule and no tenancy.default, so every call stays unassigned and is not synced")
    return advice
