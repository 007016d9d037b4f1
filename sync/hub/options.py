"""What the commands of `edge-hub` share: where the database is, and how answers are printed."""

import asyncio
import json
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from sync.central.connection import CentralAddress
from sync.errors import SyncError

Answer = TypeVar("Answer")
Dsn = Annotated[
    str | None,
    typer.Option(envvar="SENTIRIC_HUB_DSN", help="The central database: postgresql://user@host:5432/database"),
]
DsnFile = Annotated[Path | None, typer.Option(help="A file that holds the DSN.")]
PasswordFile = Annotated[Path | None, typer.Option(help="A file that holds the database user's password.")]
TlsCaFile = Annotated[Path | None, typer.Option(help="The CA that the database's certificate must come from.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


class Misuse(SyncError):
    """The command line asks for what cannot be done; the text says what to write instead."""


def address_of(
    dsn: str | None, dsn_file: Path | None, password_file: Path | None, tls_ca_file: Path | None
) -> CentralAddress:
    """The central database that the options name. Raises Misuse."""
    if dsn_file is not None:
        try:
            dsn = dsn_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is no UTF-8 text"
            raise Misuse(f"cannot read the DSN file {dsn_file}: {why}") from None
    if not dsn:
        raise Misuse("name the central database with --dsn, --dsn-file or in SENTIRIC_HUB_DSN")
    return CentralAddress(dsn, password_file=password_file, tls_ca_file=tls_ca_file)


def run(work: Coroutine[Any, Any, Answer]) -> Answer:  # Any: what a coroutine is sent and yields
    """Run it on a loop of its own."""
    return asyncio.run(work)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, if_empty: str) -> None:
    """Rows below their heads, in columns. What machines told of themselves cannot steer the terminal."""
    if not rows:
        typer.echo(if_empty)
        return
    rows = [tuple(plain(cell) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def plain(text: str) -> str:
    """The text without what a terminal would obey."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)


def print_json(value: object) -> None:
    """For other programs."""
    typer.echo(json.dumps(value, default=_moment_as_text, ensure_ascii=False, indent=2))


def _moment_as_text(value: object) -> str:
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} has no JSON form")
    return value.astimezone(UTC).isoformat()


def ago(moment: datetime) -> str:
    """How long that was ago, for people."""
    seconds = int((datetime.now(UTC) - moment).total_seconds())
    for size, word in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {word} ago"
    return f"{max(seconds, 0)} s ago"
