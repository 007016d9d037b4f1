"""The tables of the central database: the shared ones with the tenant in every key, and the centre's own.

The shared tables are defined once, in `sync.models`. The centre holds them changed in this way and no other:

- `tenant` and `user` are as they are; calls, tasks and interactions belong to a tenant, so their `tenant_id` is
  NOT NULL and stands first in the primary key, in every unique key and in the foreign key to the call. The tables
  can then be distributed by tenant and guarded row by row.
- ids are handed out by the database (identity), with 64 bits for what belongs to a tenant: a centre counts the
  calls of all sites.
- calls also have an index on `call_sid` alone, because a call may change its tenant and must still stand once, and one
  by tenant, site and time for reconciliation.
"""

from sqlalchemy import (
    BigInteger,
    Column,
    DefaultClause,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)
from sqlmodel import SQLModel

from sync.central.own_tables import add_own_tables
from sync.models import SHARED_TABLES

# The Alembic revision this program was written for, without loading Alembic; revisions are numbered, so that
# "older" and "newer" can be told apart. A test holds it against the migrations.
SCHEMA_REVISION = "0003"

OF_A_TENANT = frozenset({"call", "task", "interaction"})
NAMES = {
    "pk": "pk_%(table_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
}


def central_metadata() -> MetaData:
    """The central schema, made from the shared models as this module's text says."""
    metadata = MetaData(naming_convention=NAMES)
    for name in SHARED_TABLES:
        shared = SQLModel.metadata.tables[name]
        if name in OF_A_TENANT:
            _add_table_of_a_tenant(shared, metadata)
        else:
            _add_table_as_it_is(shared, metadata)
    add_own_tables(metadata)
    return metadata


def _add_table_as_it_is(shared: Table, metadata: MetaData) -> None:
    columns = [
        Column(
            column.name,
            column.type,
            *([Identity()] if column.primary_key else []),
            *(ForeignKey(key.target_fullname) for key in column.foreign_keys),
            nullable=column.nullable,
            primary_key=column.primary_key,
        )
        for column in shared.columns
    ]
    indexes = [Index(index.name, *index.columns.keys(), unique=index.unique) for index in shared.indexes]
    Table(shared.name, metadata, *columns, *indexes)


def _add_table_of_a_tenant(shared: Table, metadata: MetaData) -> None:
    columns: list[Column[object]] = []
    for column in shared.columns:
        if column.name == "id":
            columns.append(Column("id", BigInteger(), Identity(), nullable=False))
        elif column.name == "call_id":
            columns.append(Column("call_id", BigInteger(), nullable=False))
        else:
            nullable = column.nullable and column.name != "tenant_id"
            default = column.server_default.arg if isinstance(column.server_default, DefaultClause) else None
            columns.append(
                Column(column.name, column.type, nullable=nullable, server_default=default)  # type: ignore[arg-type]  # what it was given there
            )
    keys = [
        PrimaryKeyConstraint("tenant_id", "id"),
        *(UniqueConstraint("tenant_id", *unique) for unique in _unique_keys(shared)),
        *(Index(index.name, *index.columns.keys()) for index in shared.indexes if not index.unique),
    ]
    if shared.name == "call":
        keys += [
            ForeignKeyConstraint(["tenant_id"], ["tenant.id"]),
            Index(None, "call_sid"),
            Index(None, "tenant_id", "site", "start_time"),
        ]
    else:
        keys.append(ForeignKeyConstraint(["tenant_id", "call_id"], ["call.tenant_id", "call.id"], ondelete="CASCADE"))
    Table(shared.name, metadata, *columns, *keys)


def _unique_keys(shared: Table) -> list[list[str]]:
    constraints = [
        constraint.columns.keys() for constraint in shared.constraints if isinstance(constraint, UniqueConstraint)
    ]
    return sorted(constraints + [index.columns.keys() for index in shared.indexes if index.unique])
