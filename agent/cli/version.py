"""`edge-agent version`: which program this is."""

import json
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Final

from agent.cli.output import AsJson, say, say_json

DISTRIBUTION: Final = "sentiric-edge-agent"


def show_version(*, as_json: AsJson = False) -> None:
    """Show the program's version, the commit it was made from if known, and what it runs on."""
    program, commit = metadata.version(DISTRIBUTION), known_commit()
    if as_json:
        import sqlite3

        say_json(
            {
                "version": program,
                "commit": commit,
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
                "machine": platform.machine(),
            }
        )
    else:
        say(f"edge-agent {program}{f' ({commit[:12]})' if commit else ''}")


def known_commit() -> str | None:
    """The commit that pip noted when it installed from Git, or the one that a checkout stands at."""
    text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    noted = json.loads(text) if text else {}
    commit = noted.get("vcs_info", {}).get("commit_id")
    if isinstance(commit, str):
        return commit
    checkout = Path(__file__).resolve().parents[2]
    return _checked_out(checkout / ".git") if (checkout / "pyproject.toml").is_file() else None


def _checked_out(git: Path) -> str | None:
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return _commit(head)
        name = head.removeprefix("ref: ")
        loose = git / name
        if loose.is_file():
            return _commit(loose.read_text().strip())
        packed = (git / "packed-refs").read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((_commit(line.split(" ")[0]) for line in packed if line.endswith(f" {name}")), None)


def _commit(text: str) -> str | None:
    return text if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", text) else None
