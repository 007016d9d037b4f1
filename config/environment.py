"""Settings from environment variables: SENTIRIC_EDGE_CENTRAL__URL is the key `url` in the section `central`."""

import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, get_origin

from pydantic import SecretStr

from config.keys import KeyPath, annotation_at, did_you_mean, key_text, section_type

PREFIX: Final = "SENTIRIC_EDGE_"
# Names the file itself; for whoever starts the program, not a setting.
FILE_VARIABLE: Final = "SENTIRIC_EDGE_CONFIG"


def override(raw: dict[str, Any], environ: Mapping[str, str]) -> tuple[dict[KeyPath, str], list[str]]:
    """Write what the environment says into `raw`; tell which variable gave which key, and what is wrong.

    An empty variable counts as not given. A secret's variable replaces the file's `…_file` key and the reverse,
    since the environment has the last word on where the secret comes from.
    """
    origins: dict[KeyPath, str] = {}
    problems: list[str] = []
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(PREFIX) or variable == FILE_VARIABLE or not text:
            continue
        path = _path(variable, raw, problems)
        if path is None:
            continue
        if not _put(raw, path, _value(text, annotation_at(path))):
            problems.append(f"environment {variable}: {key_text(path[:-1])} in the file is no section; mend it there")
            continue
        origins[path] = variable
        _drop_other_source(raw, path, origins)
    return origins, problems


def _path(variable: str, raw: Mapping[str, Any], problems: list[str]) -> KeyPath | None:
    words = variable.removeprefix(PREFIX).lower()
    if words.startswith("pbx__"):
        return _pbx_path(variable, words.removeprefix("pbx__"), raw, problems)
    path: KeyPath = tuple(words.split("__"))
    if annotation_at(path) is not None:
        return path
    problems.append(f"environment {variable}: no such setting; {_nearest(path)}")
    return None


def _pbx_path(variable: str, rest: str, raw: Mapping[str, Any], problems: list[str]) -> KeyPath | None:
    """`main__host` → the entry of `pbx` named main. Characters a variable cannot hold are underscores in it."""
    entries = raw.get("pbx")
    names = {
        index: str(entry["name"])
        for index, entry in enumerate(entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and "name" in entry
    }
    meant = [index for index, name in names.items() if rest.startswith(_in_variable(name) + "__")]
    if len(meant) > 1:
        problems.append(
            f"environment {variable}: the PBXes {' and '.join(repr(names[index]) for index in meant)} "
            "look the same in a variable's name; set this key in the file"
        )
        return None
    if not meant:
        hint = did_you_mean(rest.partition("__")[0], names.values())
        problems.append(f"environment {variable}: no PBX in the file is named so; {hint}")
        return None
    path: KeyPath = ("pbx", meant[0], rest.removeprefix(_in_variable(names[meant[0]]) + "__"))
    if annotation_at(path) is not None:
        return path
    problems.append(f"environment {variable}: no such setting; {_nearest(path)}")
    return None


def _in_variable(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _nearest(path: KeyPath) -> str:
    for length, step in enumerate(path):
        if isinstance(step, int) or annotation_at(path[: length + 1]) is not None:
            continue
        section = section_type(annotation_at(path[:length]))
        if section is None:
            return f"{key_text(path[:length])} is no section"
        return did_you_mean(step, section.model_fields)
    raise AssertionError("only asked about a path that leads nowhere")


def _value(text: str, annotation: Any) -> Any:
    """Text for a key that takes text, else what TOML makes of it; what is no TOML is refused as text later."""
    if _takes_text(annotation):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _takes_text(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return True
    return isinstance(annotation, type) and issubclass(annotation, str | Path | SecretStr | StrEnum)


def _put(raw: dict[str, Any], path: KeyPath, value: Any) -> bool:
    place: Any = raw
    for step in path[:-1]:
        place = place[step] if isinstance(step, int) else place.setdefault(step, {})
        if not isinstance(place, dict | list):
            return False
    if not isinstance(place, dict):
        return False
    place[str(path[-1])] = value
    return True


def _drop_other_source(raw: dict[str, Any], path: KeyPath, origins: Mapping[KeyPath, str]) -> None:
    key = str(path[-1])
    other = key.removesuffix("_file") if key.endswith("_file") else f"{key}_file"
    twin: KeyPath = (*path[:-1], other)
    if annotation_at(twin) is None or annotation_at(path) is None or twin in origins:
        return
    if SecretStr not in {annotation_at(twin), annotation_at(path)}:
        return
    place: Any = raw
    for step in path[:-1]:
        place = place[step]
    place.pop(other, None)
