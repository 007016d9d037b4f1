"""What tests of the command line share."""

from pathlib import Path

import pytest

from tests.unit.cli.local_site import LocalSite


@pytest.fixture
def site(tmp_path: Path) -> LocalSite:
    """A site without any database yet."""
    return LocalSite(tmp_path)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same clock on every machine."""
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
