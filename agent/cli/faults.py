"""What commands say when they cannot do their work: a sentence on stderr and an exit code, no traceback."""

import errno
import os
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from agent.errors import AgentError
from config.errors import ConfigError
from sync.errors import SyncError


class ExitCode(IntEnum):
    """How a command ended; a promise to scripts."""

    OK = 0
    WARNING = 1  # only where an option asks for it
    ERROR = 2
    NOT_RUNNING = 3
    NOT_CONFIGURED = 4
    INTERRUPTED = 130
    NOBODY_READS = 141  # as programs that SIGPIPE ends


class CommandFailed(Exception):
    """A command cannot do what was asked; the text says why and what to do, `code` is how to exit."""

    code = ExitCode.ERROR


class NotRunning(CommandFailed):
    """No agent is running, and without one this command cannot answer."""

    code = ExitCode.NOT_RUNNING


class NotConfigured(CommandFailed):
    """There is no settings file."""

    code = ExitCode.NOT_CONFIGURED


class Commands(TyperGroup):
    """The program's commands; the world's faults end them with a sentence, bugs with a traceback."""

    def invoke(self, ctx: Any) -> Any:  # Any: typer keeps its own copy of click, whose types are private
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except BrokenPipeError:
            raise typer.Exit(ExitCode.NOBODY_READS) from None
        except Exception as exc:
            faults = list(_leaves(exc))
            if not all(_is_the_worlds(fault) for fault in faults):
                raise
            for line in dict.fromkeys(line for fault in faults for line in sentences(fault)):
                typer.echo(f"edge-agent: {line}", err=True)
            raise typer.Exit(code_of(faults[0])) from None


def code_of(fault: BaseException) -> ExitCode:
    """How to exit because of it."""
    return fault.code if isinstance(fault, CommandFailed) else ExitCode.ERROR


def sentences(fault: BaseException) -> list[str]:
    """What to tell; settings can be wrong in several places at once."""
    if isinstance(fault, OSError):
        where = f"{os.fspath(fault.filename)!s}: " if isinstance(fault.filename, str | os.PathLike) else ""
        return [f"{where}{fault.strerror or fault}"]
    return str(fault).splitlines() or [type(fault).__name__]


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    """What a task group collected, or the exception itself."""
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    else:
        yield exc


# What an operator can do something about: files, rights, disks. Any other OSError that arrives here is a bug.
_OPERATORS = frozenset(
    {
        errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENOSPC,
        errno.EDQUOT, errno.EIO, errno.ENAMETOOLONG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ELOOP,
        errno.EADDRINUSE,
    }
)  # fmt: skip


def _is_the_worlds(fault: BaseException) -> bool:
    if isinstance(fault, OSError):
        return fault.errno in _OPERATORS
    return isinstance(fault, CommandFailed | ConfigError | AgentError | SyncError)
