"""Secrets: from the settings themselves, from a file, or from systemd's credentials."""

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from config.files import Unreadable, read_text
from config.keys import KeyPath, key_text

MAX_SECRET_BYTES: Final = 64 * 1024
# LoadCredential=edge:DIRECTORY gives every file in the directory a name with this before it.
_DIRECTORY_PREFIX: Final = "edge_"


@dataclass(frozen=True, slots=True)
class _Wanted:
    path: KeyPath  # where the secret belongs; the key for a file is the same with _file
    credential: str
    required_because: str | None

    @property
    def file_path(self) -> KeyPath:
        return (*self.path[:-1], f"{self.path[-1]}_file")


def fill_in(
    raw: dict[str, Any], *, file: Path, environ: Mapping[str, str], from_environment: set[KeyPath]
) -> list[str]:
    """Put every secret into `raw` as text, from wherever it is given; tell what is wrong.

    What the settings say goes before a credential. A secret in the settings file itself is taken only if others
    on the machine cannot read that file.
    """
    problems: list[str] = []
    for wanted in _wanted(raw):
        section = _section(raw, wanted.path)
        key, file_key = str(wanted.path[-1]), str(wanted.file_path[-1])
        inline, secret_file = section.get(key), section.get(file_key)
        try:
            if inline is not None and secret_file is not None:
                problems.append(f"{key_text(wanted.path)}: give {key} or {file_key}, not both")
            elif inline is not None:
                if wanted.path not in from_environment and _others_can_read(file):
                    problems.append(
                        f"{key_text(wanted.path)}: other users of this machine can read this file; "
                        f"run `chmod o-rwx {file}`, or use {file_key}"
                    )
            elif isinstance(secret_file, str | Path):
                section[key] = read_secret(file.parent / secret_file)
            elif secret_file is None and (credential := _credential(wanted.credential, environ)) is not None:
                section[key] = read_secret(credential)
            elif secret_file is None and wanted.required_because is not None:
                problems.append(_how_to_give(wanted))
        except Unreadable as exc:
            at = wanted.file_path if secret_file is not None else wanted.path
            problems.append(f"{key_text(at)}: {exc}")
    return problems


def _wanted(raw: Mapping[str, Any]) -> Iterator[_Wanted]:
    entries = raw.get("pbx")
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict):
            name = entry.get("name", "NAME")
            yield _Wanted(("pbx", index, "secret"), f"pbx-{name}-secret", "the PBX asks for one")
            yield from _of_sources(entry.get("sources"), ("pbx", index, "sources"), f"pbx-{name}")
    live, central = raw.get("live"), raw.get("central")
    if isinstance(live, dict):
        yield _Wanted(("live", "password"), "live-password", "a user name is given" if live.get("username") else None)
    if isinstance(central, dict):
        is_hub = str(central.get("url")).startswith(("https:", "http:"))
        key = "credential" if is_hub else "password"
        yield _Wanted(("central", key), f"central-{key}", None)


def _of_sources(entries: Any, path: KeyPath, pbx: str) -> Iterator[_Wanted]:  # Any: what stands in the file
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict) and "url" in entry:
            name = entry.get("name", entry.get("kind", "NAME"))
            yield _Wanted((*path, index, "password"), f"{pbx}-{name}-password", None)


def _section(raw: dict[str, Any], path: KeyPath) -> dict[str, Any]:
    place: Any = raw
    for step in path[:-1]:
        place = place[step]
    section: dict[str, Any] = place
    return section


def _how_to_give(wanted: _Wanted) -> str:
    key, file_key = wanted.path[-1], wanted.file_path[-1]
    return (
        f"{key_text(wanted.path)}: missing, and {wanted.required_because}; "
        f'give it as {file_key} = "/path/to/file", as the systemd credential {wanted.credential}, '
        f'or as {key} = "…" in a file that only the agent can read'
    )


def _credential(name: str, environ: Mapping[str, str]) -> Path | None:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory or "/" in name:
        return None
    candidates = (Path(directory, prefix + name) for prefix in ("", _DIRECTORY_PREFIX))
    return next((candidate for candidate in candidates if candidate.exists()), None)


def read_secret(file: Path) -> str:
    """The file's text without the line end that editors and `echo` leave. Raises Unreadable."""
    text = read_text(file, max_bytes=MAX_SECRET_BYTES).rstrip("\r\n")
    if not text:
        raise Unreadable(f"{file} is empty; write the secret into it")
    if "\n" in text or "\r" in text:
        raise Unreadable(f"{file} holds more than one line; write only the secret into it")
    return text


def _others_can_read(file: Path) -> bool:
    return bool(file.stat().st_mode & stat.S_IROTH)
