"""Brings a database file to the schema this program knows, importing Alembic only when there is something to do."""

import sqlite3
from pathlib import Path

from agent.errors import StoreNewer, StoreUnavailable
from config import failpoints

# The newest revision in migrations/versions. Revisions are numbered, so that older and newer can be told apart.
HEAD = "0011"

_MIGRATIONS = Path(__file__).parent / "migrations"


def bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    """Create or upgrade the schema in one transaction; killed in the middle, the old schema remains.

    Raises StoreUnavailable for a database that is newer than this program or that is not ours.
    """
    found = revision_of(connection)
    check_known(found, connection, path)
    if found != HEAD:
        _upgrade(connection)


def revision_of(connection: sqlite3.Connection) -> str | None:
    """The revision the database is at; None for one that Alembic has never touched."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def check_known(found: str | None, connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreUnavailable unless this program knows what to do with a database at revision `found`."""
    if found is None:
        if connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise StoreUnavailable(
                f"{path} is a SQLite database but not one of this agent; move it away or name another state_directory"
            )
    elif found > HEAD:
        raise StoreNewer(
            f"{path} was written by a newer version of this program (its schema is {found}, this one knows {HEAD}); "
            f"install the newer version again or restore the backup made before the upgrade"
        )


def _upgrade(connection: sqlite3.Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    # The connection belongs to the caller: the engine borrows it and never closes it.
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    event.listen(engine, "after_cursor_execute", lambda *_: failpoints.hit("store.migrate.statement"))
    borrowed = engine.connect()
    try:
        # The connection is in autocommit mode, so SQLAlchemy's own begin does nothing: begin for it.
        borrowed.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = borrowed
        command.upgrade(config, "head")
        failpoints.hit("store.migrate.before")
        borrowed.commit()
        failpoints.hit("store.migrate.after")
    except BaseException:
        borrowed.rollback()
        raise
    finally:
        borrowed.close()
