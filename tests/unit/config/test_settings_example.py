"""The commented example is complete and true."""

import re
import tomllib
from pathlib import Path
from typing import Any

import config
from config.keys import every_key, key_text, section_type, without_none
from config.load import load_settings
from config.settings import Settings

EXAMPLE = Path(config.__file__).parent / "agent.example.toml"
# A key or heading right after the "#": a setting that is switched off. Prose has a space there.
SWITCHED_OFF = re.compile(r"^#(?=[a-z_]+ = |\[)", re.MULTILINE)


def everything_switched_on() -> dict[str, Any]:
    return tomllib.loads(SWITCHED_OFF.sub("", EXAMPLE.read_text(encoding="utf-8")))


def value_at(raw: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        raw = raw[step]
    return raw


def test_the_example_is_usable_once_the_secret_is_given(tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_bytes(EXAMPLE.read_bytes())
    settings = load_settings(file, {"SENTIRIC_EDGE_PBX__MAIN__SECRET": "geheim"})
    assert settings.site == "istanbul-1"
    assert settings.central is None


def test_every_setting_is_in_the_example() -> None:
    raw = everything_switched_on()
    missing = []
    for path in every_key():
        try:
            value_at(raw, path)
        except (KeyError, IndexError):
            missing.append(key_text(path))
    assert missing == []


def test_the_example_shows_the_true_defaults() -> None:
    raw = everything_switched_on()
    wrong = []
    for path in every_key():
        model = Settings
        for step in path[:-1]:
            if isinstance(step, str):
                annotation = without_none(model.model_fields[step].annotation)
                inner = section_type(annotation) or section_type(annotation.__args__[0])
                assert inner is not None
                model = inner  # type: ignore[assignment]  # a section, which is all that is asked of it
        field = model.model_fields[str(path[-1])]
        shown, default = value_at(raw, path), field.default
        if isinstance(shown, dict) or field.is_required() or default is None or default == ():
            continue
        if shown != (list(default) if isinstance(default, tuple) else type(shown)(default)):
            wrong.append(f"{key_text(path)}: {shown!r} is shown, {default!r} is the default")
    assert wrong == []


def test_a_key_without_a_default_is_marked_as_not_set() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for key in ("tls_ca_file", "tls_server_name", "default", "secret_file", "password_file"):
        comment = text[: text.index(f"\n#{key} = ")].rsplit("\n#\n", 1)[-1].splitlines()[-3:]
        assert any("ot set" in line for line in comment), key
