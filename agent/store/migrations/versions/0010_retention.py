"""Up to when old calls were deleted, and which refused calls an operator gave up."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE horizon (
        tenant_id INTEGER NOT NULL,
        until DATETIME NOT NULL,
        receipt INTEGER NOT NULL,
        calls INTEGER NOT NULL,
        PRIMARY KEY (tenant_id)
    )
    """,
    """
    CREATE TABLE dropped_call (
        call_sid VARCHAR(255) NOT NULL,
        tenant VARCHAR,
        revision INTEGER NOT NULL,
        code VARCHAR NOT NULL,
        reason VARCHAR NOT NULL,
        refused_at DATETIME NOT NULL,
        "by" VARCHAR NOT NULL,
        at DATETIME NOT NULL,
        PRIMARY KEY (call_sid)
    )
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
