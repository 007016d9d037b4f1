"""The second wall: group roles, their rights, and the policies by which each sees its own rows only.

`secure` makes them after every migration; running it again changes nothing. The group roles belong to the whole server,
everything else to the database. Functions name their tables with the schema and search nowhere else: a temporary table
of the same name, which any login may make, must not take the place of ours. Nor may anybody make operators or functions
where the owner's statements look for theirs: they would run with the owner's rights. Databases made before PostgreSQL
15 let everybody do so.
"""

from collections.abc import Sequence
from contextlib import suppress

import asyncpg

from sync.errors import UplinkRefused

HUB, SITE, READER = GROUPS = ("sentiric_hub", "sentiric_site", "sentiric_reader")

# Whatever may not be said to be the own, is not: without a bound role, or a hub's word, these are NULL or empty.
_FUNCTIONS = """
CREATE OR REPLACE FUNCTION {schema}.current_site() RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN EXISTS (SELECT FROM {schema}.bound_role WHERE role = current_user::text)
            THEN (SELECT site::text FROM {schema}.bound_role WHERE role = current_user::text)
        WHEN (SELECT pg_has_role(oid, 'usage') FROM pg_roles WHERE rolname = 'sentiric_hub')
            THEN nullif(current_setting('sentiric.site', true), '')
    END
$$;
CREATE OR REPLACE FUNCTION {schema}.enabled_site() RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT name::text FROM {schema}.site WHERE name = {schema}.current_site() AND NOT is_disabled
$$;
CREATE OR REPLACE FUNCTION {schema}.granted_tenants() RETURNS integer[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(array_agg(tenant_id), '{{}}') FROM {schema}.site_tenant
    WHERE site = {schema}.enabled_site() AND ended_at IS NULL
$$;
CREATE OR REPLACE FUNCTION {schema}.current_tenant() RETURNS integer LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT tenant_id FROM {schema}.bound_role WHERE role = current_user::text
$$;
"""

_WRITERS, _ALL = f"{HUB}, {SITE}", ", ".join(GROUPS)
# Sub-selects, so that each function is asked once a statement and not for every row.
_SITE, _ENABLED = "(SELECT {schema}.current_site())", "(SELECT {schema}.enabled_site())"
_TENANTS, _TENANT = "(SELECT {schema}.granted_tenants())", "(SELECT {schema}.current_tenant())"
_OWN_CALL = f"site = {_ENABLED} AND starts_with(call_sid, {_ENABLED} || ':')"
_OF_OWN_CALL = (
    "EXISTS (SELECT FROM {schema}.call WHERE call.tenant_id = {table}.tenant_id AND call.id = {table}.call_id"
    f" AND call.site = {_ENABLED})"
)
_MAY_WRITE = f"tenant_id = ANY ({_TENANTS}::integer[])"

# table, policy, its command, its roles, what is seen, what may be written (None: what is seen)
_POLICIES: Sequence[tuple[str, str, str, str, str, str | None]] = (
    ("call", "of_site", "ALL", _WRITERS, _OWN_CALL, f"{_OWN_CALL} AND {_MAY_WRITE}"),
    ("call", "of_tenant", "SELECT", READER, f"tenant_id = {_TENANT}", None),
    ("task", "of_site", "ALL", _WRITERS, _OF_OWN_CALL, f"{_OF_OWN_CALL} AND {_MAY_WRITE}"),
    ("task", "of_tenant", "SELECT", READER, f"tenant_id = {_TENANT}", None),
    ("interaction", "of_site", "ALL", _WRITERS, _OF_OWN_CALL, f"{_OF_OWN_CALL} AND {_MAY_WRITE}"),
    ("interaction", "of_tenant", "SELECT", READER, f"tenant_id = {_TENANT}", None),
    ("site", "itself", "ALL", _WRITERS, f"name = {_SITE}", None),
    ("site_tenant", "of_site", "SELECT", _WRITERS, f"site = {_SITE}", None),
    ("tenant", "of_site", "SELECT", _WRITERS, "id = ANY (ARRAY(SELECT tenant_id FROM {schema}.site_tenant))", None),
    ("tenant", "itself", "SELECT", READER, f"id = {_TENANT}", None),
    ("bound_role", "itself", "SELECT", _ALL, "role = current_user::text", None),
    ("centre", "everybody", "SELECT", _ALL, "true", None),
    # A hub learns from credential or code for which site it is going to speak; it changes those of that site only.
    ("credential", "to_look_up", "SELECT", HUB, "true", None),
    ("credential", "to_add", "INSERT", HUB, f"site = {_SITE}", None),
    ("credential", "to_change", "UPDATE", HUB, f"site = {_SITE}", None),
    ("enrolment_code", "to_look_up", "SELECT", HUB, "true", None),
    ("enrolment_code", "to_use", "UPDATE", HUB, f"site = {_SITE}", None),
    ("audit", "to_note", "INSERT", HUB, f"site = {_SITE}", None),
)
_SITE_COLUMNS = (
    "first_seen_at, last_seen_at, high_water, agent_version, receipts, lease, lease_before, lease_seconds, lease_until,"
    " holder, holder_host, holder_since, refused_at, refused_why, refused_holder, refused_host"
)
_RIGHTS = f"""
GRANT USAGE ON SCHEMA {{schema}} TO {_ALL};
GRANT SELECT ON {{schema}}.alembic_version, {{schema}}.centre, {{schema}}.bound_role, {{schema}}.tenant TO {_ALL};
GRANT SELECT ON {{schema}}.call, {{schema}}.task, {{schema}}.interaction TO {READER};
GRANT SELECT, DELETE ON {{schema}}.call, {{schema}}.task, {{schema}}.interaction TO {_WRITERS};
GRANT SELECT, UPDATE ({_SITE_COLUMNS}) ON {{schema}}.site TO {_WRITERS};
GRANT SELECT ON {{schema}}.site_tenant TO {_WRITERS};
GRANT SELECT, INSERT, UPDATE (used_at, revoked_at) ON {{schema}}.credential TO {HUB};
GRANT SELECT, UPDATE (used_at) ON {{schema}}.enrolment_code TO {HUB};
GRANT INSERT ON {{schema}}.audit TO {HUB};
"""

