"""Every fault of the world is one clear sentence on stderr and an exit code; no traceback, no secret."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agent.cli.faults import ExitCode
from agent.store.lease import Lease
from config.environment import FILE_VARIABLE
from tests.unit.cli.local_site import SECRET, SETTINGS, LocalSite, call


def test_without_a_settings_file_a_command_says_how_to_write_one_and_exits_with_4(site: LocalSite) -> None:
    site.file.unlink()
    for command in (["status"], ["calls", "list"], ["run"], ["config", "check"], ["outbox"], ["live"]):
        result = site.run(*command)
        assert (result.exit_code, result.stdout) == (ExitCode.NOT_CONFIGURED, ""), command
        assert result.stderr == (
            f"edge-agent: there is no settings file {site.file}; "
            "write one (config/agent.example.toml shows every key), "
            "or name another with --config or SENTIRIC_EDGE_CONFIG\n"
        )


def test_the_settings_file_is_named_by_the_variable_that_settings_pass_over() -> None:
    from agent.cli import settings

    assert settings.FILE_VARIABLE == FILE_VARIABLE


def test_every_mistake_in_the_settings_is_a_line_and_the_exit_code_is_2(site: LocalSite) -> None:
    site.write(SETTINGS.replace("username", "user_name").replace("site =", "stie ="))
    for command in (["run"], ["status"], ["config", "check"]):
        result = site.run(*command)
        assert result.exit_code == ExitCode.ERROR
        assert len(result.stderr.splitlines()) == 4  # two keys unknown, two missing
        assert all(line.startswith(f"edge-agent: {site.file}: ") for line in result.stderr.splitlines())
        assert SECRET not in result.output


def test_a_database_that_another_process_holds_is_one_sentence_that_names_it(site: LocalSite) -> None:
    site.keep(call(1, tenant=None))
    lease = Lease.take(site.database)
    try:
        result = site.run("tenants", "reassign")
        assert result.exit_code == ExitCode.ERROR
        assert f"in use by process {os.getpid()}" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    finally:
        lease.leave()


def test_a_database_that_is_none_is_one_sentence(site: LocalSite) -> None:
    site.database.parent.mkdir()
    site.database.write_text("this is no database, however long one looks at it" * 100)
    for command in (["calls", "list"], ["outbox"]):
        result = site.run(*command)
        assert result.exit_code == ExitCode.ERROR
        assert result.stderr.startswith(f"edge-agent: {site.database}: it is not a SQLite database")
        assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(("revision", "told"), [("9999", "newer version"), ("0000", "older version")])
def test_a_database_of_another_version_is_one_sentence(site: LocalSite, revision: str, told: str) -> None:
    site.keep(call(1))
    with closing(sqlite3.connect(site.database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    for command in (["calls", "list"], ["outbox"]):
        result = site.run(*command)
        assert result.exit_code == ExitCode.ERROR
        assert f"{site.database} was written by a" in result.stderr
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1


def test_no_database_yet_is_one_sentence(site: LocalSite) -> None:
    for command in (
        ["calls", "list"],
        ["calls", "show", "1"],
        ["outbox"],
        ["tenants", "reassign"],
        ["quarantine", "retry", "--all"],
    ):
        result = site.run(*command)
        assert result.exit_code == ExitCode.ERROR
        assert result.stderr == (
            f"edge-agent: {site.database} does not exist; start the agent once, or check state_directory\n"
        )
    assert not site.database.parent.exists()


def test_without_an_agent_what_only_an_agent_can_do_exits_with_3(site: LocalSite) -> None:
    for command in (["live"], ["sync", "now"]):
        result = site.run(*command)
        assert result.exit_code == ExitCode.NOT_RUNNING
        socket = site.directory / "run" / "api.sock"
        assert result.stderr == f"edge-agent: no agent is running (nobody answers on {socket})\n"


def test_a_socket_that_a_killed_agent_left_is_no_agent(site: LocalSite) -> None:
    import socket

    (site.directory / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(site.directory / "run" / "api.sock"))
    assert site.run("live").exit_code == ExitCode.NOT_RUNNING


def test_a_socket_path_that_is_too_long_is_one_sentence(site: LocalSite) -> None:
    site.write(SETTINGS.replace('"run"', f'"{"r" * 120}"'))
    result = site.run("live")
    assert result.exit_code == ExitCode.ERROR
    assert len(result.stderr.splitlines()) == 1


def test_a_moment_that_is_none_is_explained(site: LocalSite) -> None:
    result = site.run("calls", "list", "--since", "gestern")
    assert result.exit_code == ExitCode.ERROR
    assert result.stderr.startswith("edge-agent: 'gestern' is no moment; write 2026-11-22")


def test_a_mistyped_command_is_exit_code_2_with_a_hint(site: LocalSite) -> None:
    result = site.run("statsu")
    assert result.exit_code == ExitCode.ERROR
    assert "status" in result.stderr


def test_a_secret_that_only_the_agent_can_read_keeps_nobody_from_looking(site: LocalSite) -> None:
    site.keep(call(1))
    site.write(SETTINGS.replace(f'secret = "{SECRET}"', ""))  # given to the unit as a credential
    assert site.run("calls", "list").exit_code == ExitCode.OK
    assert site.run("status").exit_code == ExitCode.NOT_RUNNING
    assert site.run("config", "show").exit_code == ExitCode.OK
    assert site.run("config", "check").exit_code == ExitCode.ERROR


def test_by_hand_secrets_are_found_where_the_unit_takes_them_from(site: LocalSite) -> None:
    site.write(SETTINGS.replace(f'secret = "{SECRET}"', ""))
    credentials = site.directory / "credentials"
    credentials.mkdir()
    (credentials / "pbx-main-secret").write_text("x\n")
    assert site.run("config", "check").exit_code == ExitCode.OK


def test_an_output_file_that_cannot_be_written_is_one_sentence(site: LocalSite, tmp_path: Path) -> None:
    site.keep(call(1))
    result = site.run("calls", "export", "-f", "csv", "-o", str(tmp_path / "nowhere" / "calls.csv"))
    assert result.exit_code == ExitCode.ERROR
    assert result.stderr.endswith(": No such file or directory\n")
    assert len(result.stderr.splitlines()) == 1


def test_what_names_no_call_or_no_file_is_one_sentence(site: LocalSite) -> None:
    site.keep(call(1))
    for arguments, what in (
        (["calls", "show", ""], "the call's id is empty"),
        (["calls", "explain", ""], "the call's id is empty"),
        (["record", "-"], "name a file"),
        (["record", "a.rec", "--since", "1h"], "edge-agent: the journal holds nothing of it yet\n"),
    ):
        result = site.run(*arguments)
        assert (result.exit_code, what in result.stderr, result.stderr.count("\n")) == (ExitCode.ERROR, True, 1)
