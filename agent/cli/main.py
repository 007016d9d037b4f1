"""The `edge-agent` command line: which commands there are.

Every module below imports only what it needs to describe its commands; what they work with is imported when they run.
"""

import os
import sys
from contextlib import suppress
from io import TextIOWrapper

import typer

from agent.cli import calls, configuration, demo, gaps, outbox, quarantine, services, simulate, tenants
from agent.cli.backup import back_up, restore, salvage
from agent.cli.enroll import credential_app, enroll
from agent.cli.erase import erase
from agent.cli.faults import Commands, ExitCode
from agent.cli.import_calls import import_files
from agent.cli.live import show_live
from agent.cli.reconcile import reconcile
from agent.cli.record import record
from agent.cli.replay import replay
from agent.cli.run import run_agent
from agent.cli.status import show_status
from agent.cli.verify import verify
from agent.cli.version import show_version

app = typer.Typer(
    name="edge-agent",
    cls=Commands,
    help="Captures every call of a telephone exchange and syncs it to the centre.",
    epilog=(
        "Exit codes: 0 well, 1 a warning (with --fail-on-warning; of verify: not equal), 2 error, 3 no agent runs, "
        "4 not configured."
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help, and rich stays out of the daemon's memory
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run_agent)
app.command("status")(show_status)
app.add_typer(calls.app, name="calls")
app.command("live")(show_live)
app.add_typer(gaps.app, name="gaps")
app.command("verify")(verify)
app.command("enroll")(enroll)
app.add_typer(credential_app, name="credential")
app.add_typer(outbox.sync_app, name="sync")
app.command("outbox")(outbox.show_outbox)
app.add_typer(quarantine.app, name="quarantine")
app.command("reconcile")(reconcile)
app.add_typer(configuration.app, name="config")
app.add_typer(tenants.app, name="tenants")
app.add_typer(services.app, name="services")
app.command("backup")(back_up)
app.command("restore")(restore)
app.command("salvage")(salvage)
app.command("import")(import_files)
app.command("erase")(erase)
app.command("record")(record)
app.command("replay")(replay)
app.add_typer(simulate.app, name="simulate")
app.command("demo")(demo.show_demo)
app.command("version")(show_version)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # Names that the terminal's character set lacks are no reason to stop.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="edge-agent")
    except SystemExit as exc:
        raise SystemExit(_flushed(exc.code)) from None


def _flushed(code: object) -> object:
    """The exit code; another one if what was said could not be delivered, without Python's own words about it."""
    if sys.stdout is None:
        return code
    try:
        sys.stdout.flush()
    except OSError as exc:
        if not code and not isinstance(exc, BrokenPipeError):  # else it has been told
            with suppress(OSError):
                sys.stderr.write(f"edge-agent: stdout: {exc.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or (ExitCode.NOBODY_READS if isinstance(exc, BrokenPipeError) else ExitCode.ERROR).value
    return code
