"""The first schema."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# Plain SQL, so that no newer library can change what was released.
_STATEMENTS = (
    """
    CREATE TABLE counter (
        name VARCHAR NOT NULL,
        value INTEGER NOT NULL,
        PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE gap (
        id INTEGER NOT NULL,
        pbx VARCHAR NOT NULL,
        from_at DATETIME NOT NULL,
        to_at DATETIME,
        reason VARCHAR NOT NULL,
        detail VARCHAR,
        backfilled_at DATETIME,
        PRIMARY KEY (id)
    )
    """,
    "CREATE UNIQUE INDEX uq_gap_open ON gap (pbx) WHERE to_at IS NULL",
    "CREATE UNIQUE INDEX uq_gap_pbx_from_at ON gap (pbx, from_at)",
    """
    CREATE TABLE journal_segment (
        id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        pbx VARCHAR NOT NULL,
        boot_id VARCHAR NOT NULL,
        connection INTEGER NOT NULL,
        first_at DATETIME NOT NULL,
        last_at DATETIME NOT NULL,
        monotonic_ns INTEGER NOT NULL,
        frame_count INTEGER NOT NULL,
        raw_size INTEGER NOT NULL,
        blob BLOB NOT NULL
    )
    """,
    "CREATE INDEX ix_journal_segment_pbx_id ON journal_segment (pbx, id)",
    """
    CREATE TABLE live_call (
        call_sid VARCHAR(255) NOT NULL,
        pbx VARCHAR NOT NULL,
        journal_id INTEGER NOT NULL,
        start_time DATETIME NOT NULL,
        PRIMARY KEY (call_sid)
    )
    """,
    "CREATE INDEX ix_live_call_pbx_journal_id ON live_call (pbx, journal_id)",
    """
    CREATE TABLE tenant (
        id INTEGER NOT NULL,
        name VARCHAR(255) NOT NULL,
        is_active BOOLEAN NOT NULL,
        PRIMARY KEY (id)
    )
    """,
    "CREATE UNIQUE INDEX ix_tenant_name ON tenant (name)",
    """
    CREATE TABLE call (
        id INTEGER NOT NULL,
        call_sid VARCHAR(255) NOT NULL,
        trace_id VARCHAR(32) NOT NULL,
        tenant_id INTEGER,
        site VARCHAR(64) NOT NULL,
        pbx VARCHAR(64) NOT NULL,
        direction VARCHAR(16) NOT NULL,
        caller_id VARCHAR,
        caller_name VARCHAR,
        callee_id VARCHAR,
        answered_by VARCHAR,
        status VARCHAR(16) NOT NULL,
        disposition VARCHAR(16),
        start_time DATETIME NOT NULL,
        pbx_answer_time DATETIME,
        answer_time DATETIME,
        end_time DATETIME,
        ring_seconds FLOAT NOT NULL,
        talk_seconds FLOAT NOT NULL,
        hold_seconds FLOAT NOT NULL,
        total_seconds FLOAT NOT NULL,
        hangup_cause INTEGER,
        hangup_source VARCHAR(16),
        queue VARCHAR,
        transferred BOOLEAN NOT NULL,
        recording VARCHAR,
        merged_into VARCHAR,
        legs JSON NOT NULL,
        timeline JSON NOT NULL,
        full_transcript JSON NOT NULL,
        source VARCHAR(64) NOT NULL,
        start_estimated BOOLEAN NOT NULL,
        end_estimated BOOLEAN NOT NULL,
        revision INTEGER NOT NULL,
        created_at DATETIME NOT NULL,
        updated_at DATETIME NOT NULL,
        PRIMARY KEY (id),
        UNIQUE (call_sid),
        FOREIGN KEY(tenant_id) REFERENCES tenant (id)
    )
    """,
    "CREATE INDEX ix_call_start_time ON call (start_time)",
    "CREATE INDEX ix_call_tenant_id_start_time ON call (tenant_id, start_time)",
    """
    CREATE TABLE user (
        id INTEGER NOT NULL,
        email VARCHAR(320) NOT NULL,
        hashed_password VARCHAR NOT NULL,
        tenant_id INTEGER NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(tenant_id) REFERENCES tenant (id)
    )
    """,
    "CREATE UNIQUE INDEX ix_user_email ON user (email)",
    "CREATE INDEX ix_user_tenant_id ON user (tenant_id)",
    """
    CREATE TABLE interaction (
        id INTEGER NOT NULL,
        tenant_id INTEGER,
        call_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        data JSON NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(tenant_id) REFERENCES tenant (id),
        FOREIGN KEY(call_id) REFERENCES call (id) ON DELETE CASCADE
    )
    """,
    "CREATE UNIQUE INDEX uq_interaction_call_id_position ON interaction (call_id, position)",
    """
    CREATE TABLE outbox (
        sequence INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
        call_id INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        enqueued_at DATETIME NOT NULL,
        UNIQUE (call_id),
        FOREIGN KEY(call_id) REFERENCES call (id)
    )
    """,
    """
    CREATE TABLE quarantine (
        call_id INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        code VARCHAR NOT NULL,
        reason VARCHAR NOT NULL,
        at DATETIME NOT NULL,
        PRIMARY KEY (call_id),
        FOREIGN KEY(call_id) REFERENCES call (id)
    )
    """,
    """
    CREATE TABLE task (
        id INTEGER NOT NULL,
        tenant_id INTEGER,
        call_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        task_name VARCHAR NOT NULL,
        state_data JSON NOT NULL,
        start_time DATETIME NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(tenant_id) REFERENCES tenant (id),
        FOREIGN KEY(call_id) REFERENCES call (id) ON DELETE CASCADE
    )
    """,
    "CREATE UNIQUE INDEX uq_task_call_id_position ON task (call_id, position)",
    "INSERT INTO counter (name, value) VALUES ('outbox_records', 0)",
    "CREATE TRIGGER outbox_records_added AFTER INSERT ON outbox "
    "BEGIN UPDATE counter SET value = value + 1 WHERE name = 'outbox_records'; END",
    "CREATE TRIGGER outbox_records_removed AFTER DELETE ON outbox "
    "BEGIN UPDATE counter SET value = value - 1 WHERE name = 'outbox_records'; END",
    "INSERT INTO counter (name, value) VALUES ('quarantine_records', 0)",
    "CREATE TRIGGER quarantine_records_added AFTER INSERT ON quarantine "
    "BEGIN UPDATE counter SET value = value + 1 WHERE name = 'quarantine_records'; END",
    "CREATE TRIGGER quarantine_records_removed AFTER DELETE ON quarantine "
    "BEGIN UPDATE counter SET value = value - 1 WHERE name = 'quarantine_records'; END",
    "INSERT INTO counter (name, value) VALUES ('journal_bytes', 0)",
    "CREATE TRIGGER journal_bytes_added AFTER INSERT ON journal_segment "
    "BEGIN UPDATE counter SET value = value + length(NEW.blob) WHERE name = 'journal_bytes'; END",
    "CREATE TRIGGER journal_bytes_removed AFTER DELETE ON journal_segment "
    "BEGIN UPDATE counter SET value = value - length(OLD.blob) WHERE name = 'journal_bytes'; END",
)


def upgrade() -> None:
    for statement in _STATEMENTS:
        op.execute(statement)
