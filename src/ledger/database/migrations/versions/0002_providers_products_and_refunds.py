"""Providers, products, checkouts, refunds and inbound events; invoices get their payment reference."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from ledger.database.migrate import run_script

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


SQL = Path(__file__).parents[1] / "sql"

# ISO 11649: the check digits make the whole 1 modulo 97. Every number so far begins with INV, which is 182331 there.
REFERENCES = """
    update invoice set payment_reference =
        'RF'
        || lpad((98 - (('182331' || translate(substr(number, 4), '-', '') || '271500')::numeric % 97))::text, 2, '0')
        || translate(number, '-', '')
"""


def upgrade() -> None:
    op.create_table(
        "product",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tax_rate_bp", sa.Integer(), nullable=True),
        sa.Column("prorate_on_change", sa.Boolean(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind in ('one-time', 'recurring')", name=op.f("product_kind_check")),
        sa.CheckConstraint("tax_rate_bp between 0 and 10000", name=op.f("product_tax_rate_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("product_pkey")),
    )
    op.create_index(
        "product_newest_idx",
        "product",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_table(
        "provider_connection",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("settings_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column("tested_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("test_result", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("provider_connection_pkey")),
    )
    op.create_index(
        "provider_connection_active_idx",
        "provider_connection",
        ["is_active"],
        unique=True,
        postgresql_where=sa.text("is_active"),
    )
    op.create_table(
        "inbound_event",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("connection_id", sa.UUID(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.BYTEA(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state in ('received', 'applied', 'ignored', 'failed')", name=op.f("inbound_event_state_check")
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["provider_connection.id"], name=op.f("inbound_event_connection_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("inbound_event_pkey")),
        sa.UniqueConstraint("connection_id", "remote_id", name=op.f("inbound_event_connection_id_remote_id_key")),
    )
    op.create_index(
        "inbound_event_due_idx",
        "inbound_event",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("state in ('received', 'failed')"),
    )
    op.create_index(
        "inbound_event_newest_idx",
        "inbound_event",
        [sa.literal_column("received_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_table(
        "product_price",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("product_id", sa.UUID(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("interval", sa.Text(), nullable=True),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("interval in ('month', 'year')", name=op.f("product_price_interval_check")),
        sa.CheckConstraint("amount_minor >= 0", name=op.f("product_price_not_negative_check")),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name=op.f("product_price_product_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("product_price_pkey")),
    )
    op.create_index(
        "product_price_current_idx",
        "product_price",
        ["product_id"],
        unique=True,
        postgresql_where=sa.text("is_current"),
    )
    op.create_index(op.f("product_price_product_id_idx"), "product_price", ["product_id"], unique=False)
    op.create_table(
        "product_sync",
        sa.Column("product_id", sa.UUID(), nullable=False),
        sa.Column("connection_id", sa.UUID(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("synced_version", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state in ('pending', 'synced', 'failed')", name=op.f("product_sync_state_check")),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["provider_connection.id"], name=op.f("product_sync_connection_id_fkey")
        ),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name=op.f("product_sync_product_id_fkey")),
        sa.PrimaryKeyConstraint("product_id", "connection_id", name=op.f("product_sync_pkey")),
    )
    op.create_index(
        "product_sync_due_idx",
        "product_sync",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("state <> 'synced'"),
    )
    op.create_table(
        "provider_mapping",
        sa.Column("connection_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("local_id", sa.Text(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["provider_connection.id"], name=op.f("provider_mapping_connection_id_fkey")
        ),
        sa.PrimaryKeyConstraint("connection_id", "kind", "local_id", name=op.f("provider_mapping_pkey")),
    )
    op.create_index(
        "provider_mapping_remote_idx", "provider_mapping", ["connection_id", "kind", "remote_id"], unique=False
    )
    op.create_table(
        "checkout",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("invoice_id", sa.UUID(), nullable=False),
        sa.Column("connection_id", sa.UUID(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("is_unwanted", sa.Boolean(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("url", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "status in ('requested', 'open', 'pending', 'paid', 'expired', 'failed')",
            name=op.f("checkout_status_check"),
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["provider_connection.id"], name=op.f("checkout_connection_id_fkey")
        ),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name=op.f("checkout_invoice_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("checkout_pkey")),
        sa.UniqueConstraint("connection_id", "remote_id", name=op.f("checkout_connection_id_remote_id_key")),
    )
    op.create_index(
        "checkout_due_idx",
        "checkout",
        ["next_look_at"],
        unique=False,
        postgresql_where=sa.text("status in ('requested', 'open', 'pending')"),
    )
    op.create_index(op.f("checkout_invoice_id_idx"), "checkout", ["invoice_id"], unique=False)
    op.create_index(
        "checkout_usable_idx",
        "checkout",
        ["invoice_id"],
        unique=True,
        postgresql_where=sa.text("status in ('requested', 'open') and not is_unwanted"),
    )
    op.create_table(
        "refund",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("payment_id", sa.UUID(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("provider_reference", sa.Text(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.CheckConstraint("status in ('requested', 'succeeded', 'failed')", name=op.f("refund_status_check")),
        sa.CheckConstraint("amount_minor > 0", name=op.f("refund_positive_check")),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("refund_payment_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("refund_pkey")),
    )
    op.create_index(
        "refund_due_idx", "refund", ["next_look_at"], unique=False, postgresql_where=sa.text("status = 'requested'")
    )
    op.create_index(
        "refund_newest_idx",
        "refund",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(op.f("refund_payment_id_idx"), "refund", ["payment_id"], unique=False)
    op.add_column("invoice", sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("invoice", sa.Column("provider", sa.Text(), nullable=True))
    op.add_column("invoice", sa.Column("payment_reference", sa.Text(), nullable=True))
    op.execute(REFERENCES)
    op.alter_column("invoice", "payment_reference", nullable=False)
    op.add_column("invoice", sa.Column("payment_instructions", sa.Text(), nullable=True))
    op.create_unique_constraint(op.f("invoice_payment_reference_key"), "invoice", ["payment_reference"])
    op.create_foreign_key(op.f("invoice_line_product_id_fkey"), "invoice_line", "product", ["product_id"], ["id"])
    op.add_column("payment", sa.Column("connection_id", sa.UUID(), nullable=True))
    op.create_index(op.f("payment_connection_id_idx"), "payment", ["connection_id"], unique=False)
    op.create_foreign_key(
        op.f("payment_connection_id_fkey"), "payment", "provider_connection", ["connection_id"], ["id"]
    )
    run_script(op.get_bind(), SQL / "0002_guards.sql")


def downgrade() -> None:
    """There is no way back: payments and refunds taken since would lose what took them."""
    raise NotImplementedError("restore a backup instead of downgrading")
