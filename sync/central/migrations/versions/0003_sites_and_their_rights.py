"""What each site may write, who speaks for it, how it comes in, and row-level security on every table.

A site that has calls is granted their tenants, so that it goes on as before. From here on nobody but the owner sees a
row that no policy shows; the policies and the rights of the group roles are made by `sync.central.guard` afterwards.
The index is for reconciliation: a site's calls of a tenant by day.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

MOMENT = sa.DateTime(timezone=True)
NOW = sa.text("now()")
TABLES = (
    *("tenant", "user", "call", "task", "interaction", "site"),
    *("centre", "site_tenant", "credential", "enrolment_code", "bound_role", "audit"),
)


def upgrade() -> None:
    op.create_table(
        "centre",
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("compatible_from", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_centre"),
    )
    op.execute("INSERT INTO centre (compatible_from) VALUES ('0003')")
    _widen_site()
    op.create_table(
        "site_tenant",
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("granted_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("ended_at", MOMENT),
        sa.PrimaryKeyConstraint("site", "tenant_id", name="pk_site_tenant"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_site_tenant_site"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name="fk_site_tenant_tenant_id"),
    )
    op.execute(
        "INSERT INTO site_tenant (site, tenant_id)"
        " SELECT DISTINCT call.site, call.tenant_id FROM call JOIN site ON site.name = call.site"
    )
    _make_ways_in()
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("site", sa.String(64)),
        sa.Column("detail", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_index("ix_audit_site_at", "audit", ["site", "at"])
    op.create_index("ix_call_tenant_id_site_start_time", "call", ["tenant_id", "site", "start_time"])
    for table in TABLES:
        op.execute(f'ALTER TABLE "{table}" ENABLE ROW LEVEL SECURITY')


def _widen_site() -> None:
    op.alter_column("site", "first_seen_at", nullable=True)
    op.alter_column("site", "last_seen_at", nullable=True)
    op.alter_column("site", "high_water", server_default=sa.text("0"))
    for column in (
        sa.Column("added_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("is_disabled", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("receipts", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("lease", sa.Text()),
        sa.Column("lease_before", sa.Text()),
        sa.Column("lease_seconds", sa.Float()),
        sa.Column("lease_until", MOMENT),
        sa.Column("holder", sa.Text()),
        sa.Column("holder_host", sa.Text()),
        sa.Column("holder_since", MOMENT),
        sa.Column("refused_at", MOMENT),
        sa.Column("refused_why", sa.String(32)),
        sa.Column("refused_holder", sa.Text()),
        sa.Column("refused_host", sa.Text()),
    ):
        op.add_column("site", column)
    op.execute("UPDATE site SET added_at = first_seen_at")


def _make_ways_in() -> None:
    op.create_table(
        "credential",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("made_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("used_at", MOMENT),
        sa.Column("expires_at", MOMENT),
        sa.Column("revoked_at", MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_credential"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_credential_site"),
    )
    op.create_index("ix_credential_site", "credential", ["site"])
    op.create_table(
        "enrolment_code",
        sa.Column("code_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("made_at", MOMENT, server_default=NOW, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT),
        sa.PrimaryKeyConstraint("code_sha256", name="pk_enrolment_code"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_enrolment_code_site"),
    )
    op.create_index("ix_enrolment_code_site", "enrolment_code", ["site"])
    op.create_table(
        "bound_role",
        sa.Column("role", sa.String(63), nullable=False),
        sa.Column("site", sa.String(64)),
        sa.Column("tenant_id", sa.Integer()),
        sa.Column("bound_at", MOMENT, server_default=NOW, nullable=False),
        sa.PrimaryKeyConstraint("role", name="pk_bound_role"),
        sa.UniqueConstraint("site", name="uq_bound_role_site"),
        sa.ForeignKeyConstraint(["site"], ["site.name"], name="fk_bound_role_site"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name="fk_bound_role_tenant_id"),
        sa.CheckConstraint("(site IS NULL) <> (tenant_id IS NULL)", name="ck_bound_role_to_one"),
    )
