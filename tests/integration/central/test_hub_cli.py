"""`edge-hub` against a real PostgreSQL, as an operator runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sync.central.database import CentralDatabase
from sync.central.schema import SCHEMA_REVISION
from tests.fakes_sync import a_batch, a_record
from tests.postgres import PostgresDatabase


def edge_hub(*arguments: str, dsn: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "SENTIRIC_HUB_DSN"}
    if dsn is not None:
        environment["SENTIRIC_HUB_DSN"] = dsn
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "from sync.hub.cli import main; main()", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def assert_one_sentence(done: subprocess.CompletedProcess[str], told: str) -> None:
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.startswith("edge-hub: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("arguments", [("-h",), ("--help",), ("tenants", "-h"), ("tenants", "add", "--help")])
def test_help_is_plain_text(arguments: tuple[str, ...]) -> None:
    done = edge_hub(*arguments)

    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")
    assert done.stdout.isascii()


def test_a_new_centre_is_made_with_two_commands(empty_database: PostgresDatabase) -> None:
    migrated = edge_hub("migrate", "--dsn", empty_database.dsn)
    added = edge_hub("tenants", "add", "acme", "--dsn", empty_database.dsn)
    listed = edge_hub("tenants", "list", dsn=empty_database.dsn)

    assert (migrated.returncode, added.returncode, listed.returncode) == (0, 0, 0)
    assert f"is at revision {SCHEMA_REVISION}." in migrated.stdout
    assert empty_database.server.password not in migrated.stdout + migrated.stderr
    assert added.stdout == "Tenant acme is active.\n"
    assert listed.stdout.splitlines() == ["TENANT  STATE   CALLS  LAST CALL", "acme    active  0      -"]


async def test_status_tells_sites_and_calls_per_tenant(central_database: PostgresDatabase) -> None:
    await central_database.add_speaking_site("istanbul", "acme", "globex")
    central = CentralDatabase(central_database.address, application_name="test", agent_version="1.2.3")
    await central.store(a_batch(a_record(1), a_record(2), a_record(3, tenant="globex"), high_water=7))
    await central.close()

    told = json.loads(edge_hub("status", "--json", dsn=central_database.dsn).stdout)
    shown = edge_hub("status", dsn=central_database.dsn)

    [site] = told["sites"]
    assert (site["name"], site["agent_version"], site["high_water"]) == ("istanbul", "1.2.3", 7)
    assert [(tenant["name"], tenant["calls"]) for tenant in told["tenants"]] == [("acme", 2), ("globex", 1)]
    assert told["tenants"][0]["last_call_at"] == "2026-03-02T12:00:02+00:00"
    assert "istanbul  1.2.3" in shown.stdout


def test_status_of_a_new_centre_says_what_to_do_next(central_database: PostgresDatabase) -> None:
    shown = edge_hub("status", dsn=central_database.dsn)

    assert "There is no site yet; add one with `edge-hub sites add NAME" in shown.stdout
    assert "`edge-hub tenants add NAME`" in shown.stdout


async def test_a_deactivated_tenant_keeps_its_calls_and_comes_back_with_add(
    central_database: PostgresDatabase,
) -> None:
    await central_database.add_speaking_site("istanbul", "acme")

    edge_hub("tenants", "deactivate", "acme", dsn=central_database.dsn)
    between = json.loads(edge_hub("tenants", "list", "--json", dsn=central_database.dsn).stdout)
    edge_hub("tenants", "add", "acme", dsn=central_database.dsn)
    after = json.loads(edge_hub("tenants", "list", "--json", dsn=central_database.dsn).stdout)

    assert [tenant["is_active"] for tenant in between + after] == [False, True]


async def test_deactivating_an_unknown_tenant_tells_the_known_ones(central_database: PostgresDatabase) -> None:
    await central_database.add_speaking_site("istanbul", "acme", "globex")

    assert_one_sentence(
        edge_hub("tenants", "deactivate", "initech", dsn=central_database.dsn), "there are: acme, globex"
    )


def test_a_tenants_name_must_be_usable_in_the_agents_settings(central_database: PostgresDatabase) -> None:
    assert_one_sentence(edge_hub("tenants", "add", "Acme Ltd", dsn=central_database.dsn), "lower-case letters")


def test_secrets_can_stay_out_of_the_command_line(central_database: PostgresDatabase, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(central_database.server.url(central_database.name) + "\n")
    (tmp_path / "password").write_text(central_database.server.password + "\n")

    done = edge_hub(
        "tenants", "add", "acme", "--dsn-file", str(tmp_path / "dsn"), "--password-file", str(tmp_path / "password")
    )

    assert done.returncode == 0, done.stderr


def test_faults_of_the_world_are_one_sentence_each(empty_database: PostgresDatabase, tmp_path: Path) -> None:
    wrong_password = empty_database.dsn.replace(empty_database.server.password, "hunter2")

    assert_one_sentence(edge_hub("status"), "name the central database with --dsn, --dsn-file or in SENTIRIC_HUB_DSN")
    assert_one_sentence(edge_hub("status", dsn=empty_database.dsn), "run `edge-hub migrate`")
    assert_one_sentence(edge_hub("status", dsn=wrong_password), "check user name, password")
    assert "hunter2" not in edge_hub("status", dsn=wrong_password).stderr
    assert_one_sentence(edge_hub("migrate", dsn="postgresql://x@127.0.0.1:1/calls"), "Connection refused")
    assert_one_sentence(edge_hub("migrate", dsn="postgresql://x:hunter2@[::1/calls"), "postgresql:// URL")
    assert_one_sentence(edge_hub("migrate", dsn="mysql://x:hunter2@localhost/calls"), "write postgresql://user@host/db")
    assert_one_sentence(edge_hub("migrate", "--dsn-file", str(tmp_path / "no")), "cannot read the DSN file")


def test_the_version_is_told() -> None:
    done = edge_hub("version")

    assert done.returncode == 0
    assert done.stdout.strip()[0].isdigit()
