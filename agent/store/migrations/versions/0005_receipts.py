"""In which of the centre's receipts a call was confirmed, and how this site stands with its centre."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_STATEMENTS = (
    """
    CREATE TABLE call_receipt (
        call_id INTEGER NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (call_id),
        FOREIGN KEY(call_id) REFERENCES call (id) ON DELETE CASCADE
    )
    """,
    # What was sent and does not wait any more was confirmed; so another centre is given it too.
    """
    INSERT INTO call_receipt (call_id, number) SELECT id, 0 FROM call WHERE tenant_id IS NOT NULL
    AND id NOT IN (SELECT call_id FROM outbox) AND id NOT IN (SELECT call_id FROM quarantine)
    """,
    "CREATE INDEX ix_call_receipt_number ON call_receipt (number)",
    """
    CREATE TABLE centre (
        id INTEGER NOT NULL PRIMARY KEY,
        identity VARCHAR,
        lease VARCHAR,
        receipts INTEGER NOT NULL,
        reconciled JSON
    )
    """,
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
