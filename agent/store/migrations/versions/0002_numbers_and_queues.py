"""Public numbers, whether the caller's was shown, who answered last, waiting in queues, conferences.

Calls that are here already keep NULL in what nobody noted of them, `caller_presentation` too: whether a number that
is missing was withheld or never told cannot be said afterwards.
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_STATEMENTS = (
    "ALTER TABLE call ADD COLUMN caller_e164 VARCHAR",
    "ALTER TABLE call ADD COLUMN caller_presentation VARCHAR(16)",
    "ALTER TABLE call ADD COLUMN callee_e164 VARCHAR",
    "ALTER TABLE call ADD COLUMN last_answered_by VARCHAR",
    "ALTER TABLE call ADD COLUMN queue_position INTEGER",
    "ALTER TABLE call ADD COLUMN queue_wait_seconds FLOAT DEFAULT 0 NOT NULL",
    "ALTER TABLE call ADD COLUMN conference VARCHAR",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
