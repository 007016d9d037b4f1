"""Knowing one's child processes again after the test run that started them was itself killed."""

import contextlib
import os
import signal
from pathlib import Path

CHILDREN = "children"


def identity(pid: int) -> str:
    """A process by its pid and the kernel's start time: a pid alone may have been given to another one meanwhile."""
    return f"{pid} {_birth(pid)}"


def is_alive(who: str) -> bool:
    pid, _, birth = who.partition(" ")
    return birth != "" and _birth(int(pid)) == birth


def note_child(home: Path, pid: int) -> None:
    with (home / CHILDREN).open("a") as children:
        children.write(identity(pid) + "\n")


def end_children(home: Path) -> None:
    """Kills those noted in this directory that are still the same processes."""
    path = home / CHILDREN
    for who in path.read_text().splitlines() if path.exists() else []:
        if is_alive(who):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(who.split()[0]), signal.SIGKILL)


def _birth(pid: int) -> str:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] == "Z" else fields[19]
