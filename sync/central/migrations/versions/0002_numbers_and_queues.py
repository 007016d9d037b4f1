"""Public numbers, whether the caller's was shown, who answered last, waiting in queues, conferences.

Every new column is NULL or has a default in the database, so no row is rewritten, however many calls there are, and
what is written without naming them is taken. Calls that are here already keep NULL in what nobody noted of them.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for column in (
        sa.Column("caller_e164", sa.String()),
        sa.Column("caller_presentation", sa.String(16)),
        sa.Column("callee_e164", sa.String()),
        sa.Column("last_answered_by", sa.String()),
        sa.Column("queue_position", sa.Integer()),
        sa.Column("queue_wait_seconds", sa.Float(), server_default=sa.text("0"), nullable=False),
        sa.Column("conference", sa.String()),
    ):
        op.add_column("call", column)
