"""Runs the edge database's revisions on the connection that `agent.store.schema` hands over."""

from alembic import context
from sqlmodel import SQLModel

from agent.store.tables import STORE_TABLES
from config import failpoints


def _include_name(name: str | None, kind: str, _parents: object) -> bool:
    return kind != "table" or name in STORE_TABLES


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=SQLModel.metadata,
    include_name=_include_name,
    render_as_batch=True,
    transactional_ddl=True,
    on_version_apply=lambda **_: failpoints.hit("store.migrate.revision"),
)
with context.begin_transaction():
    context.run_migrations()
