"""Calls, tasks and interactions by tenant, and the sites they come from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "tenant",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_tenant"),
    )
    op.create_index("ix_tenant_name", "tenant", ["name"], unique=True)
    op.create_table(
        "user",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("hashed_password", sa.String(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_user"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name="fk_user_tenant_id"),
    )
    op.create_index("ix_user_email", "user", ["email"], unique=True)
    op.create_index("ix_user_tenant_id", "user", ["tenant_id"])
    op.create_table(
        "call",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("call_sid", sa.String(255), nullable=False),
        sa.Column("trace_id", sa.String(32), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("site", sa.String(64), nullable=False),
        sa.Column("pbx", sa.String(64), nullable=False),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("caller_id", sa.String()),
        sa.Column("caller_name", sa.String()),
        sa.Column("callee_id", sa.String()),
        sa.Column("answered_by", sa.String()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("disposition", sa.String(16)),
        sa.Column("start_time", MOMENT, nullable=False),
        sa.Column("pbx_answer_time", MOMENT),
        sa.Column("answer_time", MOMENT),
        sa.Column("end_time", MOMENT),
        sa.Column("ring_seconds", sa.Float(), nullable=False),
        sa.Column("talk_seconds", sa.Float(), nullable=False),
        sa.Column("hold_seconds", sa.Float(), nullable=False),
        sa.Column("total_seconds", sa.Float(), nullable=False),
        sa.Column("hangup_cause", sa.Integer()),
        sa.Column("hangup_source", sa.String(16)),
        sa.Column("queue", sa.String()),
        sa.Column("transferred", sa.Boolean(), nullable=False),
        sa.Column("recording", sa.String()),
        sa.Column("merged_into", sa.String()),
        sa.Column("legs", JSONB(), nullable=False),
        sa.Column("timeline", JSONB(), nullable=False),
        sa.Column("full_transcript", JSONB(), nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("start_estimated", sa.Boolean(), nullable=False),
        sa.Column("end_estimated", sa.Boolean(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id", name="pk_call"),
        sa.UniqueConstraint("tenant_id", "call_sid", name="uq_call_tenant_id_call_sid"),
        sa.ForeignKeyConstraint(["tenant_id"], ["tenant.id"], name="fk_call_tenant_id"),
    )
    op.create_index("ix_call_tenant_id_start_time", "call", ["tenant_id", "start_time"])
    op.create_index("ix_call_start_time", "call", ["start_time"])
    op.create_index("ix_call_call_sid", "call", ["call_sid"])
    op.create_table(
        "task",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("call_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("task_name", sa.String(), nullable=False),
        sa.Column("state_data", JSONB(), nullable=False),
        sa.Column("start_time", MOMENT, nullable=False),
        *_keys_of_a_child("task"),
    )
    op.create_table(
        "interaction",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("tenant_id", sa.Integer(), nullable=False),
        sa.Column("call_id", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("data", JSONB(), nullable=False),
        *_keys_of_a_child("interaction"),
    )
    op.create_table(
        "site",
        sa.Column("id", sa.Integer(), sa.Identity(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("first_seen_at", MOMENT, nullable=False),
        sa.Column("last_seen_at", MOMENT, nullable=False),
        sa.Column("high_water", sa.BigInteger(), nullable=False),
        sa.Column("agent_version", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_site"),
        sa.UniqueConstraint("name", name="uq_site_name"),
    )


def _keys_of_a_child(table: str) -> list[sa.Constraint]:
    return [
        sa.PrimaryKeyConstraint("tenant_id", "id", name=f"pk_{table}"),
        sa.UniqueConstraint("tenant_id", "call_id", "position", name=f"uq_{table}_tenant_id_call_id_position"),
        sa.ForeignKeyConstraint(
            ["tenant_id", "call_id"],
            ["call.tenant_id", "call.id"],
            name=f"fk_{table}_tenant_id_call_id",
            ondelete="CASCADE",
        ),
    ]
