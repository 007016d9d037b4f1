"""The section [central] of a settings file, written as an installer would: nothing else in the file is touched."""

import os
import re
import tempfile
import tomllib
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agent.cli.faults import CommandFailed

if TYPE_CHECKING:
    from config.settings import CentralSettings

_HEADER: Final = re.compile(r"\s*\[")
_CENTRAL: Final = re.compile(r"\s*\[\s*central\s*[].]")


@dataclass(frozen=True, slots=True)
class CentralSection:
    """What `file` should say of the centre."""

    file: Path
    url: str
    tls_ca_file: Path | None

    def as_settings(self) -> "CentralSettings":
        """As values. Raises CommandFailed for an address that is none, or no hub's."""
        from pydantic import ValidationError

        from config.settings import CentralSettings

        try:
            central = CentralSettings(url=self.url, tls_ca_file=self.tls_ca_file)
        except ValidationError as exc:
            raise CommandFailed(f"{self.url}: {exc.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        if not central.is_hub:
            raise CommandFailed(f"{self.url} is no hub; write https://hub.example")
        return central

    def completed_by(self, present: "CentralSettings | None") -> "CentralSection":
        """With the authority that the settings name for this hub already, unless another was given."""
        if present is None or self.tls_ca_file is not None or present.url != self.as_settings().url:
            return self
        return replace(self, tls_ca_file=present.tls_ca_file)

    def is_said_by(self, present: "CentralSettings | None") -> bool:
        """Whether these settings lead to the same hub."""
        return present is not None and (present.url, present.tls_ca_file) == (self.as_settings().url, self.tls_ca_file)

    def refuse_another(self, present: "CentralSettings | None") -> None:
        """Raise CommandFailed if the settings name another centre."""
        if present is not None and not self.is_said_by(present):
            raise CommandFailed(
                f"{self.file} names another centre, {present.address}; --replace puts this in its place"
            )

    def write(self, *, replace: bool) -> bool:
        """Have the file say it; False if it does already."""
        from config.settings import Settings

        text = self.file.read_text(encoding="utf-8-sig")
        present = tomllib.loads(text).get("central")
        if present is not None:
            central = Settings.model_validate(
                {"site": "any", "central": present}, context={"directory": self.file.absolute().parent}
            ).central
            if self.is_said_by(central):
                return False
            if not replace:
                raise CommandFailed(f"{self.file} has a section [central] already; --replace puts this in its place")
            text = _without_central(text)
        text = f"{text.rstrip()}\n\n{self.text()}"
        if tomllib.loads(text).get("central") != self._members():
            raise CommandFailed(f"{self.file} cannot be changed by a program; write this into it:\n{self.text()}")
        _replace(self.file, text)
        return True

    def text(self) -> str:
        """The section as TOML."""
        return "[central]\n" + "".join(f'{key} = "{_quoted(value)}"\n' for key, value in self._members().items())

    def _members(self) -> dict[str, str]:
        members = {"url": self.as_settings().url}
        if self.tls_ca_file is not None:
            members["tls_ca_file"] = str(self.tls_ca_file)
        return members


def _without_central(text: str) -> str:
    """The old section as comments, so that nothing anybody wrote is lost."""
    lines, is_inside = [], False
    for line in text.splitlines():
        if _HEADER.match(line):
            is_inside = _CENTRAL.match(line) is not None
        lines.append(f"# {line}".rstrip() if is_inside and line.strip() and not line.lstrip().startswith("#") else line)
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _replace(file: Path, text: str) -> None:
    """Wholly or not at all, with the owner and mode it had."""
    real = file.resolve()
    before = real.stat()
    handle, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(handle, before.st_mode & 0o7777)
            if os.geteuid() == 0:
                os.fchown(handle, before.st_uid, before.st_gid)
            os.fsync(handle)
        Path(name).replace(real)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)
