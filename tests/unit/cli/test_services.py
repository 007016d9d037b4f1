"""`edge-agent services`: what is refused before anybody is asked."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.cli.main import app


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["bot"], "--tenant NAME"),
        (["bot", "--tenant", "acme", "--all-tenants"], "--tenant NAME"),
        (["Bot", "--all-tenants"], "'Bot' is no name"),
        (["bot", "--tenant", "a b"], "'a b' is no name"),
    ],
)
def test_a_service_needs_a_name_and_tenants(tmp_path: Path, arguments: list[str], told: str) -> None:
    file = tmp_path / "agent.toml"
    file.write_text('site = "ist-01"\n')

    done = CliRunner().invoke(app, ["services", "add", *arguments, "--config", str(file)])

    assert done.exit_code == 2
    assert told in done.output
    assert "edge_" not in done.output