# Without their ids: whoever chose them could take those that calls of other sites are going to have.
_MAY_SET = """
SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped AND attname <> 'id'
"""
_OPEN_SCHEMAS = """
SELECT quote_ident(name) FROM unnest(current_schemas(false)) AS name
WHERE has_schema_privilege($1::name, name, 'CREATE')
"""

_WHO = """
SELECT role.rolsuper, role.rolbypassrls, pg_has_role(current_user, call.relowner, 'usage') AS owns,
    (SELECT pg_has_role(current_user, hub.oid, 'usage') FROM pg_roles AS hub WHERE hub.rolname = 'sentiric_hub')
    AS is_hub,
    current_user::text AS name
FROM pg_roles AS role, pg_class AS call WHERE role.rolname = current_user AND call.oid = to_regclass('call')
"""


async def secure(connection: asyncpg.Connection) -> None:
    """Make roles, rights and policies as the owner of the tables.

    Raises UplinkRefused with the SQL to run if roles are missing, or everybody may make functions in the schema, and
    this login may not change that; until then nobody but the owner sees anything.
    """
    missing = await _make_roles(connection)
    if missing:
        statements = " ".join(f"CREATE ROLE {role} NOLOGIN;" for role in missing)
        raise UplinkRefused(
            "the tables are up to date, but the roles that keep sites apart are missing and this database user may not "
            f"make them; let an administrator of the server run: {statements} Then run `edge-hub migrate` again"
        )
    await _close_schemas(connection)
    schema = await connection.fetchval(
        "SELECT quote_ident(relnamespace::regnamespace::text) FROM pg_class WHERE oid = 'call'::regclass"
    )
    async with connection.transaction():
        await connection.execute(_FUNCTIONS.format(schema=schema))
        for table, name, command, roles, seen, written in _POLICIES:
            await connection.execute(f"DROP POLICY IF EXISTS {name} ON {schema}.{table}")
            clauses = [f"CREATE POLICY {name} ON {schema}.{table} FOR {command} TO {roles}"]
            if command != "INSERT":
                clauses.append(f"USING ({seen.format(schema=schema, table=table)})")
            if command != "SELECT":
                clauses.append(f"WITH CHECK ({(written or seen).format(schema=schema, table=table)})")
            await connection.execute(" ".join(clauses))
        await connection.execute(_RIGHTS.format(schema=schema))
        for table in ("call", "task", "interaction"):
            columns = await connection.fetchval(_MAY_SET, f"{schema}.{table}")
            await connection.execute(
                f"REVOKE INSERT, UPDATE ON {schema}.{table} FROM {_WRITERS};"
                f" GRANT INSERT ({columns}), UPDATE ({columns}) ON {schema}.{table} TO {_WRITERS}"
            )


async def unguarded(connection: asyncpg.Connection) -> str | None:
    """Why row-level security does not bind this login, in words; None if it does."""
    who = await connection.fetchrow(_WHO)
    if who is None or not (who["rolsuper"] or who["rolbypassrls"] or who["owns"]):
        return None
    why = "is a superuser" if who["rolsuper"] else "may bypass it" if who["rolbypassrls"] else "owns the tables"
    return f"row-level security does not bind the database user {who['name']!r}, which {why}"


async def require_hub(connection: asyncpg.Connection) -> None:
    """Raise UplinkRefused unless this login is bound by row-level security and in the hub's group."""
    why = await unguarded(connection)
    if why is not None:
        raise UplinkRefused(f"{why}; give the hub a login of its own: CREATE ROLE hub LOGIN IN ROLE {HUB} PASSWORD '…'")
    who = await connection.fetchrow(_WHO)
    if who is None or not who["is_hub"]:
        raise UplinkRefused(f"this database user is not in the hub's group; run as the owner: GRANT {HUB} TO it")


async def _close_schemas(connection: asyncpg.Connection) -> None:
    """Let nobody but owners make anything where names are looked for. Raises UplinkRefused with the SQL to run."""
    for (schema,) in await connection.fetch(_OPEN_SCHEMAS, SITE):
        with suppress(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute(f"REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC")
    still = [f"REVOKE CREATE ON SCHEMA {row[0]} FROM PUBLIC;" for row in await connection.fetch(_OPEN_SCHEMAS, SITE)]
    if still:
        raise UplinkRefused(
            "the tables are up to date, but everybody may make functions beside them, which would then run with the "
            f"rights of others; let an administrator of the server run in this database: {' '.join(still)} Then run "
            "`edge-hub migrate` again"
        )


async def _make_roles(connection: asyncpg.Connection) -> list[str]:
    """Make the group roles that are missing, and return those that this login may not make."""
    there = {row["rolname"] for row in await connection.fetch("SELECT rolname FROM pg_roles")}
    missing = []
    for role in GROUPS:
        if role in there:
            continue
        try:
            async with connection.transaction():
                await connection.execute(f"CREATE ROLE {role} NOLOGIN")
        except asyncpg.InsufficientPrivilegeError:
            missing.append(role)
        except (asyncpg.DuplicateObjectError, asyncpg.UniqueViolationError):
            continue  # made at the same moment, for another database of this server
    return missing
