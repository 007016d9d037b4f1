"""The wheel as it would be released, and a machine with the release beside it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.packaging.machine import Machine, why_machines_cannot_boot

CHECKOUT = Path(__file__).resolve().parents[2]
RELEASE = "/mnt/release"  # where the machine sees wheels/ and systemd/


# pip asks the interpreter it runs on which requirements apply, even when it downloads for another version.
# Debian 12's Python 3.11.2 needs a package that 3.11.3 does not, so pip is told the other's version.
PIP_FOR_ANOTHER_PYTHON = """
import platform, sys
version = sys.argv.pop(1)
platform.python_version = lambda: version
platform.python_version_tuple = lambda: tuple(version.split("."))
from pip._internal.cli.main import main
sys.exit(main())
"""


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def unavailable(why: str) -> NoReturn:
    """Skip, except where everything is promised to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution built from this checkout."""
    directory = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "--quiet", "wheel", "--no-deps", f"--wheel-dir={directory}", CHECKOUT)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def debian_root() -> Path:
    """A Debian 12 root, made on first use and kept outside of the checkout; SENTIRIC_DEBIAN_ROOT names its place."""
    if why := why_machines_cannot_boot():
        unavailable(why)
    place = os.environ.get("SENTIRIC_DEBIAN_ROOT")
    done = subprocess.run(
        [CHECKOUT / "scripts" / "debian-root", *([place] if place else [])],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        unavailable((done.stderr.strip().splitlines() or ["debian-root failed"])[-1])
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def wheelhouse(wheel: Path, debian_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel and all it needs, for the Python of Debian 12 whichever runs the tests."""
    directory = tmp_path_factory.mktemp("wheelhouse")
    version = run("chroot", debian_root, "python3", "-c", "import platform; print(platform.python_version())")
    pip = [sys.executable, "-c", PIP_FOR_ANOTHER_PYTHON, version, "--quiet"]
    run(*pip, "download", "--only-binary=:all:", f"--python-version={version}", f"--dest={directory}", wheel)
    return directory


@pytest.fixture(scope="module")
def machine(debian_root: Path, wheelhouse: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted Debian 12 that sees the release, nothing of it being installed yet."""
    console = tmp_path_factory.mktemp("machine") / "console.log"
    release = {f"{RELEASE}/wheels": wheelhouse, f"{RELEASE}/systemd": CHECKOUT / "systemd"}
    with Machine(debian_root, console=console, read_only=release) as machine:
        yield machine
