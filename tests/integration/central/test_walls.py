"""What a login may do with SQL of its own: row-level security keeps sites and tenants apart without our help."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

import asyncpg
import pytest

from sync.central import logins
from sync.central.connection import CentralAddress
from sync.central.database import CentralDatabase
from sync.central.guard import secure, unguarded
from sync.central.logins import NewLogin
from sync.errors import SiteRefused, UplinkRefused
from sync.records import CallRecord, Verdict
from tests.fakes_sync import a_batch, a_record
from tests.postgres import PostgresDatabase

_numbers = count(1)  # roles belong to the whole server
TASKS = '[{"position": 0, "task_name": "book", "state_data": {}, "start_time": "2026-03-02T12:00:05Z"}]'
COLUMNS = (
    "call_sid, trace_id, tenant_id, site, pbx, direction, status, start_time, ring_seconds, talk_seconds, hold_seconds,"
    " total_seconds, transferred, legs, timeline, full_transcript, source, start_estimated, end_estimated, revision,"
    " created_at, updated_at"
)


@dataclass(frozen=True)
class World:
    """Two sites with a call each of the tenants they are granted: istanbul of acme (1), ankara of globex (2)."""

    database: PostgresDatabase
    hub: NewLogin
    istanbul: NewLogin
    reader: NewLogin  # of acme

    def address(self, login: NewLogin) -> CentralAddress:
        server = self.database.server
        return CentralAddress(
            f"postgresql://{login.role}:{login.password}@{server.host}:{server.port}/{self.database.name}"
        )

    @asynccontextmanager
    async def session(self, login: NewLogin, *, speaking_for: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A connection as somebody who has stolen this login."""
        connection = await asyncpg.connect(self.address(login).dsn)
        try:
            if speaking_for is not None:
                await connection.execute("SELECT set_config('sentiric.site', $1, false)", speaking_for)
            yield connection
        finally:
            await connection.close()


@pytest.fixture
async def world(central_database: PostgresDatabase) -> AsyncIterator[World]:
    await central_database.add_speaking_site("istanbul", "acme")
    await central_database.add_speaking_site("ankara", "globex")
    number = next(_numbers)
    hub = NewLogin(f"hub_{number}", "hub-password", f"CREATE ROLE hub_{number} LOGIN PASSWORD 'hub-password'")
    istanbul, reader = logins.new_site_login(f"istanbul_{number}"), logins.new_reader_login(f"reader_{number}")
    async with central_database.connection() as owner:
        await owner.execute(f"{hub.sql}; GRANT sentiric_hub TO {hub.role}")
        await logins.bind_site(owner, istanbul, "istanbul", make_role=True, who="test")
        await logins.bind_reader(owner, reader, "acme", make_role=True, who="test")
    central = CentralDatabase(central_database.address, application_name="test")
    await central.store(a_batch(a_record(1, tasks=TASKS)))
    await central.store(a_batch(an_ankara_record(2), site="ankara"))
    await central.close()
    yield World(central_database, hub, istanbul, reader)
    async with central_database.connection() as owner:
        for login in (hub, istanbul, reader):
            await owner.execute(f"DROP OWNED BY {login.role}; DROP ROLE {login.role}")


def an_ankara_record(number: int) -> CallRecord:
    return a_record(number, site="ankara", call_sid=f"ankara:main:{number}.1", tenant="globex", tasks=TASKS)


def insert(sid: str, tenant_id: int, site: str) -> str:
    return (
        f"INSERT INTO call ({COLUMNS}) VALUES ('{sid}', '0af7', {tenant_id}, '{site}', 'main', 'inbound', 'completed',"
        " now(), 0, 0, 0, 0, false, '[]', '[]', '[]', 'ami', false, false, 9, now(), now())"
    )


@pytest.fixture(params=["hub", "site"])
async def thief(request: pytest.FixtureRequest, world: World) -> AsyncIterator[asyncpg.Connection]:
    """Somebody who speaks for istanbul, through either door, with SQL of his own."""
    login = world.hub if request.param == "hub" else world.istanbul
    async with world.session(login, speaking_for="istanbul") as connection:
        yield connection


async def test_nothing_is_seen_but_the_own(thief: asyncpg.Connection) -> None:
    for table in ("call", "task", "site", "tenant", "site_tenant"):
        assert await thief.fetchval(f"SELECT count(*) FROM {table}") == 1, table


