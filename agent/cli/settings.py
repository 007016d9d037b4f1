"""Which settings a command works with, and how much of them it needs."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agent.cli.faults import NotConfigured
from config.errors import ConfigError

if TYPE_CHECKING:
    from config.settings import Settings

FILE_VARIABLE: Final = "SENTIRIC_EDGE_CONFIG"  # also in config.environment, whose import takes 0.1 s
DEFAULT_FILE: Final = Path("/etc/sentiric-edge/agent.toml")
_MAX_FILE_BYTES: Final = 1024 * 1024

ConfigFile = Annotated[
    Path,
    typer.Option("--config", "-c", envvar=FILE_VARIABLE, metavar="FILE", help="The settings file.", show_default=True),
]


def load(file: Path, environ: Mapping[str, str] | None = None) -> "Settings":
    """The settings with every secret. Raises NotConfigured without a file, ConfigError with every mistake."""
    from config.load import load_settings

    _must_exist(file)
    settings = load_settings(file, _with_credentials(file, os.environ if environ is None else environ))
    if any(source.columns for pbx in settings.pbx for source in pbx.sources):
        from agent.sources.columns import column_problems

        problems = list(column_problems(settings))
        if problems:
            raise ConfigError("\n".join(f"{file}: {problem}" for problem in problems))
    return settings


def load_to_look(file: Path, environ: Mapping[str, str] | None = None) -> "Settings":
    """The settings for a command that only looks or asks the running agent: it needs no secret.

    Secrets are often for root or for the agent's own user alone, so a person who may look at the calls must not need
    them too. Mistakes elsewhere are told as by `load`.
    """
    try:
        return load(file, environ)
    except ConfigError:
        settings = _without_secrets(file, os.environ if environ is None else environ)
        if settings is None:
            raise
        return settings


def _must_exist(file: Path) -> None:
    if not os.path.lexists(file) and _can_be_seen(file.parent):
        raise NotConfigured(
            f"there is no settings file {file}; write one (config/agent.example.toml shows every key), "
            f"or name another with --config or {FILE_VARIABLE}"
        )


def _can_be_seen(directory: Path) -> bool:
    """Whether "not there" is true, rather than hidden from this user."""
    return os.access(directory, os.X_OK) or not os.path.lexists(directory)


def _with_credentials(file: Path, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Started by hand, find the secrets where the systemd unit takes them from, if this user may read them."""
    directory = file.absolute().parent / "credentials"
    if "CREDENTIALS_DIRECTORY" in environ or not os.access(directory, os.R_OK | os.X_OK):
        return environ
    return {**environ, "CREDENTIALS_DIRECTORY": str(directory)}


def _without_secrets(file: Path, environ: Mapping[str, str]) -> "Settings | None":
    """The settings if nothing but a secret is wrong with them, else None."""
    from config.environment import override
    from config.settings import Settings

    try:
        with file.open("rb") as stream:
            raw = tomllib.loads(stream.read(_MAX_FILE_BYTES).decode("utf-8-sig"))
        _, problems = override(raw, environ)
        settings = Settings.model_validate(raw, context={"directory": file.absolute().parent})
    except (OSError, ValueError, RecursionError):
        return None
    return None if problems else settings
