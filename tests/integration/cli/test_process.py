"""`edge-agent` as a process: what it loads, and how it ends when the world does not wait for it."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli.faults import ExitCode
from tests.unit.cli.local_site import SECRET, SETTINGS, LocalSite, call

PROGRAM = str(Path(sys.executable).with_name("edge-agent"))


@pytest.fixture
def site(tmp_path: Path) -> LocalSite:
    site = LocalSite(tmp_path)
    site.keep(*(call(number) for number in range(60)))
    return site


def run(
    site: LocalSite, *arguments: str, stdout: int | None = None, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [PROGRAM, *arguments],
        env=os.environ | {"SENTIRIC_EDGE_CONFIG": str(site.file)} | (env or {}),
        stdout=subprocess.PIPE if stdout is None else stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )


def modules_after(code: str, site: LocalSite) -> set[str]:
    """What is loaded once `code` has run in a fresh interpreter."""
    show = "import json, sys; json.dump(sorted(sys.modules), sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"],
        env=os.environ | {"SENTIRIC_EDGE_CONFIG": str(site.file)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def command(*arguments: str) -> str:
    return f"from agent.cli.main import app\ntry: app({list(arguments)!r})\nexcept SystemExit: pass"


def test_commands_that_must_be_quick_load_nothing_heavy(site: LocalSite) -> None:
    assert not {"config.settings", "sqlalchemy", "asyncio", "rich"} & modules_after(command("version"), site)
    assert not {"sqlalchemy", "httpx", "asyncpg", "rich"} & modules_after(command("status"), site)
    assert not {"sqlalchemy", "httpx", "asyncpg", "rich"} & modules_after(command("calls", "list"), site)


def test_the_daemon_does_not_carry_what_only_a_terminal_needs(site: LocalSite) -> None:
    loaded = modules_after("from agent.cli.main import app; import agent.daemon, config.load", site)
    assert not {"rich", "agent.simulator.server", "agent.cli.demonstration.story"} & loaded


def test_a_reader_that_goes_away_is_no_fault(site: LocalSite) -> None:
    for arguments in (["calls", "export", "-f", "jsonl"], ["calls", "list"], ["config", "show"]):
        read, write = os.pipe()
        os.close(read)
        done = run(site, *arguments, stdout=write)
        os.close(write)
        assert (done.returncode, done.stderr) == (ExitCode.NOBODY_READS, ""), arguments


def test_a_disk_that_is_full_is_one_sentence(site: LocalSite) -> None:
    for arguments in (["calls", "export", "-f", "csv"], ["version"], ["calls", "list", "--json"]):
        with open("/dev/full", "wb") as full:
            done = run(site, *arguments, stdout=full.fileno())
        assert done.returncode == ExitCode.ERROR, arguments
        assert done.stderr.startswith("edge-agent: ")
        assert done.stderr.endswith("No space left on device\n")
        assert len(done.stderr.splitlines()) == 1


def test_ctrl_c_ends_a_watch_in_good_order(site: LocalSite) -> None:
    watching = subprocess.Popen(
        [PROGRAM, "status", "--watch", "--interval", "0.1", "--json"],
        env=os.environ | {"SENTIRIC_EDGE_CONFIG": str(site.file)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with watching:
        assert watching.stdout is not None
        first, second = watching.stdout.readline(), watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=20)
    assert json.loads(first)["verdict"] == json.loads(second)["verdict"] == "stopped"
    assert (watching.returncode, errors) == (ExitCode.OK, "")


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colours_unless_they_are_not_wanted(
    site: LocalSite, env: dict[str, str], coloured: bool
) -> None:
    main, side = pty.openpty()
    environ = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"} | env
    with os.fdopen(main, "rb") as screen:
        subprocess.run([PROGRAM, "status", "-c", str(site.file)], env=environ, stdout=side, stderr=side, check=False)
        os.close(side)
        assert (b"\x1b[31mSTOPPED" in screen.read1(65536)) is coloured


def test_names_that_the_terminal_cannot_show_stop_nothing(site: LocalSite) -> None:
    done = run(site, "calls", "show", "00.0", env={"PYTHONIOENCODING": "iso-8859-1"})
    assert done.returncode == ExitCode.OK
    assert "Ay?e Y?lmaz" in done.stdout
    done = run(site, "calls", "export", "-f", "csv", env={"PYTHONIOENCODING": "iso-8859-9"})
    assert "Ayşe Yılmaz" in done.stdout  # a file for other programs is always UTF-8


def test_run_says_in_one_sentence_why_it_cannot_start(tmp_path: Path) -> None:
    site = LocalSite(tmp_path)
    (tmp_path / "state").write_text("a file where a directory should be")
    done = run(site, "run")
    assert done.returncode == ExitCode.ERROR
    assert done.stderr.splitlines()[-1].startswith("edge-agent: ")
    assert "state_directory" in done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


def test_run_with_a_directory_in_the_place_of_the_database_says_so(tmp_path: Path) -> None:
    site = LocalSite(tmp_path)
    site.database.mkdir(parents=True)
    done = run(site, "run")
    assert done.returncode == ExitCode.ERROR
    assert f"edge-agent: {site.database} cannot be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_keeps_its_traceback(tmp_path: Path) -> None:
    site = LocalSite(tmp_path, SETTINGS)
    code = (
        "import agent.daemon\n"
        "async def run(*_, **__): raise ExceptionGroup('tasks', [KeyError('a bug')])\n"
        "agent.daemon.run = run\n"
        "from agent.cli.main import main; import sys; sys.argv[1:] = ['run']; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"SENTIRIC_EDGE_CONFIG": str(site.file)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode not in {ExitCode.OK, ExitCode.ERROR}
    assert "KeyError: 'a bug'" in done.stderr
    assert "Traceback" in done.stderr
