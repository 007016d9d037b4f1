"""Settings as they are in force, told without a secret: for `config show`, and as a fingerprint for `status`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from config.settings import Settings

MASK: Final = "********"
_FINGERPRINT_DIGITS: Final = 12


def to_dict(settings: Settings) -> dict[str, Any]:
    """Every key as JSON knows it, a secret as asterisks, what is not set as None."""
    told: dict[str, Any] = _masked(settings.model_dump(mode="json"), settings.model_dump())
    return told


def to_toml(settings: Settings) -> str:
    """Every key as in a settings file; what is not set, and every secret, as a comment."""
    return "\n".join(_section_lines("", to_dict(settings))).strip() + "\n"


def fingerprint(settings: Settings) -> str:
    """Short, and the same for the same settings, whatever file, order or program version they come from.

    Secrets are no part of it: a short hash of a weak secret would give it away.
    """
    chosen = settings.model_dump(mode="json", exclude_defaults=True)
    secrets_out = _masked(chosen, settings.model_dump(exclude_defaults=True))
    canonical = json.dumps(secrets_out, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_FINGERPRINT_DIGITS]


def secrets_in(section: BaseModel) -> Iterator[SecretStr]:
    """Every secret that is set, for whoever must keep them out of something."""
    for value in dict(section).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, SecretStr):
                yield item
            elif isinstance(item, BaseModel):
                yield from secrets_in(item)


def _masked(shown: Any, typed: Any) -> Any:
    """`shown` with a mask wherever `typed`, the same values before they became JSON, has a secret."""
    if isinstance(typed, SecretStr):
        return MASK
    if isinstance(typed, Mapping):
        return {key: _masked(shown[key], value) for key, value in typed.items()}
    if isinstance(typed, tuple):
        return [_masked(one, other) for one, other in zip(shown, typed, strict=True)]
    return shown


def _section_lines(name: str, section: Mapping[str, Any]) -> Iterator[str]:
    """Plain keys first: in TOML they would else belong to the section before them."""
    inner = {key: value for key, value in section.items() if _holds_sections(value)}
    for key, value in section.items():
        if key in inner:
            continue
        if value is None:
            yield f"# {key}: not set"
        elif value == MASK:
            yield f"# {key}: set, not shown"
        else:
            yield f"{key} = {_toml_value(value)}"
    for key, value in inner.items():
        path = f"{name}.{key}" if name else key
        for entry in value if isinstance(value, list) else [value]:
            yield ""
            yield f"[[{path}]]" if isinstance(value, list) else f"[{path}]"
            yield from _section_lines(path, entry)


def _holds_sections(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    # JSON's way to write texts, numbers, true and false is TOML's too, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
