"""What each source told of a call that several told of."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE account (
            call_id INTEGER NOT NULL,
            source VARCHAR NOT NULL,
            told JSON NOT NULL,
            PRIMARY KEY (call_id, source),
            FOREIGN KEY(call_id) REFERENCES call (id) ON DELETE CASCADE
        )
        """
    )
