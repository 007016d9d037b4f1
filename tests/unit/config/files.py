"""Writing settings files for tests, and what reading them says."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from config.errors import ConfigError
from config.load import load_settings
from config.settings import Settings

PBX = 'site = "istanbul-1"\n[[pbx]]\nname = "main"\nusername = "sentiric"\n'
SECRET = "kırk-yedi-anahtar"
GOOD = f'{PBX}secret = "{SECRET}"\n'


def write(directory: Path, text: str | bytes, *, mode: int = 0o600) -> Path:
    """A settings file that only its owner can read, unless told otherwise."""
    file = directory / "agent.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    file.chmod(mode)
    return file


def read(directory: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Settings:
    """What a file of this text says."""
    return load_settings(write(directory, text), environ or {})


def complaints(directory: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> list[str]:
    """The lines of the error that a file of this text makes, with FILE and DIR for what differs in each test."""
    file = write(directory, text)
    with pytest.raises(ConfigError) as caught:
        load_settings(file, environ or {})
    return lines(caught.value, directory)


def lines(error: ConfigError, directory: Path) -> list[str]:
    """An error's lines, with FILE and DIR for what differs in each test."""
    text = str(error).replace(str(directory / "agent.toml"), "FILE").replace(str(directory), "DIR")
    return text.splitlines()
