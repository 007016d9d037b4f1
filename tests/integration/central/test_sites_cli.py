"""`edge-hub sites` and `readers` against a real PostgreSQL, from adding a site to using what was printed."""

import asyncio
import json
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.central.logins import quoted
from sync.errors import Fenced, LeaseHeld, SiteRefused, SyncError, UplinkRefused
from sync.hub.cli import app
from sync.records import Batch, Greeting, Verdict
from tests.fakes_sync import a_record
from tests.postgres import PostgresDatabase

Answer = TypeVar("Answer")
_numbers = count(1)
US = Greeting("istanbul", "1.2.3", holder="us", host="pbx-1", lease=None, lease_seconds=60)


class Operator:
    """Somebody at the command line of the centre."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database

    def runs(self, *arguments: str) -> Result:
        result = CliRunner().invoke(app, [*arguments, "--dsn", self._database.dsn])
        if result.exception is not None:
            raise result.exception
        return result

    def sees(self, *arguments: str) -> Any:  # Any: JSON
        return json.loads(self.runs(*arguments, "--json").stdout)


@pytest.fixture
def operator(central_database: PostgresDatabase) -> Operator:
    operator = Operator(central_database)
    for tenant in ("acme", "globex"):
        operator.runs("tenants", "add", tenant)
    return operator


@pytest.fixture
def role(central_database: PostgresDatabase) -> Iterator[str]:
    """The name of a database user that does not outlive the test."""
    name = f"site-of-test-{next(_numbers)}"
    yield name
    gone = f"DO $$ BEGIN DROP OWNED BY {quoted(name)}; EXCEPTION WHEN undefined_object THEN END $$;"
    asyncio.run(central_database.execute(f"{gone} DROP ROLE IF EXISTS {quoted(name)}"))


def at(address: CentralAddress, work: str, *arguments: Any, **named: Any) -> Any:  # Any: whatever method is asked for
    """Call this method of CentralDatabase."""

    async def done() -> Any:
        central = CentralDatabase(address, application_name="test")
        try:
            return await getattr(central, work)(*arguments, **named)
        finally:
            await central.close()

    return asyncio.run(done())


def address_of(database: PostgresDatabase, role: str, password: str) -> CentralAddress:
    server = database.server
    return CentralAddress(f"postgresql://{role}:{password}@{server.host}:{server.port}/{database.name}")


def refused(operator: Operator, *arguments: str) -> str:
    with pytest.raises(SyncError) as caught:
        operator.runs(*arguments)
    return str(caught.value)


def test_a_site_is_added_enrolled_listed_and_revoked(operator: Operator, central_database: PostgresDatabase) -> None:
    code = operator.runs("sites", "add", "istanbul", "--tenant", "acme").stdout.strip()
    assert re.fullmatch(r"([0-9A-Z]{4}-){3}[0-9A-Z]{4}", code)
    credential = at(central_database.address, "enrol", code, site="istanbul", host="pbx-1").credential
    at(central_database.address, "greet", US)

    [site] = operator.sees("sites", "list")
    assert (site["name"], site["tenants"], site["has_credential"]) == ("istanbul", ["acme"], True)
    assert "pbx-1" in operator.runs("status").stdout
    operator.runs("sites", "revoke", "istanbul")
    with pytest.raises(SiteRefused):
        at(central_database.address, "verify", credential)
    shown = operator.runs("status").stdout
    assert "Sent away last:\n  istanbul: a revoked credential" in shown
    assert [line["what"] for line in operator.sees("sites", "log", "istanbul")] == [
        *("revoked", "enrolled", "code made", "added")
    ]
    assert code not in json.dumps(operator.sees("sites", "log"))


def test_a_copy_is_told_to_headquarters_and_the_operator_decides(
    operator: Operator, central_database: PostgresDatabase
) -> None:
    operator.runs("sites", "add", "istanbul", "--tenant", "acme")
    lease = at(central_database.address, "greet", US).lease
    copy = Greeting("istanbul", "1.2.3", holder="copy", host="lab-7", lease=lease, lease_seconds=60)
    with pytest.raises(LeaseHeld):
        at(central_database.address, "greet", copy)

    assert "istanbul: a second installation while the first was there on lab-7" in operator.runs("status").stdout
    assert "pbx-1 spoke for it" in operator.runs("sites", "release", "istanbul").stdout
    at(central_database.address, "greet", copy)
    with pytest.raises(Fenced, match="on lab-7"):
        at(central_database.address, "greet", US)


def test_a_direct_site_has_a_login_that_stores_its_calls(
    operator: Operator, central_database: PostgresDatabase, role: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    added = operator.runs(
        *("sites", "add", "istanbul", "--tenant", "acme", "--direct", "--role", role, "--write-password", str(file))
    )
    password = file.read_text().strip()
    assert file.stat().st_mode & 0o777 == 0o600
    assert password not in added.output

    address = address_of(central_database, role, password)
    lease = at(address, "greet", US).lease
    receipt = at(address, "store", Batch("istanbul", [a_record()], 1, "us", lease))
    assert [one.verdict for one in receipt.verdicts] == [Verdict.ACCEPTED]
    assert at(address, "unguarded") is None
    assert "row-level security does not bind" in str(at(central_database.address, "unguarded"))

    operator.runs("sites", "revoke", "istanbul")
    with pytest.raises(UplinkRefused, match="refuses the log-in"):
        at(address, "greet", US)
    told = operator.runs("sites", "rotate", "istanbul").output
    again = address_of(central_database, role, told.split("(shown only now): ")[1].strip())
    assert at(again, "greet", US).lease == lease


def test_rotation_makes_the_login_of_a_direct_site_on_a_server_that_a_dump_was_restored_on(
    operator: Operator, central_database: PostgresDatabase, role: str
) -> None:
    operator.runs("sites", "add", "istanbul", "--tenant", "acme", "--direct", "--role", role)
    asyncio.run(central_database.execute(f"DROP ROLE {quoted(role)}"))

    told = operator.runs("sites", "rotate", "istanbul").output

    address = address_of(central_database, role, told.split("(shown only now): ")[1].strip())
    assert at(address, "greet", US).tenants == ("acme",)


def test_the_sql_of_a_login_can_be_run_by_an_administrator(
    operator: Operator, central_database: PostgresDatabase, role: str
) -> None:
    done = operator.runs("readers", "add", role, "--tenant", "acme", "--print-sql")
    sql, password = done.stdout.strip().splitlines()[0], done.output.split("(shown only now): ")[1].strip()
    assert password not in sql
    asyncio.run(central_database.execute(sql))

    async def read() -> Any:
        connection = await asyncpg.connect(address_of(central_database, role, password).dsn)
        try:
            return await connection.fetchval("SELECT array_agg(name) FROM tenant")
        finally:
            await connection.close()

    assert asyncio.run(read()) == ["acme"]
    assert [reader["role"] for reader in operator.sees("readers", "list")] == [role]
    operator.runs("readers", "remove", role)
    assert operator.sees("readers", "list") == []


def test_grants_and_the_switch_change_what_a_site_may(operator: Operator) -> None:
    operator.runs("sites", "add", "istanbul")
    operator.runs("sites", "grant", "istanbul", "acme")
    operator.runs("sites", "grant", "istanbul", "globex")
    operator.runs("sites", "ungrant", "istanbul", "acme")
    operator.runs("sites", "disable", "istanbul")
    [site] = operator.sees("sites", "list")
    assert (site["tenants"], site["is_disabled"]) == (["globex"], True)

    operator.runs("sites", "grant", "istanbul", "acme")
    operator.runs("sites", "enable", "istanbul")

    [site] = operator.sees("sites", "list")
    assert (site["tenants"], site["is_disabled"]) == (["acme", "globex"], False)


def test_what_cannot_be_done_is_one_sentence_and_changes_nothing(operator: Operator, tmp_path: Path) -> None:
    operator.runs("sites", "add", "istanbul", "--tenant", "acme")
    (tmp_path / "there").touch()
    before = operator.sees("sites", "list")

    for arguments, told in (
        (("sites", "add", "istanbul"), "`edge-hub sites code istanbul` makes a new enrolment code"),
        (("sites", "add", "ankara", "--tenant", "initech"), "there are: acme, globex"),
        (("sites", "add", "Ankara Ofis"), "lower-case letters"),
        (("sites", "add", "ankara", "--print-sql"), "go with --direct"),
        (("sites", "add", "ankara", "--direct", "--write-password", str(tmp_path / "there")), "it exists"),
        (("sites", "add", "ankara", "--direct", "--role", "postgres"), "choose another with --role"),
        (("sites", "grant", "ankara", "acme"), "knows no site 'ankara'; there are: istanbul"),
        (("sites", "ungrant", "istanbul", "globex"), "may not write for 'globex' anyway"),
        (("sites", "code", "ankara"), "there are: istanbul"),
        (("sites", "release", "ankara"), "there are: istanbul"),
        (("readers", "add", "bi", "--tenant", "initech"), "there are: acme, globex"),
        (("readers", "remove", "bi"), "there is no reader 'bi'"),
    ):
        assert told in refused(operator, *arguments), arguments
    assert operator.sees("sites", "list") == before


def test_rotation_leaves_time_to_enrol(operator: Operator, central_database: PostgresDatabase) -> None:
    code = operator.runs("sites", "add", "istanbul").stdout.strip()
    old = at(central_database.address, "enrol", code, site=None, host="x").credential

    new_code = operator.runs("sites", "rotate", "istanbul", "--within", "2").stdout.strip()

    assert at(central_database.address, "verify", old).site == "istanbul"
    assert "until" in operator.runs("sites", "list").stdout
    new = at(central_database.address, "enrol", new_code, site=None, host="x").credential
    assert at(central_database.address, "verify", new).site == "istanbul"
    with pytest.raises(SiteRefused):
        at(central_database.address, "verify", old)


def test_an_owner_who_may_not_make_users_migrates_and_is_told_what_an_administrator_can_do(
    empty_database: PostgresDatabase, role: str
) -> None:
    name = quoted(role)
    asyncio.run(
        empty_database.execute(
            f"CREATE ROLE {name} LOGIN PASSWORD 'owner'; ALTER DATABASE {empty_database.name} OWNER TO {name}"
        )
    )
    dsn = address_of(empty_database, role, "owner").dsn

    def told(*arguments: str) -> str:
        with pytest.raises(SyncError) as caught:
            CliRunner().invoke(app, [*arguments, "--dsn", dsn], catch_exceptions=False)
        return str(caught.value)

    for arguments in (("migrate",), ("tenants", "add", "acme"), ("migrate",)):
        done = CliRunner().invoke(app, [*arguments, "--dsn", dsn])
        assert done.exit_code == 0, done.exception
    assert "with --print-sql an administrator" in told("sites", "add", "istanbul", "--direct")
    bound = CliRunner().invoke(app, ["sites", "add", "istanbul", "--direct", "--print-sql", "--dsn", dsn])
    made_by_another = bound.stdout.strip().splitlines()[0].replace("sentiric-istanbul", f"{role}-site")
    asyncio.run(empty_database.execute(f"UPDATE bound_role SET role = '{role}-site'; {made_by_another}"))
    assert "`edge-hub sites disable` keeps the site out at once" in told("sites", "revoke", "istanbul")
    assert "can set a new password" in told("sites", "rotate", "istanbul")
    asyncio.run(empty_database.execute(f"DROP ROLE {quoted(f'{role}-site')}; REASSIGN OWNED BY {name} TO postgres"))


def test_an_owner_who_is_no_administrator_ends_the_sessions_of_a_site_that_is_revoked(
    empty_database: PostgresDatabase, role: str
) -> None:
    owner = quoted(f"{role}-owner")
    groups = "GRANT sentiric_hub, sentiric_site, sentiric_reader"
    asyncio.run(
        empty_database.execute(
            f"CREATE ROLE {owner} LOGIN CREATEROLE PASSWORD 'owner'; {groups} TO {owner} WITH ADMIN OPTION;"
            f" ALTER DATABASE {empty_database.name} OWNER TO {owner}; ALTER SCHEMA public OWNER TO {owner}"
        )
    )
    dsn = address_of(empty_database, f"{role}-owner", "owner").dsn

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, [*arguments, "--dsn", dsn], catch_exceptions=False).output

    run("migrate")
    run("tenants", "add", "acme")
    told = run("sites", "add", "istanbul", "--tenant", "acme", "--direct", "--role", role)
    site = address_of(empty_database, role, told.split("(shown only now): ")[1].split()[0])

    async def revoke_while_connected() -> None:
        session = await asyncpg.connect(site.dsn)
        await asyncio.to_thread(run, "sites", "revoke", "istanbul")
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
            await session.execute("SELECT 1")
        session.terminate()

    try:
        asyncio.run(revoke_while_connected())
        members = asyncio.run(
            empty_database.fetch(
                "SELECT 1 FROM pg_auth_members JOIN pg_roles AS role ON role.oid = roleid"
                f" WHERE role.rolname = '{role}' AND inherit_option"
            )
        )
        assert members == []
    finally:
        asyncio.run(
            empty_database.execute(
                f"{groups.replace('GRANT', 'REVOKE')} FROM {owner} CASCADE; DROP ROLE IF EXISTS {quoted(role)};"
                f" REASSIGN OWNED BY {owner} TO postgres; DROP OWNED BY {owner}; DROP ROLE {owner}"
            )
        )


def test_what_a_machine_tells_of_itself_does_not_steer_the_terminal(
    operator: Operator, central_database: PostgresDatabase
) -> None:
    operator.runs("sites", "add", "istanbul", "--tenant", "acme")
    told = "agent_version = E'1\\a\\r', lease_until = now(), holder_host = E'a\\nb', refused_host = E'c\\a'"
    asyncio.run(central_database.execute(f"UPDATE site SET refused_at = now(), refused_why = 'fenced', {told}"))

    shown = operator.runs("status").stdout

    assert "\ufffd" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "a\ufffdb" in shown
