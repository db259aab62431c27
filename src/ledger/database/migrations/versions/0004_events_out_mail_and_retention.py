"""Webhook subscribers, deliveries and their attempts, mails, runs of schedules; persons can be restricted."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MAIL_KINDS = (
    "'invoice_created', 'payment_received', 'payment_failed', 'refund', 'subscription_cancelled', 'reminder_due', "
    "'reminder_overdue'"
)


def upgrade() -> None:
    op.create_table(
        "schedule_run",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("schedule_run_pkey")),
    )
    op.create_index(
        "schedule_run_of_name_idx", "schedule_run", ["name", sa.literal_column("started_at desc")], unique=False
    )
    op.create_table(
        "webhook_subscriber",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("header_secret_sealed", postgresql.BYTEA(), nullable=False),
        sa.Column("sends_header_secret", sa.Boolean(), nullable=False),
        sa.Column("signing_secret_sealed", postgresql.BYTEA(), nullable=False),
        sa.Column("previous_signing_secret_sealed", postgresql.BYTEA(), nullable=True),
        sa.Column("previous_signing_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_subscriber_pkey")),
    )
    op.create_index(
        "webhook_subscriber_newest_idx",
        "webhook_subscriber",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("event_id", sa.UUID(), nullable=False),
        sa.Column("subscriber_id", sa.UUID(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status in ('pending', 'delivered', 'failed')", name=op.f("webhook_delivery_status_check")),
        sa.ForeignKeyConstraint(["event_id"], ["event.id"], name=op.f("webhook_delivery_event_id_fkey")),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["webhook_subscriber.id"],
            name=op.f("webhook_delivery_subscriber_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_delivery_pkey")),
        sa.UniqueConstraint("event_id", "subscriber_id", name=op.f("webhook_delivery_event_id_subscriber_id_key")),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index(
        "webhook_delivery_due_idx",
        "webhook_delivery",
        ["subscriber_id", "next_try_at"],
        unique=False,
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_index(
        "webhook_delivery_in_status_idx",
        "webhook_delivery",
        ["status", "subscriber_id", sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(
        "webhook_delivery_newest_idx",
        "webhook_delivery",
        [sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(
        "webhook_delivery_of_subscriber_idx",
        "webhook_delivery",
        ["subscriber_id", sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(
        "webhook_delivery_of_type_idx",
        "webhook_delivery",
        ["event_type", sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_table(
        "mail",
        sa.Column("id", sa.UUID(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("occasion", sa.Text(), nullable=False),
        sa.Column("person_id", sa.BigInteger(), nullable=True),
        sa.Column("invoice_id", sa.UUID(), nullable=True),
        sa.Column("subscription_id", sa.UUID(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=True),
        sa.Column("amount_currency", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("settled_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status in ('waiting', 'handed_over', 'sent', 'failed', 'skipped')", name=op.f("mail_status_check")
        ),
        sa.CheckConstraint(f"kind in ({MAIL_KINDS})", name=op.f("mail_kind_check")),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoice.id"], name=op.f("mail_invoice_id_fkey")),
        sa.ForeignKeyConstraint(["person_id"], ["person.id"], name=op.f("mail_person_id_fkey")),
        sa.ForeignKeyConstraint(["subscription_id"], ["subscription.id"], name=op.f("mail_subscription_id_fkey")),
        sa.PrimaryKeyConstraint("id", name=op.f("mail_pkey")),
        sa.UniqueConstraint("occasion", name=op.f("mail_occasion_key")),
    )
    op.create_index(
        "mail_due_idx",
        "mail",
        ["next_try_at"],
        unique=False,
        postgresql_where=sa.text("status in ('waiting', 'handed_over')"),
    )
    op.create_index(
        "mail_in_status_idx",
        "mail",
        ["status", sa.literal_column("created_at desc"), sa.literal_column("id desc")],
        unique=False,
    )
    op.create_index(op.f("mail_invoice_id_idx"), "mail", ["invoice_id"], unique=False)
    op.create_index(
        "mail_newest_idx", "mail", [sa.literal_column("created_at desc"), sa.literal_column("id desc")], unique=False
    )
    op.create_index(op.f("mail_person_id_idx"), "mail", ["person_id"], unique=False)
    op.create_table(
        "webhook_attempt",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("delivery_id", sa.UUID(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["delivery_id"], ["webhook_delivery.id"], name=op.f("webhook_attempt_delivery_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("webhook_attempt_pkey")),
    )
    op.create_index(op.f("webhook_attempt_delivery_id_idx"), "webhook_attempt", ["delivery_id"], unique=False)
    op.create_index(op.f("webhook_attempt_started_at_idx"), "webhook_attempt", ["started_at"], unique=False)
    op.add_column(
        "billing_settings", sa.Column("mails_off", postgresql.ARRAY(sa.Text()), server_default="{}", nullable=False)
    )
    op.create_check_constraint(
        op.f("billing_settings_mails_off_check"), "billing_settings", f"mails_off <@ array[{MAIL_KINDS}]"
    )
    # What happened before nobody subscribed to: it is not announced now. Adding it like this rewrites no row.
    op.add_column("event", sa.Column("is_fanned_out", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.alter_column("event", "is_fanned_out", server_default=sa.false())
    op.alter_column("event", "data", existing_type=postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    op.create_index("event_waiting_idx", "event", ["id"], unique=False, postgresql_where=sa.text("not is_fanned_out"))
    op.create_index(
        "inbound_event_payload_idx",
        "inbound_event",
        ["received_at", "id"],
        unique=False,
        postgresql_where=sa.text("payload is not null"),
    )
    op.add_column("person", sa.Column("restricted_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("worker_seen", sa.Column("counted", postgresql.JSONB(astext_type=sa.Text()), nullable=True))


def downgrade() -> None:
    """There is no way back: what was told to others since would be forgotten, and be told again."""
    raise NotImplementedError("restore a backup instead of downgrading")
