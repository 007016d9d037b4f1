"""Showing something again and again until Ctrl-C, or until whoever reads it has gone."""

import time
from collections.abc import Iterator
from typing import Annotated

import typer

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until Ctrl-C.")]
Interval = Annotated[float, typer.Option(min=0.1, help="Seconds between two looks of --watch.")]


def watched(watch: bool, interval: float) -> Iterator[bool]:
    """Once, or again and again; tells whether it is the first time. Ctrl-C is the ordinary way to end it."""
    yield True
    if not watch:
        return
    try:
        while True:
            time.sleep(interval)
            yield False
    except KeyboardInterrupt:
        return