async def test_nothing_is_written_but_the_own(thief: asyncpg.Connection) -> None:
    for sid, tenant_id, site in (
        ("istanbul:main:9.1", 2, "istanbul"),  # a tenant that is not granted
        ("ankara:main:9.1", 1, "istanbul"),  # another site's call
        ("istanbul:main:9.1", 1, "ankara"),  # in the name of another site
        ("ankara:main:2.1", 2, "ankara"),  # in the place of a call that is there
        ("istanbul-2:main:9.1", 1, "istanbul"),  # a site whose name only begins alike
        ("istanbul", 1, "istanbul"),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="row-level security"):
            await thief.execute(insert(sid, tenant_id, site))


async def test_the_own_is_written(thief: asyncpg.Connection) -> None:
    assert await thief.execute(insert("istanbul:main:9.1", 1, "istanbul")) == "INSERT 0 1"


async def test_nobody_takes_the_ids_that_calls_of_others_will_have(thief: asyncpg.Connection) -> None:
    chosen = (
        insert("istanbul:main:9.1", 1, "istanbul").replace("(call_sid,", "(id, call_sid,").replace("('ist", "(99, 'ist")
    )
    for statement in (chosen, "UPDATE call SET id = 99", "UPDATE task SET id = 99", "UPDATE interaction SET id = 99"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await thief.execute(statement)


ON_ROWS_OF_OTHERS = (
    "UPDATE call SET caller_name = 'x' WHERE site = 'ankara'",
    "DELETE FROM call WHERE site = 'ankara'",
    "DELETE FROM task WHERE tenant_id = 2",
    "UPDATE task SET task_name = 'x' WHERE tenant_id = 2",
    "UPDATE site SET lease = 'x' WHERE name = 'ankara'",
)


async def test_rows_of_others_are_not_touched(thief: asyncpg.Connection) -> None:
    for statement in ON_ROWS_OF_OTHERS:
        assert (await thief.execute(statement)).endswith(" 0"), statement


FORBIDDEN = (
    "UPDATE call SET tenant_id = 2",
    "UPDATE call SET site = 'ankara'",
    "UPDATE call SET call_sid = 'ankara:main:3.1'",
    "INSERT INTO task (tenant_id, call_id, position, task_name, state_data, start_time)"
    " SELECT 2, n, 7, 'x', '{}', now() FROM generate_series(1, 9) AS n",
    "INSERT INTO interaction (tenant_id, call_id, position, data) SELECT 2, n, 7, '{}' FROM generate_series(1, 9) AS n",
    "UPDATE task SET tenant_id = 2",
    "UPDATE site SET is_disabled = false",
    "UPDATE site SET name = 'ankara'",
    "INSERT INTO site (name) VALUES ('new')",
    "DELETE FROM site",
    "INSERT INTO site_tenant (site, tenant_id) VALUES ('istanbul', 2)",
    "UPDATE site_tenant SET tenant_id = 2",
    "INSERT INTO tenant (name, is_active) VALUES ('new', true)",
    "UPDATE tenant SET is_active = false",
    "UPDATE bound_role SET site = 'ankara'",
    "INSERT INTO bound_role (role, site) VALUES (current_user, 'ankara')",
    'SELECT * FROM "user"',
    "SELECT * FROM audit",
    "DELETE FROM audit",
    "DELETE FROM credential",
    "UPDATE centre SET compatible_from = '9'",
    "UPDATE alembic_version SET version_num = '9'",
    "TRUNCATE call CASCADE",
    "ALTER TABLE call DISABLE ROW LEVEL SECURITY",
    "DROP POLICY of_site ON call",
    "CREATE OR REPLACE FUNCTION current_site() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'ankara' $$",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "ALTER ROLE CURRENT_USER BYPASSRLS",
    "COPY call TO PROGRAM 'cat'",
)


async def test_no_right_leads_further(thief: asyncpg.Connection) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await thief.execute(statement)


async def test_a_sites_own_login_speaks_for_its_site_whatever_is_set(world: World) -> None:
    for setting in ("ankara", "", "istanbul' OR true --", "%"):
        async with world.session(world.istanbul, speaking_for=setting) as connection:
            assert await connection.fetchval("SELECT current_site()") == "istanbul"
            assert await connection.fetch("SELECT site FROM call WHERE site <> 'istanbul'") == []
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(insert("ankara:main:9.1", 2, "ankara"))


async def test_a_table_of_ones_own_does_not_take_the_place_of_the_centres(world: World) -> None:
    async with world.session(world.istanbul) as connection:
        await connection.execute(
            "CREATE TEMP TABLE bound_role AS"
            " SELECT current_user::text AS role, 'ankara' AS site, NULL::int AS tenant_id;"
            "CREATE TEMP TABLE site_tenant AS SELECT 'ankara' AS site, 2 AS tenant_id, NULL::timestamptz AS ended_at;"
            "SET search_path = pg_temp, public"
        )

        assert [row["site"] for row in await connection.fetch("SELECT site FROM public.call")] == ["istanbul"]
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(insert("ankara:main:9.1", 2, "ankara"))


async def test_a_sites_own_login_sees_no_credential_and_a_hub_adds_one_for_its_site_only(world: World) -> None:
    async with world.session(world.istanbul) as connection:
        for table in ("credential", "enrolment_code"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(f"SELECT * FROM {table}")
    async with world.session(world.hub, speaking_for="istanbul") as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("INSERT INTO credential (id, site, secret_sha256) VALUES ('x', 'ankara', 'x')")


async def test_a_hub_that_speaks_for_nobody_sees_nothing(world: World) -> None:
    for site in (None, "", "nowhere"):
        async with world.session(world.hub, speaking_for=site) as connection:
            for table in ("call", "task", "interaction", "site", "tenant", "site_tenant"):
                assert await connection.fetch(f"SELECT * FROM {table}") == []


async def test_a_reader_sees_one_tenant_and_changes_nothing(world: World) -> None:
    async with world.session(world.reader, speaking_for="ankara") as connection:
        assert await connection.fetchval("SELECT array_agg(site) FROM call") == ["istanbul"]
        assert await connection.fetchval("SELECT count(*) FROM task") == 1
        assert await connection.fetchval("SELECT array_agg(name) FROM tenant") == ["acme"]
        for statement in (
            "DELETE FROM call",
            "UPDATE call SET queue = 'x'",
            "SELECT * FROM site",
            "SELECT * FROM credential",
            insert("istanbul:main:9.1", 1, "istanbul"),
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)


async def test_a_disabled_site_sees_and_writes_no_call(world: World) -> None:
    await world.database.execute("UPDATE site SET is_disabled = true WHERE name = 'istanbul'")

    async with world.session(world.istanbul) as connection:
        assert await connection.fetch("SELECT * FROM call") == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(insert("istanbul:main:9.1", 1, "istanbul"))


async def test_a_site_whose_grant_ended_sees_its_calls_but_writes_none(world: World) -> None:
    await world.database.execute("UPDATE site_tenant SET ended_at = now()")

    async with world.session(world.istanbul) as connection:
        assert await connection.fetchval("SELECT count(*) FROM call") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(insert("istanbul:main:9.1", 1, "istanbul"))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE call SET queue = 'x'")


@pytest.mark.parametrize("door", ["hub", "istanbul"])
async def test_batches_pass_both_walls_and_forgeries_get_their_own_verdict(world: World, door: str) -> None:
    """What our own code refuses, and with it what row-level security would."""
    central = CentralDatabase(world.address(getattr(world, door)), application_name="test")
    sql = "'; DROP TABLE call; --"

    receipt = await central.store(
        a_batch(
            a_record(11, tasks=TASKS, interactions='[{"position": 0, "data": {}}]'),
            a_record(12, tenant="globex"),
            a_record(13, site="ankara"),
            an_ankara_record(2)._replace(revision=9),
            an_ankara_record(14)._replace(tenant="acme", site="istanbul"),
            a_record(15, tenant=sql),
            a_record(1, revision=2, tasks=TASKS, caller_name=sql, caller_id=sql, queue=sql, hangup_source="x' OR 1=1"),
        )
    )
    days = await central.days("istanbul", a_record().start_time.date(), a_record().start_time.date())
    await central.close()

    verdicts = [(one.verdict, one.code) for one in receipt.verdicts]
    refused = Verdict.REJECTED
    assert verdicts == [
        (Verdict.ACCEPTED, None),
        (refused, "unknown_tenant"),
        (refused, "wrong_site"),
        (refused, "wrong_site"),
        (refused, "wrong_site"),
        (refused, "unknown_tenant"),
        (Verdict.ACCEPTED, None),
    ]
    assert receipt.number == 2
    rows = await world.database.fetch("SELECT call_sid, revision, caller_name FROM call ORDER BY call_sid")
    assert [tuple(row) for row in rows] == [
        ("ankara:main:2.1", 1, "Gülşen Işık"),
        (a_record(1).call_sid, 2, sql),
        (a_record(11).call_sid, 1, "Gülşen Işık"),
    ]
    assert [(day.tenant, day.calls) for day in days] == [("acme", 2)]


async def test_an_unknown_tenant_and_anothers_are_refused_in_the_same_words(world: World) -> None:
    central = CentralDatabase(world.address(world.istanbul), application_name="test")

    receipt = await central.store(a_batch(a_record(1, tenant="globex"), a_record(2, tenant="nobody")))
    await central.close()

    known, unknown = (str(one.reason) for one in receipt.verdicts)
    assert known.replace("globex", "nobody") == unknown


async def test_the_batch_of_another_site_is_refused_as_a_whole(world: World) -> None:
    central = CentralDatabase(world.address(world.istanbul), application_name="test")

    with pytest.raises(SiteRefused, match="the centre knows no site 'ankara' that this agent may speak for"):
        await central.store(a_batch(an_ankara_record(3), site="ankara"))
    with pytest.raises(SiteRefused):
        await central.days("ankara", a_record().start_time.date(), a_record().start_time.date())
    await central.close()


async def test_a_name_that_is_none_never_reaches_the_database(world: World) -> None:
    central = CentralDatabase(world.address(world.hub), application_name="test")

    for site in ("x'; DROP TABLE call; --", "nul\0", "half \ud800", "x" * 200, "", "Istanbul"):
        with pytest.raises(SiteRefused, match="knows no site of this name"):
            await central.store(a_batch(site=site))
    await central.close()


async def test_every_table_is_closed_to_whom_no_policy_opens_it(central_database: PostgresDatabase) -> None:
    rows = await central_database.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        " AND NOT relrowsecurity"
    )

    assert [row["relname"] for row in rows] == ["alembic_version"]


async def test_only_a_login_that_is_bound_is_fit_for_a_hub(world: World) -> None:
    for address, told in (
        (world.database.address, "does not bind the database user 'postgres', which is a superuser"),
        (world.address(world.istanbul), "is not in the hub's group"),
    ):
        central = CentralDatabase(address, application_name="test")
        with pytest.raises(UplinkRefused, match=told):
            await central.check_role()
        await central.close()
    hub = CentralDatabase(world.address(world.hub), application_name="test")
    await hub.check_role()
    await hub.close()


async def test_who_may_bypass_row_level_security_is_told(world: World) -> None:
    await world.database.execute(f"ALTER ROLE {world.hub.role} BYPASSRLS")

    async with world.session(world.hub) as connection:
        assert "may bypass it" in str(await unguarded(connection))


async def test_policies_ask_for_the_site_once_a_statement(world: World) -> None:
    async with world.session(world.istanbul) as connection:
        plan = "\n".join(row[0] for row in await connection.fetch("EXPLAIN SELECT * FROM call"))

    filters = "\n".join(line for line in plan.splitlines() if "Filter" in line or "Cond" in line)
    assert "InitPlan" in plan
    assert "enabled_site" not in filters


async def test_without_the_right_to_make_roles_the_sql_is_told(central_database: PostgresDatabase) -> None:
    role = f"owner_{next(_numbers)}"
    await central_database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'")
    server = central_database.server
    connection = await asyncpg.connect(f"postgresql://{role}:x@{server.host}:{server.port}/{central_database.name}")
    try:
        await connection.execute("CREATE TEMP TABLE pg_roles (rolname text)")  # as if there were none yet
        await connection.execute("SET search_path = pg_temp, pg_catalog, public")
        async with connection.transaction():
            with pytest.raises(UplinkRefused, match="run: CREATE ROLE sentiric_hub NOLOGIN; CREATE ROLE sentiric_site"):
                await secure(connection)
    finally:
        await connection.close()
        await central_database.execute(f"DROP ROLE {role}")


async def test_a_schema_open_to_all_as_before_postgresql_15_is_closed(world: World) -> None:
    async with world.database.connection() as owner:
        await owner.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
        await secure(owner)

    async with world.session(world.istanbul) as connection:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for schema public"):
            await connection.execute("CREATE FUNCTION public.f(a varchar, b varchar) RETURNS bool RETURN true")


async def test_who_may_not_close_the_schema_is_told_the_sql(central_database: PostgresDatabase) -> None:
    role = f"owner_{next(_numbers)}"
    await central_database.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT CREATE ON SCHEMA public TO PUBLIC")
    server = central_database.server
    connection = await asyncpg.connect(f"postgresql://{role}:x@{server.host}:{server.port}/{central_database.name}")
    try:
        with pytest.raises(UplinkRefused, match="run in this database: REVOKE CREATE ON SCHEMA public FROM PUBLIC; "):
            await secure(connection)
    finally:
        await connection.close()
        await central_database.execute(f"DROP ROLE {role}")
