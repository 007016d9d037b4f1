"""What the wheel holds, since packages named agent, sync and config are easily stepped upon."""

import importlib.metadata
import zipfile
from pathlib import Path

import pytest

from tests.packaging.conftest import CHECKOUT

OURS = {"agent", "sync", "config"}
DISTRIBUTION = "sentiric-edge-agent"


@pytest.fixture(scope="module")
def files(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def test_the_wheels_top_level_is_our_three_packages(files: list[str]) -> None:
    top = {name.partition("/")[0] for name in files}

    assert {name for name in top if not name.endswith(".dist-info")} == OURS
    assert len(top) == len(OURS) + 1


def test_no_other_installed_distribution_ships_a_package_of_our_names() -> None:
    strangers = {
        distribution.metadata["Name"]
        for distribution in importlib.metadata.distributions()
        for file in distribution.files or []
        if file.parts[0].removesuffix(".py") in OURS
    }

    assert strangers <= {DISTRIBUTION}


def test_the_wheel_ships_the_commented_example_of_the_settings(files: list[str]) -> None:
    examples = [name for name in files if name.startswith("config/") and name.endswith(".example.toml")]

    assert examples


@pytest.mark.parametrize("side", ["agent/store/migrations", "sync/central/migrations"])
def test_the_wheel_ships_every_migration_of(side: str, files: list[str]) -> None:
    in_checkout = {
        str(path.relative_to(CHECKOUT))
        for path in (CHECKOUT / side).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert f"{side}/env.py" in in_checkout
    assert any(name.startswith(f"{side}/versions/") for name in in_checkout)
    assert in_checkout <= set(files)


def test_the_wheel_ships_no_tests_and_no_caches(files: list[str]) -> None:
    assert not [name for name in files if "tests/" in name or "__pycache__" in name]


def test_the_wheel_makes_both_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (info,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        metadata = importlib.metadata.PathDistribution(zipfile.Path(archive, f"{info}/"))
        commands = {point.name: point for point in metadata.entry_points.select(group="console_scripts")}

        assert set(commands) == {"edge-agent", "edge-hub"}
        for point in commands.values():
            assert f"{point.module.replace('.', '/')}.py" in archive.namelist()
