"""The keys that settings can have, read off the settings' own types."""

from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from config.settings import Settings

# One step into the settings: a key, or an entry's place in a list.
Step = str | int
KeyPath = tuple[Step, ...]


def key_text(path: Sequence[Step]) -> str:
    """A path as people write it: `pbx[0].port`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def annotation_at(path: Sequence[Step]) -> Any:
    """The type of what stands at `path`, without its `| None`; None if there is no such key."""
    annotation: Any = Settings
    for step in path:
        if isinstance(step, int):
            annotation = _entry_type(annotation)
        elif (model := section_type(annotation)) is not None and step in model.model_fields:
            annotation = without_none(model.model_fields[step].annotation)
        else:
            return None
    return annotation


def section_type(annotation: Any) -> type[BaseModel] | None:
    """The section's class if `annotation` is one."""
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_section else None


def listed_section(annotation: Any) -> type[BaseModel] | None:
    """The class of the entries if `annotation` is a list of sections."""
    return section_type(_entry_type(annotation))


def without_none(annotation: Any) -> Any:
    """`X` of `X | None` and of `Annotated[X, …]`, any other annotation as it is."""
    if get_origin(annotation) is Annotated:
        return without_none(get_args(annotation)[0])
    if get_origin(annotation) in {Union, UnionType}:
        choices = [choice for choice in get_args(annotation) if choice is not type(None)]
        return without_none(choices[0]) if len(choices) == 1 else annotation
    return annotation


def every_key(model: type[BaseModel] = Settings, at: KeyPath = ()) -> Iterator[KeyPath]:
    """All keys there are, sections and what is in them; a list of sections shows as its entry 0."""
    for name, field in model.model_fields.items():
        annotation = without_none(field.annotation)
        path: KeyPath = (*at, name)
        yield path
        if (inner := section_type(annotation)) is not None:
            yield from every_key(inner, path)
        elif (entry := listed_section(annotation)) is not None:
            yield from every_key(entry, (*path, 0))


def is_secret(path: Sequence[Step]) -> bool:
    """Whether the value at `path` must never be shown."""
    return annotation_at(path) is SecretStr


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word: the nearest known one, else all of them."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known here: {', '.join(names)}" if names else "nothing of the kind is set"


def _entry_type(annotation: Any) -> Any:
    arguments = get_args(annotation)
    if get_origin(annotation) is not tuple or not arguments:
        return None
    return without_none(arguments[0])
