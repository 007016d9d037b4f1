"""Who was erased, by the hash of a number, and which calls are emptied for good."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE erasure (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        at DATETIME NOT NULL,
        "by" VARCHAR NOT NULL,
        tenant VARCHAR,
        salt BLOB NOT NULL,
        hashes JSON NOT NULL,
        calls INTEGER NOT NULL,
        mentions INTEGER NOT NULL,
        frames INTEGER NOT NULL,
        ended_at DATETIME
    )
    """,
    """
    CREATE TABLE erased_call (
        call_sid VARCHAR(255) NOT NULL,
        erasure_id INTEGER NOT NULL,
        PRIMARY KEY (call_sid),
        FOREIGN KEY(erasure_id) REFERENCES erasure (id)
    )
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
