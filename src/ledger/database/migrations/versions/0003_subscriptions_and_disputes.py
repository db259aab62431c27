"""Subscriptions with their changes and booked periods, and disputes; lines and totals may be negative."""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

from ledger.database.migrate import run_script

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SQL = Path(__file__).parents[1] / "sql"


def upgrade() -> None:
    op.create_table(
        "subscription",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=True),
        sa.Column("product_id", sa.UUID(), nullable=False),
        sa.Column("price_id", sa.UUID(), nullable=False),
        sa.Column("connection_id", sa.UUID(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("cancels_at_period_end", sa.Boolean(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=True),
        sa.Column("checkout_remote_id", sa.Text(), nullable=True),
        sa.Column("checkout_url", sa.Text(), nullable=True),
        sa.Column("checkout_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("is_unwanted", sa.Boolean(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=True),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=True),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "status in ('incomplete', 'active', 'past_due', 'paused', 'cancelled')",
            name=op.f("subscription_status_check"),
        ),
        sa.CheckConstraint(
            "status in ('incomplete', 'cancelled') or (remote_id is not null and activated_at is not null)",
            name=op.f("subscription_active_check"),
        ),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["provider_connection.id"], name=op.f("subscription_connection_id_fkey")
        ),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("subscription_person_id_fkey")),
        sa.ForeignKeyConstraint(["price_id"], ["product_price.id"], name=op.f("subscription_price_id_fkey")),
        sa.ForeignKeyConstraint(["product_id"], ["product.id"], name=op.f("subscription_product_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("subscription_pkey")),
        sa.UniqueConstraint("connection_id", "remote_id", name=op.f("subscription_connection_id_remote_id_key")),
    )
    op.create_index(
        "subscription_due_idx",
        "subscription",
        ["next_look_at"],
        unique=False,
        postgresql_where=sa.text("next_look_at is not null"),
    )
    op.create_index(
        "subscription_live_idx",
        "subscription",
        ["person_id", "product_id"],
        unique=True,
        postgresql_where=sa.text("status <> 'cancelled'"),
    )
    op.create_index(
        "subscription_newest_idx",
        "subscription",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(op.f("subscription_person_id_idx"), "subscription", ["person_id"], unique=False)
    op.create_index(op.f("subscription_product_id_idx"), "subscription", ["product_id"], unique=False)
    op.create_index("subscription_remote_idx", "subscription", ["remote_id"], unique=False)
    op.create_table(
        "dispute",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("payment_id", sa.UUID(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("respond_by", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status in ('needs_response', 'under_review', 'won', 'lost')", name=op.f("dispute_status_check")
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("dispute_payment_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("dispute_pkey")),
        sa.UniqueConstraint("payment_id", "remote_id", name=op.f("dispute_payment_id_remote_id_key")),
    )
    op.create_index(op.f("dispute_payment_id_idx"), "dispute", ["payment_id"], unique=False)
    op.create_table(
        "subscription_change",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("subscription_id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("price_id", sa.UUID(), nullable=True),
        sa.Column("prorates", sa.Boolean(), nullable=False),
        sa.Column("prorate_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tax_rate_bp", sa.Integer(), nullable=False),
        sa.Column("tax_label", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("next_look_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.CheckConstraint("(kind = 'change') = (price_id is not null)", name=op.f("subscription_change_price_check")),
        sa.CheckConstraint("kind in ('change', 'cancel', 'reactivate')", name=op.f("subscription_change_kind_check")),
        sa.CheckConstraint(
            "status in ('requested', 'succeeded', 'failed')", name=op.f("subscription_change_status_check")
        ),
        sa.ForeignKeyConstraint(["price_id"], ["product_price.id"], name=op.f("subscription_change_price_id_fkey")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscription.id"], name=op.f("subscription_change_subscription_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("subscription_change_pkey")),
    )
    op.create_index(
        "subscription_change_due_idx",
        "subscription_change",
        ["next_look_at"],
        unique=False,
        postgresql_where=sa.text("status = 'requested'"),
    )
    op.create_index(
        "subscription_change_open_idx",
        "subscription_change",
        ["subscription_id"],
        unique=True,
        postgresql_where=sa.text("status = 'requested'"),
    )
    op.create_index(
        op.f("subscription_change_subscription_id_idx"), "subscription_change", ["subscription_id"], unique=False
    )
    op.create_table(
        "subscription_period",
        sa.Column("connection_id", sa.UUID(), nullable=False),
        sa.Column("remote_id", sa.Text(), nullable=False),
        sa.Column("subscription_id", sa.UUID(), nullable=False),
        sa.Column("invoice_id", sa.UUID(), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["connection_id"], ["provider_connection.id"], name=op.f("subscription_period_connection_id_fkey")
        ),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name=op.f("subscription_period_invoice_id_fkey")),
        sa.ForeignKeyConstraint(
            ["subscription_id"], ["subscription.id"], name=op.f("subscription_period_subscription_id_fkey")
        ),
        sa.PrimaryKeyConstraint("connection_id", "remote_id", name=op.f("subscription_period_pkey")),
        sa.UniqueConstraint("invoice_id", name=op.f("subscription_period_invoice_id_key")),
    )
    op.create_index(
        op.f("subscription_period_subscription_id_idx"), "subscription_period", ["subscription_id"], unique=False
    )
    # As providers bill a change of subscription: time that was paid for and not used is a line below zero.
    op.drop_constraint(op.f("invoice_line_not_negative_check"), "invoice_line")
    op.create_check_constraint(op.f("invoice_line_quantity_check"), "invoice_line", "quantity >= 1")
    op.drop_constraint(op.f("invoice_not_negative_check"), "invoice")
    op.drop_constraint(op.f("invoice_total_limit_check"), "invoice")
    op.create_check_constraint(
        op.f("invoice_total_limit_check"), "invoice", "total_minor between -1000000000000 and 1000000000000"
    )
    # What was settled from credit is not counted as received, so the sum needs the method as well.
    op.drop_index("payment_received_idx", "payment")
    op.create_index(
        "payment_received_idx",
        "payment",
        ["received_at"],
        postgresql_include=["currency", "amount_minor", "method"],
    )
    op.create_index(
        "inbound_event_in_state_idx",
        "inbound_event",
        ["state", sa.literal_column("received_at desc"), sa.literal_column("id desc")],
    )
    op.create_index(
        "inbound_event_of_type_idx",
        "inbound_event",
        ["type", sa.literal_column("received_at desc"), sa.literal_column("id desc")],
    )
    op.create_unique_constraint(
        op.f("refund_payment_id_provider_reference_key"), "refund", ["payment_id", "provider_reference"]
    )
    run_script(op.get_bind(), SQL / "0003_guards.sql")


def downgrade() -> None:
    """There is no way back: what was booked for subscriptions since would lose what it belongs to."""
    raise NotImplementedError("restore a backup instead of downgrading")
