"""Services that may use the live context."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE service (
            name VARCHAR NOT NULL,
            token_hash VARCHAR NOT NULL,
            tenants JSON,
            may_write BOOLEAN NOT NULL,
            added_at DATETIME NOT NULL,
            PRIMARY KEY (name),
            UNIQUE (token_hash)
        )
        """
    )
