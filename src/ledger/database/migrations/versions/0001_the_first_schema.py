"""The first schema: persons, invoices, payments, events, audit, settings, and the job queue."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from ledger.database.migrate import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    op.create_table(
        "billing_settings",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("default_currency", sa.Text(), nullable=False),
        sa.Column("tax_rate_bp", sa.Integer(), nullable=False),
        sa.Column("tax_label", sa.Text(), nullable=False),
        sa.Column("data_retention_days", sa.Integer(), nullable=False),
        sa.Column("allow_self_cancel", sa.Boolean(), nullable=False),
        sa.Column("smtp_host", sa.Text(), nullable=True),
        sa.Column("smtp_port", sa.Integer(), nullable=True),
        sa.Column("smtp_user", sa.Text(), nullable=True),
        sa.Column("smtp_password_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column("smtp_from", sa.Text(), nullable=True),
        sa.Column("smtp_security", sa.Text(), nullable=False),
        sa.Column("language", sa.Text(), nullable=False),
        sa.Column("company_name", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("data_retention_days >= 1", name=op.f("billing_settings_data_retention_days_check")),
        sa.CheckConstraint("id = 1", name=op.f("billing_settings_single_row_check")),
        sa.CheckConstraint("tax_rate_bp between 0 and 10000", name=op.f("billing_settings_tax_rate_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("billing_settings_pkey")),
    )
    op.create_table(
        "counter",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("last_number", sa.BigInteger(), nullable=False),
        sa.Column("last_issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("last_number >= 0", name=op.f("counter_last_number_check")),
        sa.PrimaryKeyConstraint("series", name=op.f("counter_pkey")),
    )
    op.create_table(
        "idempotency_record",
        sa.Column("caller", sa.Text(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("body_sha256", postgresql.BYTEA(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=True),
        sa.Column("answer", postgresql.BYTEA(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("caller", "operation", "key", name=op.f("idempotency_record_pkey")),
    )
    op.create_index(op.f("idempotency_record_created_at_idx"), "idempotency_record", ["created_at"], unique=False)
    op.create_table(
        "lanyard_heartbeat",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.CheckConstraint("id = 1", name=op.f("lanyard_heartbeat_single_row_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("lanyard_heartbeat_pkey")),
    )
    op.create_table(
        "person",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("lanyard_user_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("person_pkey")),
        sa.UniqueConstraint("lanyard_user_id", name=op.f("person_lanyard_user_id_key")),
    )
    op.create_table(
        "service_access",
        sa.Column("service_id", sa.Text(), nullable=False),
        sa.Column("access", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("access in ('read', 'manage')", name=op.f("service_access_access_check")),
        sa.PrimaryKeyConstraint("service_id", name=op.f("service_access_pkey")),
    )
    op.create_table(
        "worker_seen",
        sa.Column("worker_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("worker_id", name=op.f("worker_seen_pkey")),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("entity_type", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_person_id", sa.BigInteger(), nullable=True),
        sa.Column("actor_name", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "actor_kind in ('person', 'service', 'provider', 'system', 'cli')",
            name=op.f("audit_entry_actor_kind_check"),
        ),
        sa.ForeignKeyConstraint(["actor_person_id"], ["person.id"], name=op.f("audit_entry_actor_person_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("audit_entry_pkey")),
    )
    op.create_index(op.f("audit_entry_actor_person_id_idx"), "audit_entry", ["actor_person_id"], unique=False)
    op.create_index("audit_entry_in_action_idx", "audit_entry", ["action", sa.literal_column("id desc")], unique=False)
    op.create_index("audit_entry_of_entity_idx", "audit_entry", ["entity_type", "entity_id"], unique=False)
    op.create_table(
        "event",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.UUID(), nullable=True),
        sa.Column("person_id", sa.BigInteger(), nullable=True),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("event_person_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("event_pkey")),
    )
    op.create_index(
        "event_newest_idx", "event", [sa.literal_column("created_at desc"), sa.literal_column("id desc")], unique=False
    )
    op.create_index(op.f("event_person_id_idx"), "event", ["person_id"], unique=False)
    op.create_table(
        "invoice",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("series_number", sa.BigInteger(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=True),
        sa.Column("created_by_service", sa.Text(), nullable=True),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("subtotal_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_label", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("paid_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("invoice_currency_check")),
        sa.CheckConstraint(
            "status in ('pending', 'paid', 'failed', 'cancelled', 'refunded')", name=op.f("invoice_status_check")
        ),
        sa.CheckConstraint("subtotal_minor + tax_minor = total_minor", name=op.f("invoice_sum_check")),
        sa.CheckConstraint("subtotal_minor >= 0 and tax_minor >= 0", name=op.f("invoice_not_negative_check")),
        sa.CheckConstraint("total_minor <= 1000000000000", name=op.f("invoice_total_limit_check")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("invoice_person_id_fkey")),
        sa.ForeignKeyConstraint(["series"], ["counter.series"], name=op.f("invoice_series_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("invoice_pkey")),
        sa.UniqueConstraint("number", name=op.f("invoice_number_key")),
        sa.UniqueConstraint("series", "series_number", name=op.f("invoice_series_series_number_key")),
    )
    op.create_index(
        "invoice_in_status_idx",
        "invoice",
        ["status", sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(
        "invoice_newest_idx",
        "invoice",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(
        "invoice_number_prefix_idx", "invoice", ["number"], unique=False, postgresql_ops={"number": "text_pattern_ops"}
    )
    op.create_index(
        "invoice_of_person_idx",
        "invoice",
        ["person_id", sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(
        "invoice_open_idx",
        "invoice",
        ["due_at"],
        unique=False,
        postgresql_include=["currency", "total_minor"],
        postgresql_where=sa.text("status in ('pending', 'failed')"),
    )
    op.create_index("invoice_series_number_idx", "invoice", ["series_number"], unique=False)
    op.create_table(
        "audit_seal",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("entry_id", sa.BigInteger(), nullable=False),
        sa.Column("seal", postgresql.BYTEA(), nullable=False),
        sa.ForeignKeyConstraint(["entry_id"], ["audit_entry.id"], name=op.f("audit_seal_entry_id_fkey")),
        sa.PrimaryKeyConstraint("position", name=op.f("audit_seal_pkey")),
        sa.UniqueConstraint("entry_id", name=op.f("audit_seal_entry_id_key")),
    )
    op.create_table(
        "invoice_line",
        sa.Column("invoice_id", sa.UUID(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("unit_price_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_rate_bp", sa.Integer(), nullable=False),
        sa.Column("product_id", sa.UUID(), nullable=True),
        sa.CheckConstraint("quantity * unit_price_minor = total_minor", name=op.f("invoice_line_product_check")),
        sa.CheckConstraint("quantity >= 1 and unit_price_minor >= 0", name=op.f("invoice_line_not_negative_check")),
        sa.CheckConstraint("tax_rate_bp between 0 and 10000", name=op.f("invoice_line_tax_rate_check")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name=op.f("invoice_line_invoice_id_fkey")),
        sa.PrimaryKeyConstraint("invoice_id", "position", name=op.f("invoice_line_pkey")),
    )
    op.create_table(
        "invoice_tax",
        sa.Column("invoice_id", sa.UUID(), nullable=False),
        sa.Column("rate_bp", sa.Integer(), nullable=False),
        sa.Column("net_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_minor", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name=op.f("invoice_tax_invoice_id_fkey")),
        sa.PrimaryKeyConstraint("invoice_id", "rate_bp", name=op.f("invoice_tax_pkey")),
    )
    op.create_table(
        "payment",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("invoice_id", sa.UUID(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("is_unexpected", sa.Boolean(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor >= 0", name=op.f("payment_not_negative_check")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name=op.f("payment_invoice_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("payment_pkey")),
        sa.UniqueConstraint("provider", "provider_reference", name=op.f("payment_provider_provider_reference_key")),
    )
    op.create_index(op.f("payment_invoice_id_idx"), "payment", ["invoice_id"], unique=False)
    op.create_index(
        "payment_newest_idx",
        "payment",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(
        "payment_received_idx",
        "payment",
        ["received_at"],
        unique=False,
        postgresql_include=["currency", "amount_minor"],
    )
    run_script(op.get_bind(), SQL / "0001_guards.sql")
    run_script(op.get_bind(), SQL / "0001_pgqueuer_1_6.sql")


def downgrade() -> None:
    """There is no way back from the first schema: it would throw issued documents away."""
    raise NotImplementedError("restore a backup instead of downgrading the first schema")
