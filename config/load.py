"""Reading the settings: one TOML file, environment variables over it, secrets from where they are kept."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from config.credentials import fill_in
from config.environment import override
from config.errors import ConfigError
from config.files import Unreadable, read_text
from config.keys import KeyPath, did_you_mean, key_text
from config.problems import sentences, toml_sentence
from config.settings import Settings

MAX_FILE_BYTES: Final = 1024 * 1024


def load_settings(path: Path, environ: Mapping[str, str]) -> Settings:
    """The settings of `path` with what `environ` says over it, every secret in its place.

    Paths in the file may be relative to it. Everything that is wrong is told at once, a line each.
    """
    raw = _read(path)
    origins, problems = override(raw, environ)
    problems += [
        f"{path}: {problem}" for problem in fill_in(raw, file=path, environ=environ, from_environment=set(origins))
    ]
    try:
        settings = Settings.model_validate(raw, context={"directory": path.absolute().parent})
    except ValidationError as exc:
        problems += [_located(path, origins, at, what) for at, what in sentences(exc)]
        raise ConfigError("\n".join(problems)) from None
    problems += [_located(path, origins, at, what) for at, what in _contradictions(settings)]
    if problems:
        raise ConfigError("\n".join(problems))
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path, max_bytes=MAX_FILE_BYTES)
    except Unreadable as exc:
        raise ConfigError(f"settings: {exc}") from exc.__cause__
    try:
        return tomllib.loads(text)
    except ValueError as exc:
        raise ConfigError(f"{path}: {toml_sentence(str(exc))}") from None
    except RecursionError:
        raise ConfigError(f"{path}: lists or tables are nested too deeply") from None


def _located(path: Path, origins: Mapping[KeyPath, str], at: KeyPath, what: str) -> str:
    """`what` after the place to mend: the variable if one gave the value, else file and key."""
    for length in range(len(at), 0, -1):
        if (variable := origins.get(at[:length])) is not None:
            return f"environment {variable}: {what}"
    return f"{path}: {key_text(at)}: {what}" if at else f"{path}: {what}"


def _contradictions(settings: Settings) -> Iterator[tuple[KeyPath, str]]:
    """What each key alone cannot show."""
    names = [pbx.name for pbx in settings.pbx]
    for index, rule in enumerate(settings.tenancy.rules):
        if rule.pbx is not None and rule.pbx not in names:
            yield ("tenancy", "rules", index, "pbx"), f"no PBX is named {rule.pbx!r}; {did_you_mean(rule.pbx, names)}"
    authorities: list[tuple[KeyPath, Path | None]] = [
        *((("pbx", index, "tls_ca_file"), pbx.tls_ca_file) for index, pbx in enumerate(settings.pbx)),
        *(
            (("pbx", index, "sources", number, "tls_ca_file"), source.tls_ca_file)
            for index, pbx in enumerate(settings.pbx)
            for number, source in enumerate(pbx.sources)
        ),
        (("live", "tls_ca_file"), settings.live.tls_ca_file),
        (("central", "tls_ca_file"), settings.central.tls_ca_file if settings.central else None),
    ]
    for at, file in authorities:
        if file is not None and (fault := _fault_of(file)) is not None:
            yield at, fault


def _fault_of(file: Path) -> str | None:
    try:
        read_text(file, max_bytes=MAX_FILE_BYTES)
    except Unreadable as exc:
        return str(exc)
    return None
