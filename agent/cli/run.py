"""`edge-agent run`: the agent itself, in the foreground."""

import os
import sys

from agent.cli.settings import DEFAULT_FILE, ConfigFile, load


def run_agent(*, file: ConfigFile = DEFAULT_FILE) -> None:
    """Capture calls until SIGTERM or Ctrl-C; SIGHUP reads tenant and trunk rules again.

    Logs go to stderr. systemd starts this; by hand it is for trying things out.
    """
    import asyncio

    from config.describe import secrets_in
    from config.logs import set_up_logging

    settings = load(file)
    set_up_logging(settings.log, secrets=secrets_in(settings), stream=sys.stderr, environ=os.environ)

    from agent.daemon import run

    asyncio.run(run(settings, reload=lambda: load(file)))
