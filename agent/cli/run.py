"""`edge-agent run`: the agent itself, in the foreground."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent.cli.faults import CommandFailed
from agent.cli.settings import DEFAULT_FILE, ConfigFile, load
from config.errors import ConfigError

if TYPE_CHECKING:
    from config.settings import Settings


def run_agent(*, file: ConfigFile = DEFAULT_FILE) -> None:
    """Capture calls until SIGTERM or Ctrl-C; SIGHUP reads tenant and trunk rules again.

    Logs go to stderr. systemd starts this; by hand it is for trying things out.
    """
    # Until the daemon takes them, a reload must not end what has just been started.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    import asyncio

    from agent.allocator import give_back_what_is_free
    from config.describe import secrets_in
    from config.logs import set_up_logging

    give_back_what_is_free()
    settings = load(file)
    set_up_logging(settings.log, secrets=secrets_in(settings), stream=sys.stderr, environ=os.environ)

    from agent.daemon import run

    asyncio.run(run(settings, reload=lambda: _load_again(file)))


def _load_again(file: Path) -> "Settings":
    """The settings as they are now. Raises ConfigError also when their file is gone: the agent goes on without it."""
    try:
        return load(file)
    except CommandFailed as exc:
        raise ConfigError(str(exc)) from exc
