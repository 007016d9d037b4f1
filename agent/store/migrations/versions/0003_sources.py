"""Up to where second sources were read, what in them is no record, and by which source a gap was filled."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE gap ADD COLUMN filled_by VARCHAR",
    "ALTER TABLE gap ADD COLUMN calls_found INTEGER",
    """
    CREATE TABLE source_place (
        pbx VARCHAR NOT NULL,
        source VARCHAR NOT NULL,
        kind VARCHAR NOT NULL,
        place JSON NOT NULL,
        since DATETIME NOT NULL,
        read_until DATETIME,
        records INTEGER NOT NULL,
        rejects INTEGER NOT NULL,
        updated_at DATETIME NOT NULL,
        PRIMARY KEY (pbx, source)
    )
    """,
    """
    CREATE TABLE source_reject (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        pbx VARCHAR NOT NULL,
        source VARCHAR NOT NULL,
        position VARCHAR NOT NULL,
        raw BLOB NOT NULL,
        reason VARCHAR NOT NULL,
        at DATETIME NOT NULL
    )
    """,
    "CREATE INDEX ix_source_reject_pbx_source ON source_reject (pbx, source, id)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
