"""What seemed to be calls and are parts of others."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE part_of_call (
            call_sid VARCHAR(255) NOT NULL,
            part_of VARCHAR(255) NOT NULL,
            at DATETIME NOT NULL,
            PRIMARY KEY (call_sid)
        )
        """
    )
