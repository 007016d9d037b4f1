"""What services write during calls."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE context_operation (
        number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        call_sid VARCHAR(255) NOT NULL,
        kind VARCHAR NOT NULL,
        content VARCHAR NOT NULL,
        service VARCHAR NOT NULL,
        at DATETIME NOT NULL,
        revision INTEGER NOT NULL,
        idempotency_key VARCHAR
    )
    """,
    "CREATE INDEX ix_context_operation_call_sid ON context_operation (call_sid, number)",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
