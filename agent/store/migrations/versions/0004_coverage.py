"""Day by day, whether every call that a PBX knows is held here."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE coverage (
            pbx VARCHAR NOT NULL,
            day VARCHAR NOT NULL,
            source VARCHAR NOT NULL,
            known INTEGER NOT NULL,
            held INTEGER NOT NULL,
            missing INTEGER NOT NULL,
            extra INTEGER NOT NULL,
            untold INTEGER NOT NULL,
            differing INTEGER NOT NULL,
            trouble VARCHAR,
            at DATETIME NOT NULL,
            PRIMARY KEY (pbx, day)
        )
        """
    )
