"""Who gives a command, for what is kept of it."""

import getpass
import os


def who() -> str:
    """The operating system's user, also behind sudo."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
