"""The centre's own tables: its sites and what they may, who comes in how, and what was done at the registry."""

from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    false,
    text,
)

from sync.models import UtcDateTime


def add_own_tables(metadata: MetaData) -> None:
    """Add them to the shared tables, which are there already."""
    _add_centre(metadata)
    _add_site(metadata)
    _add_what_a_site_may(metadata)
    _add_ways_in(metadata)
    _add_audit(metadata)


def _add_centre(metadata: MetaData) -> None:
    """One row: who this centre is, and the oldest revision whose programs may write into its tables."""
    Table(
        "centre",
        metadata,
        Column[UUID]("id", Uuid(), primary_key=True, server_default=text("gen_random_uuid()")),
        Column("compatible_from", String(32), nullable=False),
    )


def _add_site(metadata: MetaData) -> None:
    """The installations, how far each one's outbox has come, which of its machines speaks, and who was sent away."""
    Table(
        "site",
        metadata,
        Column("id", Integer(), Identity(), primary_key=True),
        Column("name", String(64), nullable=False, unique=True),
        Column("first_seen_at", UtcDateTime(), nullable=True),
        Column("last_seen_at", UtcDateTime(), nullable=True),
        Column("high_water", BigInteger(), nullable=False, server_default=text("0")),
        Column("agent_version", String(64), nullable=True),
        Column("added_at", UtcDateTime(), nullable=False, server_default=text("now()")),
        Column("is_disabled", Boolean(), nullable=False, server_default=false()),
        Column("receipts", BigInteger(), nullable=False, server_default=text("0")),
        Column("lease", Text(), nullable=True),
        Column("lease_before", Text(), nullable=True),
        Column("lease_seconds", Float(), nullable=True),
        Column("lease_until", UtcDateTime(), nullable=True),
        Column("holder", Text(), nullable=True),
        Column("holder_host", Text(), nullable=True),
        Column("holder_since", UtcDateTime(), nullable=True),
        Column("refused_at", UtcDateTime(), nullable=True),
        Column("refused_why", String(32), nullable=True),
        Column("refused_holder", Text(), nullable=True),
        Column("refused_host", Text(), nullable=True),
    )


def _add_what_a_site_may(metadata: MetaData) -> None:
    """Grants: the tenants whose calls a site may write. One that ended stays, since the site's calls do."""
    Table(
        "site_tenant",
        metadata,
        Column("site", String(64), ForeignKey("site.name"), primary_key=True),
        Column("tenant_id", Integer(), ForeignKey("tenant.id"), primary_key=True),
        Column("granted_at", UtcDateTime(), nullable=False, server_default=text("now()")),
        Column("ended_at", UtcDateTime(), nullable=True),
    )


def _add_ways_in(metadata: MetaData) -> None:
    """Credentials and codes for the hub, and the database roles of those who come directly. No secret is kept."""
    Table(
        "credential",
        metadata,
        Column("id", String(16), primary_key=True),
        Column("site", String(64), ForeignKey("site.name"), nullable=False),
        Column("secret_sha256", LargeBinary(), nullable=False),
        Column("made_at", UtcDateTime(), nullable=False, server_default=text("now()")),
        Column("used_at", UtcDateTime(), nullable=True),  # for the first time
        Column("expires_at", UtcDateTime(), nullable=True),
        Column("revoked_at", UtcDateTime(), nullable=True),
        Index(None, "site"),
    )
    Table(
        "enrolment_code",
        metadata,
        Column("code_sha256", LargeBinary(), primary_key=True),
        Column("site", String(64), ForeignKey("site.name"), nullable=False),
        Column("made_at", UtcDateTime(), nullable=False, server_default=text("now()")),
        Column("expires_at", UtcDateTime(), nullable=False),
        Column("used_at", UtcDateTime(), nullable=True),
        Index(None, "site"),
    )
    Table(
        "bound_role",
        metadata,
        Column("role", String(63), primary_key=True),
        Column("site", String(64), ForeignKey("site.name"), nullable=True, unique=True),
        Column("tenant_id", Integer(), ForeignKey("tenant.id"), nullable=True),
        Column("bound_at", UtcDateTime(), nullable=False, server_default=text("now()")),
        CheckConstraint("(site IS NULL) <> (tenant_id IS NULL)", name="ck_bound_role_to_one"),
    )


def _add_audit(metadata: MetaData) -> None:
    """Who did what at the registry, and when."""
    Table(
        "audit",
        metadata,
        Column("id", BigInteger(), Identity(), primary_key=True),
        Column("at", UtcDateTime(), nullable=False, server_default=text("now()")),
        Column("who", Text(), nullable=False),
        Column("what", String(32), nullable=False),
        Column("site", String(64), nullable=True),
        Column("detail", Text(), nullable=True),
        Index(None, "site", "at"),
    )
