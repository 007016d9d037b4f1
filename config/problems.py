"""What is wrong with settings, in sentences for the person who wrote them."""

import re
from collections.abc import Mapping, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from config.keys import (
    KeyPath,
    annotation_at,
    did_you_mean,
    every_key,
    is_secret,
    key_text,
    listed_section,
    section_type,
)

# What pydantic calls an error → what to do about it. The names in braces are pydantic's facts about the error.
_SENTENCES: Mapping[str, str] = {
    "string_type": "must be text in quotes",
    "path_type": "must be a path in quotes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false, without quotes",
    "bool_parsing": "must be true or false, without quotes",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "use {expected}",
    "enum": "use {expected}",
}


def sentences(error: ValidationError) -> list[tuple[KeyPath, str]]:
    """Where settings are wrong, and how; never what a secret is."""
    return [(tuple(details["loc"]), _sentence(details)) for details in error.errors(include_url=False)]


def toml_sentence(message: str) -> str:
    """tomllib's message with the remedy for what people usually mean; it never holds a value."""
    for pattern, remedy in _TOML_REMEDIES:
        if re.search(pattern, message):
            return f"{message}: {remedy}"
    return message


_TOML_REMEDIES: Sequence[tuple[str, str]] = (
    (r"^Cannot overwrite a value", "a key or section is given twice; if it is a list of sections, write [[name]]"),
    (r"^Cannot declare", "the section is given twice; if it is a list of sections, write [[name]]"),
    (r"^Invalid value", "text needs quotes, lists need [ and ], true and false are written small"),
    (r"^Unescaped '\\\\' in a string", "write the text in single quotes, or \\\\ for each backslash"),
    (r"^Unterminated string|^Illegal character", "a closing quote is missing"),
    (r"^Expected '=' after a key", "write key = value"),
    (r"^Expected newline or end of document", "text needs quotes, and each key its own line"),
)


def _sentence(details: ErrorDetails) -> str:
    path: KeyPath = tuple(details["loc"])
    kind, facts = details["type"], details.get("ctx", {})
    match kind:
        case "missing":
            text = _missing(path)
        case "extra_forbidden":
            return _unknown(path)
        case "value_error":
            text = str(facts["error"])
        case "tuple_type":
            text = f"must be a list: write {_list_form(path)}"
        case "model_type" | "model_attributes_type" | "dict_type":
            text = f"must be a section: write {_section_form(path)}"
        case _:
            text = _SENTENCES[kind].format(**_plainly(facts)) if kind in _SENTENCES else details["msg"]
    return _shown(details["input"], path, kind) + text


def _plainly(facts: Mapping[str, object]) -> dict[str, object]:
    return {name: f"{fact:g}" if isinstance(fact, float) else fact for name, fact in facts.items()}


def _shown(value: object, path: KeyPath, kind: str) -> str:
    """The wrong value where it helps; texts only where a word of a closed set was expected."""
    if is_secret(path):
        return ""
    if isinstance(value, bool | int | float) or (isinstance(value, str) and kind in {"literal_error", "enum"}):
        return f"{value!r}: "
    return ""


def _missing(path: KeyPath) -> str:
    if path and isinstance(path[-1], int):
        return "missing: the list is too short"
    section = section_type(annotation_at(path[:-1]))
    field = section.model_fields.get(str(path[-1])) if section else None
    example = field.examples[0] if field is not None and field.examples else None
    return f"missing: write for example {path[-1]} = {example!r}".replace("'", '"') if example else "missing"


def _unknown(path: KeyPath) -> str:
    key, here = str(path[-1]), path[:-1]
    section = section_type(annotation_at(here))
    known = list(section.model_fields) if section else []
    elsewhere = [place[:-1] for place in every_key() if place[-1] == key]
    near = did_you_mean(key, known)
    if elsewhere and not near.startswith("did"):
        places = " or ".join(_heading(place) for place in elsewhere)
        return f"unknown key here; it belongs under {places}, and a section ends where the next one begins"
    return f"unknown key; {near}"


def _heading(path: KeyPath) -> str:
    if not path:
        return "no section (write it before the first one)"
    names = ".".join(step for step in path if isinstance(step, str))
    return f"[[{names}]]" if isinstance(path[-1], int) else f"[{names}]"


def _list_form(path: KeyPath) -> str:
    names = ".".join(step for step in path if isinstance(step, str))
    if listed_section(annotation_at(path)) is not None:
        return f"[[{names}]] with two brackets"
    return f'{path[-1]} = ["…", "…"]' if path else "[…]"


def _section_form(path: KeyPath) -> str:
    heading = _heading(path)
    return f"{heading} and its keys below" if key_text(path) else "keys and sections"
