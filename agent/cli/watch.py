"""Showing something again and again until Ctrl-C."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated

import typer

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")]
Interval = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")]


def show_again_and_again(show: Callable[[], object], *, interval: float) -> None:
    """Until Ctrl-C, which is the ordinary way to end it."""
    with suppress(KeyboardInterrupt):
        while True:
            show()
            time.sleep(interval)
