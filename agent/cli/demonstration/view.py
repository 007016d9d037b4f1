"""What the demonstration shows while it runs: a picture on a terminal, plain lines elsewhere."""

from dataclasses import dataclass, field
from typing import Final

from agent.cli.local import Row
from agent.cli.output import Colour, clock, is_terminal, painted, printable, say, say_again, table

_LINE_SECONDS: Final = 5.0  # between two plain lines


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment of the demonstration."""

    elapsed_seconds: float
    total_seconds: float  # 0: until Ctrl-C
    placing: bool
    centre_is_up: bool
    placed: int
    live: int
    captured: int
    arrived: int
    waiting: int
    newest: list[Row] = field(default_factory=list)
    arrived_sids: frozenset[str] = frozenset()


class View:
    """Shows pictures as they come."""

    def __init__(self) -> None:
        self._last_line_at = -_LINE_SECONDS

    def show(self, picture: Picture) -> None:
        """Show it, or pass it over if a plain line was written just before."""
        if is_terminal():
            say_again("\n".join(_picture_lines(picture)))
        elif picture.elapsed_seconds - self._last_line_at >= _LINE_SECONDS:
            self._last_line_at = picture.elapsed_seconds
            say(_line(picture))

    def tell(self, sentence: str) -> None:
        """A turn in the story; on a terminal the picture shows it."""
        if not is_terminal():
            say(sentence)


def _line(picture: Picture) -> str:
    return (
        f"{clock(picture.elapsed_seconds):>6}  placed {picture.placed:<5} live {picture.live:<4} "
        f"captured {picture.captured:<5} in PostgreSQL {picture.arrived:<5} waiting {picture.waiting:<5} "
        f"PostgreSQL is {'up' if picture.centre_is_up else 'away'}"
    )


def _picture_lines(picture: Picture) -> list[str]:
    of = f" of {clock(picture.total_seconds)}" if picture.total_seconds else ", Ctrl-C ends it"
    centre = painted("up", Colour.GOOD) if picture.centre_is_up else painted("away, calls wait", Colour.BAD)
    placing = "calls come in" if picture.placing else "no more calls come in, those under way end"
    lines = [
        f"Sentiric Edge Agent, demonstration: {clock(picture.elapsed_seconds)}{of}",
        "",
        f"simulated PBX   {picture.placed} calls placed, {picture.live} live; {placing}",
        f"edge agent      {picture.captured} calls captured in SQLite, {picture.waiting} waiting to be sent",
        f"PostgreSQL      {picture.arrived} calls arrived; {centre}",
        "",
    ]
    rows = [
        (
            f"{row['start_time'].astimezone():%H:%M:%S}",
            row["tenant"] or "(none)",
            row["direction"],
            printable(row["caller_id"] or "withheld"),
            printable(row["callee_id"] or "-"),
            row["disposition"] or row["status"],
            clock(row["talk_seconds"]),
            "in PostgreSQL" if row["call_sid"] in picture.arrived_sids else "waits",
        )
        for row in picture.newest
    ]
    return [*lines, *table(("STARTED", "TENANT", "DIRECTION", "CALLER", "CALLEE", "OUTCOME", "TALK", ""), rows)]
