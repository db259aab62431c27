"""The whole schema on one page, as a description that people read and `alembic check` compares.

Queries are written as SQL in each feature's `store`; nothing imports these tables at run time but the migrations.
What a table cannot say (triggers that keep issued documents unchanged) stands in the migrations.
Amounts are integers in the currency's minor unit. Times are UTC. The job queue's tables belong to PgQueuer.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, UUID

metadata = sa.MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

_time = sa.DateTime(timezone=True)


def _check(condition: str, name: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(condition, name=name)


# The only place that holds a Lanyard user id; everything else points at the row. When the row goes, the id is gone.
person = sa.Table(
    "person",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("lanyard_user_id", sa.Text, nullable=False, unique=True),
    # When their erasure was asked for: what a law keeps is restricted from then on, until its time is up.
    sa.Column("restricted_at", _time),
    sa.Column("created_at", _time, nullable=False),
)

# Gapless series: a number is taken here in the transaction that stores the document, so a rollback gives it back.
counter = sa.Table(
    "counter",
    metadata,
    sa.Column("series", sa.Text, primary_key=True),
    sa.Column("last_number", sa.BigInteger, nullable=False),
    sa.Column("last_issued_at", _time, nullable=False),
    _check("last_number >= 0", "last_number"),
)

invoice = sa.Table(
    "invoice",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("number", sa.Text, nullable=False, unique=True),
    sa.Column("series", sa.Text, sa.ForeignKey("counter.series"), nullable=False),
    sa.Column("series_number", sa.BigInteger, nullable=False),
    sa.Column("person_id", sa.BigInteger, sa.ForeignKey("person.id")),
    # The service that created it, by its id in Lanyard; null when staff did.
    sa.Column("created_by_service", sa.Text),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("subtotal_minor", sa.BigInteger, nullable=False),
    sa.Column("tax_minor", sa.BigInteger, nullable=False),
    sa.Column("total_minor", sa.BigInteger, nullable=False),
    sa.Column("tax_label", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("due_at", _time),
    sa.Column("paid_at", _time),
    sa.Column("cancelled_at", _time),
    # When the last attempt to pay failed; empty again with the next attempt.
    sa.Column("failed_at", _time),
    # The provider that was asked for a payment last, or took one.
    sa.Column("provider", sa.Text),
    # ISO 11649 creditor reference, made of the number: banks accept it and software finds it again.
    sa.Column("payment_reference", sa.Text, nullable=False, unique=True),
    # What the payer was told to do; can hold personal data, so retention empties it.
    sa.Column("payment_instructions", sa.Text),
    sa.Column("notes", sa.Text),
    sa.Column("metadata", JSONB),
    sa.Column("created_at", _time, nullable=False),
    sa.UniqueConstraint("series", "series_number"),
    _check("status in ('pending', 'paid', 'failed', 'cancelled', 'refunded')", "status"),
    # Below zero only as a provider billed a change of subscription that gave back more than it cost.
    _check("subtotal_minor + tax_minor = total_minor", "sum"),
    _check("total_minor between -1000000000000 and 1000000000000", "total_limit"),
    _check("currency ~ '^[A-Z]{3}$'", "currency"),
    sa.Index("invoice_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("invoice_of_person_idx", "person_id", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("invoice_in_status_idx", "status", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("invoice_series_number_idx", "series_number"),
    # Numbers are searched by their beginning, whatever the database's collation.
    sa.Index("invoice_number_prefix_idx", "number", postgresql_ops={"number": "text_pattern_ops"}),
    sa.Index(
        "invoice_open_idx",
        "due_at",
        postgresql_include=["currency", "total_minor"],
        postgresql_where=sa.text("status in ('pending', 'failed')"),
    ),
)

invoice_line = sa.Table(
    "invoice_line",
    metadata,
    sa.Column("invoice_id", UUID, sa.ForeignKey("invoice.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("quantity", sa.BigInteger, nullable=False),
    sa.Column("unit_price_minor", sa.BigInteger, nullable=False),
    sa.Column("total_minor", sa.BigInteger, nullable=False),
    sa.Column("tax_rate_bp", sa.Integer, nullable=False),
    sa.Column("product_id", UUID, sa.ForeignKey("product.id")),
    # A price below zero is time that was paid for and not used, as a provider bills a change of subscription.
    _check("quantity >= 1", "quantity"),
    _check("quantity * unit_price_minor = total_minor", "product"),
    _check("tax_rate_bp between 0 and 10000", "tax_rate"),
)

# Tax per rate, as EN 16931 has it: an old invoice proves its own tax after the setting changed.
invoice_tax = sa.Table(
    "invoice_tax",
    metadata,
    sa.Column("invoice_id", UUID, sa.ForeignKey("invoice.id"), primary_key=True),
    sa.Column("rate_bp", sa.Integer, primary_key=True),
    sa.Column("net_minor", sa.BigInteger, nullable=False),
    sa.Column("tax_minor", sa.BigInteger, nullable=False),
)

# Money that arrived. A fact: it is never changed, and never negative.
payment = sa.Table(
    "payment",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("invoice_id", UUID, sa.ForeignKey("invoice.id"), nullable=False, index=True),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("provider", sa.Text, nullable=False),
    # The connection that took it, whatever is active now; empty for money recorded by hand.
    sa.Column("connection_id", UUID, sa.ForeignKey("provider_connection.id"), index=True),
    sa.Column("method", sa.Text, nullable=False),
    # The provider's own name for it; unique, so that one payment announced twice is recorded once.
    sa.Column("provider_reference", sa.Text),
    # What a person wrote beside it (a bank statement's line); one transfer may pay two invoices.
    sa.Column("reference", sa.Text),
    # True when it arrived for an invoice that was already settled: staff has to look at it.
    sa.Column("is_unexpected", sa.Boolean, nullable=False),
    sa.Column("received_at", _time, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    sa.UniqueConstraint("provider", "provider_reference"),
    _check("amount_minor >= 0", "not_negative"),
    sa.Index("payment_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("payment_received_idx", "received_at", postgresql_include=["currency", "amount_minor", "method"]),
)

# Money sent back, by the provider that took it. The sum per payment never exceeds the payment (a trigger sees to it).
refund = sa.Table(
    "refund",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("payment_id", UUID, sa.ForeignKey("payment.id"), nullable=False, index=True),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    # Free text by staff; can hold personal data, so retention empties it.
    sa.Column("reason", sa.Text),
    sa.Column("provider_reference", sa.Text),
    sa.Column("failure", sa.Text),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("settled_at", _time),
    # The reconciler's next look, while the outcome is open.
    sa.Column("next_look_at", _time),
    sa.Column("looks", sa.Integer, nullable=False),
    _check("amount_minor > 0", "positive"),
    _check("status in ('requested', 'succeeded', 'failed')", "status"),
    sa.UniqueConstraint("payment_id", "provider_reference"),
    sa.Index("refund_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("refund_due_idx", "next_look_at", postgresql_where=sa.text("status = 'requested'")),
)

# A connection to a provider with its settings, sealed as a whole. At most one is active.
provider_connection = sa.Table(
    "provider_connection",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    sa.Column("settings_sealed", BYTEA),
    # How the last "Test connection" ended, in words.
    sa.Column("tested_at", _time),
    sa.Column("test_result", sa.Text),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    sa.Index(
        "provider_connection_active_idx",
        "is_active",
        unique=True,
        postgresql_where=sa.text("is_active"),
    ),
)

# What providers call our things (product, price, customer): in one place, not in columns of the things.
provider_mapping = sa.Table(
    "provider_mapping",
    metadata,
    sa.Column("connection_id", UUID, sa.ForeignKey("provider_connection.id"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("local_id", sa.Text, primary_key=True),
    sa.Column("remote_id", sa.Text, nullable=False),
    # When the provider was told that it is not offered any more.
    sa.Column("archived_at", _time),
    sa.Column("created_at", _time, nullable=False),
    sa.Index("provider_mapping_remote_idx", "connection_id", "kind", "remote_id"),
)

# A page where an invoice can be paid: first wanted (`requested`), then open at the provider, then over.
checkout = sa.Table(
    "checkout",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("invoice_id", UUID, sa.ForeignKey("invoice.id"), nullable=False, index=True),
    sa.Column("connection_id", UUID, sa.ForeignKey("provider_connection.id"), nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    # Nobody shall pay here any more; it is to be closed at the provider.
    sa.Column("is_unwanted", sa.Boolean, nullable=False),
    sa.Column("remote_id", sa.Text),
    sa.Column("url", sa.Text),
    # Why the last look could not settle it, for staff.
    sa.Column("error", sa.Text),
    sa.Column("expires_at", _time),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("next_look_at", _time),
    sa.Column("looks", sa.Integer, nullable=False),
    sa.UniqueConstraint("connection_id", "remote_id"),
    _check("status in ('requested', 'open', 'pending', 'paid', 'expired', 'failed')", "status"),
    sa.Index(
        "checkout_usable_idx",
        "invoice_id",
        unique=True,
        postgresql_where=sa.text("status in ('requested', 'open') and not is_unwanted"),
    ),
    sa.Index(
        "checkout_due_idx", "next_look_at", postgresql_where=sa.text("status in ('requested', 'open', 'pending')")
    ),
)

product = sa.Table(
    "product",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("description", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("tax_rate_bp", sa.Integer),
    sa.Column("prorate_on_change", sa.Boolean, nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    # Counts up with every change, so that a provider can be brought to exactly this version.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    _check("kind in ('one-time', 'recurring')", "kind"),
    _check("tax_rate_bp between 0 and 10000", "tax_rate"),
    sa.Index("product_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
)

# Prices are versions: a change adds a row, and what was sold at the old price keeps it.
product_price = sa.Table(
    "product_price",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("product_id", UUID, sa.ForeignKey("product.id"), nullable=False, index=True),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("interval", sa.Text),
    sa.Column("is_current", sa.Boolean, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    _check("amount_minor >= 0", "not_negative"),
    _check("interval in ('month', 'year')", "interval"),
    sa.Index(
        "product_price_current_idx",
        "product_id",
        unique=True,
        postgresql_where=sa.text("is_current"),
    ),
)

# What a person receives again and again, and how it stands at the provider that charges for it.
subscription = sa.Table(
    "subscription",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("person_id", sa.BigInteger, sa.ForeignKey("person.id"), index=True),
    sa.Column("product_id", UUID, sa.ForeignKey("product.id"), nullable=False, index=True),
    # The price that was agreed on; the product may have another one by now.
    sa.Column("price_id", UUID, sa.ForeignKey("product_price.id"), nullable=False),
    sa.Column("connection_id", UUID, sa.ForeignKey("provider_connection.id"), nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("cancels_at_period_end", sa.Boolean, nullable=False),
    sa.Column("remote_id", sa.Text),
    # The page where it can be started, while it is incomplete.
    sa.Column("checkout_remote_id", sa.Text),
    sa.Column("checkout_url", sa.Text),
    sa.Column("checkout_expires_at", _time),
    # Nobody shall start it any more; its page is to be closed at the provider.
    sa.Column("is_unwanted", sa.Boolean, nullable=False),
    sa.Column("period_start", _time),
    sa.Column("period_end", _time),
    # When the provider first said that it is paid.
    sa.Column("activated_at", _time),
    sa.Column("cancelled_at", _time),
    # What staff has to look at, in words.
    sa.Column("problem", sa.Text),
    # Counts up with every state that is stored, so that one that was asked for earlier does not overwrite a later one.
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("next_look_at", _time),
    sa.Column("looks", sa.Integer, nullable=False),
    sa.UniqueConstraint("connection_id", "remote_id"),
    _check("status in ('incomplete', 'active', 'past_due', 'paused', 'cancelled')", "status"),
    _check("status in ('incomplete', 'cancelled') or (remote_id is not null and activated_at is not null)", "active"),
    sa.Index("subscription_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("subscription_remote_idx", "remote_id"),
    sa.Index(
        "subscription_live_idx",
        "person_id",
        "product_id",
        unique=True,
        postgresql_where=sa.text("status <> 'cancelled'"),
    ),
    sa.Index("subscription_due_idx", "next_look_at", postgresql_where=sa.text("next_look_at is not null")),
)

# Somebody wants a subscription changed, cancelled or reactivated: stored before the provider is asked.
subscription_change = sa.Table(
    "subscription_change",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("subscription_id", UUID, sa.ForeignKey("subscription.id"), nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    # What it shall cost from now on, for a change.
    sa.Column("price_id", UUID, sa.ForeignKey("product_price.id")),
    sa.Column("prorates", sa.Boolean, nullable=False),
    sa.Column("prorate_at", _time, nullable=False),
    sa.Column("tax_rate_bp", sa.Integer, nullable=False),
    sa.Column("tax_label", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("failure", sa.Text),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("settled_at", _time),
    sa.Column("next_look_at", _time),
    sa.Column("looks", sa.Integer, nullable=False),
    _check("kind in ('change', 'cancel', 'reactivate')", "kind"),
    _check("(kind = 'change') = (price_id is not null)", "price"),
    _check("status in ('requested', 'succeeded', 'failed')", "status"),
    # One at a time: what is asked of the provider next depends on how the last one ended.
    sa.Index(
        "subscription_change_open_idx",
        "subscription_id",
        unique=True,
        postgresql_where=sa.text("status = 'requested'"),
    ),
    sa.Index("subscription_change_due_idx", "next_look_at", postgresql_where=sa.text("status = 'requested'")),
)

# A provider's paid bill of a subscription, and the invoice it became: once, however often it is announced.
subscription_period = sa.Table(
    "subscription_period",
    metadata,
    sa.Column("connection_id", UUID, sa.ForeignKey("provider_connection.id"), primary_key=True),
    sa.Column("remote_id", sa.Text, primary_key=True),
    sa.Column("subscription_id", UUID, sa.ForeignKey("subscription.id"), nullable=False, index=True),
    sa.Column("invoice_id", UUID, sa.ForeignKey("invoice.id"), nullable=False, unique=True),
    sa.Column("period_start", _time, nullable=False),
    sa.Column("period_end", _time, nullable=False),
    sa.Column("created_at", _time, nullable=False),
)

# A payer disputes a payment at their bank.
dispute = sa.Table(
    "dispute",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("payment_id", UUID, sa.ForeignKey("payment.id"), nullable=False, index=True),
    sa.Column("remote_id", sa.Text, nullable=False),
    sa.Column("amount_minor", sa.BigInteger, nullable=False),
    sa.Column("currency", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("respond_by", _time),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    sa.UniqueConstraint("payment_id", "remote_id"),
    _check("status in ('needs_response', 'under_review', 'won', 'lost')", "status"),
)

# How far a provider was brought to a product's present version.
product_sync = sa.Table(
    "product_sync",
    metadata,
    sa.Column("product_id", UUID, sa.ForeignKey("product.id"), primary_key=True),
    sa.Column("connection_id", UUID, sa.ForeignKey("provider_connection.id"), primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("synced_version", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_try_at", _time),
    # One process at a time asks the provider about a product.
    sa.Column("claimed_until", _time),
    sa.Column("updated_at", _time, nullable=False),
    _check("state in ('pending', 'synced', 'failed')", "state"),
    sa.Index("product_sync_due_idx", "next_try_at", postgresql_where=sa.text("state <> 'synced'")),
)

# Events of providers: verified, stored once, applied by a job. The payload can hold personal data: purged in time.
inbound_event = sa.Table(
    "inbound_event",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("connection_id", UUID, sa.ForeignKey("provider_connection.id"), nullable=False),
    sa.Column("remote_id", sa.Text, nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("payload", BYTEA),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("sent_at", _time, nullable=False),
    sa.Column("received_at", _time, nullable=False),
    sa.Column("applied_at", _time),
    sa.Column("next_try_at", _time),
    sa.UniqueConstraint("connection_id", "remote_id"),
    _check("state in ('received', 'applied', 'ignored', 'failed')", "state"),
    sa.Index("inbound_event_in_state_idx", "state", sa.text("received_at desc"), sa.text("id desc")),
    sa.Index("inbound_event_of_type_idx", "type", sa.text("received_at desc"), sa.text("id desc")),
    sa.Index("inbound_event_newest_idx", sa.text("received_at desc"), sa.text("id desc")),
    sa.Index("inbound_event_due_idx", "next_try_at", postgresql_where=sa.text("state in ('received', 'failed')")),
    sa.Index("inbound_event_payload_idx", "received_at", "id", postgresql_where=sa.text("payload is not null")),
)

# What happened, for others. Written in the transaction that made it true. `data` holds no person: the id is joined.
event = sa.Table(
    "event",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("subject_id", UUID),
    sa.Column("person_id", sa.BigInteger, sa.ForeignKey("person.id"), index=True),
    # Purged after 90 days.
    sa.Column("data", JSONB),
    sa.Column("created_at", _time, nullable=False),
    # Whether deliveries and mails were made of it.
    sa.Column("is_fanned_out", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("event_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("event_waiting_idx", "id", postgresql_where=sa.text("not is_fanned_out")),
)

# Who wants to be told of events, and where.
webhook_subscriber = sa.Table(
    "webhook_subscriber",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    # Names of events, or `*` alone.
    sa.Column("events", ARRAY(sa.Text), nullable=False),
    sa.Column("is_active", sa.Boolean, nullable=False),
    # The secret of the published header; it travels with every delivery unless that is switched off.
    sa.Column("header_secret_sealed", BYTEA, nullable=False),
    sa.Column("sends_header_secret", sa.Boolean, nullable=False),
    # The secret that signs; after a rotation the one before signs as well, for a day.
    sa.Column("signing_secret_sealed", BYTEA, nullable=False),
    sa.Column("previous_signing_secret_sealed", BYTEA),
    sa.Column("previous_signing_until", _time),
    # Since when every attempt failed.
    sa.Column("failing_since", _time),
    # Why Ledger disabled it, in words; empty when staff did, and when it is active.
    sa.Column("disabled_reason", sa.Text),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    sa.Index("webhook_subscriber_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
)

# An event on its way to one subscriber. The id that travels is the event's: it never changes.
webhook_delivery = sa.Table(
    "webhook_delivery",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("event_id", UUID, sa.ForeignKey("event.id"), nullable=False),
    sa.Column("subscriber_id", UUID, sa.ForeignKey("webhook_subscriber.id", ondelete="CASCADE"), nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    # Attempts since it was asked for, by the event or by a replay; all attempts ever are in `webhook_attempt`.
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_try_at", _time),
    # One process at a time delivers it; who fell silent is taken over from.
    sa.Column("claimed_until", _time),
    sa.Column("last_status", sa.Integer),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("settled_at", _time),
    sa.UniqueConstraint("event_id", "subscriber_id"),
    _check("status in ('pending', 'delivered', 'failed')", "status"),
    sa.Index("webhook_delivery_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("webhook_delivery_of_subscriber_idx", "subscriber_id", sa.text("created_at desc"), sa.text("id desc")),
    # What failed at a subscriber that mostly works is found without looking at all that was delivered, and so on.
    sa.Index(
        "webhook_delivery_in_status_idx", "status", "subscriber_id", sa.text("created_at desc"), sa.text("id desc")
    ),
    sa.Index("webhook_delivery_of_type_idx", "event_type", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index(
        "webhook_delivery_due_idx", "subscriber_id", "next_try_at", postgresql_where=sa.text("status = 'pending'")
    ),
    # Each row is changed twice soon after it is made; the room left on its page spares all the indexes the first time.
    postgresql_with={"fillfactor": 50},
)

# Every attempt to deliver, with the first bytes of the answer. Purged after 90 days.
webhook_attempt = sa.Table(
    "webhook_attempt",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column(
        "delivery_id", UUID, sa.ForeignKey("webhook_delivery.id", ondelete="CASCADE"), nullable=False, index=True
    ),
    sa.Column("started_at", _time, nullable=False, index=True),
    sa.Column("duration_ms", sa.Integer, nullable=False),
    sa.Column("status", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Column("answer", sa.Text),
)

_MAIL_KINDS = (
    "'invoice_created', 'payment_received', 'payment_failed', 'refund', 'subscription_cancelled', 'reminder_due', "
    "'reminder_overdue'"
)
# A mail to one person about one thing. Addresses and names are not stored: they are asked for when it is sent.
mail = sa.Table(
    "mail",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    # What it is about and why, in one text, so that the same mail is not made twice.
    sa.Column("occasion", sa.Text, nullable=False, unique=True),
    sa.Column("person_id", sa.BigInteger, sa.ForeignKey("person.id"), index=True),
    sa.Column("invoice_id", UUID, sa.ForeignKey("invoice.id"), index=True),
    sa.Column("subscription_id", UUID, sa.ForeignKey("subscription.id")),
    sa.Column("amount_minor", sa.BigInteger),
    # Null where it is the invoice's.
    sa.Column("amount_currency", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_try_at", _time),
    sa.Column("claimed_until", _time),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("settled_at", _time),
    # `handed_over`: the server was being given it when Ledger died; it may have arrived, so it is not sent again.
    _check("status in ('waiting', 'handed_over', 'sent', 'failed', 'skipped')", "status"),
    _check(f"kind in ({_MAIL_KINDS})", "kind"),
    sa.Index("mail_due_idx", "next_try_at", postgresql_where=sa.text("status in ('waiting', 'handed_over')")),
    sa.Index("mail_newest_idx", sa.text("created_at desc"), sa.text("id desc")),
    sa.Index("mail_in_status_idx", "status", sa.text("created_at desc"), sa.text("id desc")),
)

# What the schedules did; the last hundred runs of each are kept.
schedule_run = sa.Table(
    "schedule_run",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("started_at", _time, nullable=False),
    sa.Column("duration_ms", sa.Integer),
    sa.Column("count", sa.Integer),
    sa.Column("error", sa.Text),
    sa.Index("schedule_run_of_name_idx", "name", sa.text("started_at desc")),
)

# Who changed what. Append-only (a trigger refuses changes but the freeing of a person), sealed into a hash chain.
audit_entry = sa.Table(
    "audit_entry",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("entity_type", sa.Text, nullable=False),
    sa.Column("entity_id", sa.Text, nullable=False),
    sa.Column("actor_kind", sa.Text, nullable=False),
    sa.Column("actor_person_id", sa.BigInteger, sa.ForeignKey("person.id"), index=True),
    sa.Column("actor_name", sa.Text),
    sa.Column("details", JSONB),
    sa.Column("created_at", _time, nullable=False),
    _check("actor_kind in ('person', 'service', 'provider', 'system', 'cli')", "actor_kind"),
    sa.Index("audit_entry_of_entity_idx", "entity_type", "entity_id"),
    sa.Index("audit_entry_in_action_idx", "action", sa.text("id desc")),
)

# The chain over the audit log: each seal covers its entry and the seal before. Written by the worker, in order.
audit_seal = sa.Table(
    "audit_seal",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("entry_id", sa.BigInteger, sa.ForeignKey("audit_entry.id"), nullable=False, unique=True),
    sa.Column("seal", BYTEA, nullable=False),
)

# The first answer of every keyed request, stored in the transaction of its effect. `status` is null while it runs.
idempotency_record = sa.Table(
    "idempotency_record",
    metadata,
    sa.Column("caller", sa.Text, primary_key=True),
    sa.Column("operation", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("body_sha256", BYTEA, nullable=False),
    sa.Column("status", sa.SmallInteger),
    sa.Column("answer", BYTEA),
    sa.Column("created_at", _time, nullable=False, index=True),
)

# One row, with what staff can change while Ledger runs.
billing_settings = sa.Table(
    "billing_settings",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("default_currency", sa.Text, nullable=False),
    sa.Column("tax_rate_bp", sa.Integer, nullable=False),
    sa.Column("tax_label", sa.Text, nullable=False),
    sa.Column("data_retention_days", sa.Integer, nullable=False),
    sa.Column("allow_self_cancel", sa.Boolean, nullable=False),
    sa.Column("smtp_host", sa.Text),
    sa.Column("smtp_port", sa.Integer),
    sa.Column("smtp_user", sa.Text),
    # AES-256-GCM, bound to this row and column (see `ledger.crypto`).
    sa.Column("smtp_password_sealed", BYTEA),
    sa.Column("smtp_from", sa.Text),
    sa.Column("smtp_security", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("company_name", sa.Text),
    # The kinds of mail that are not sent.
    sa.Column("mails_off", ARRAY(sa.Text), nullable=False, server_default="{}"),
    sa.Column("updated_at", _time, nullable=False),
    _check("id = 1", "single_row"),
    _check("tax_rate_bp between 0 and 10000", "tax_rate"),
    _check("data_retention_days >= 1", "data_retention_days"),
    _check(f"mails_off <@ array[{_MAIL_KINDS}]", "mails_off"),
)

# What a service may do beyond the invoices it created itself; a service without a row has just those.
service_access = sa.Table(
    "service_access",
    metadata,
    sa.Column("service_id", sa.Text, primary_key=True),
    sa.Column("access", sa.Text, nullable=False),
    sa.Column("updated_at", _time, nullable=False),
    _check("access in ('read', 'manage')", "access"),
)

# One row: when the manifest is to be sent to Lanyard next, and who is sending it just now.
lanyard_heartbeat = sa.Table(
    "lanyard_heartbeat",
    metadata,
    sa.Column("id", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("due_at", _time, nullable=False),
    sa.Column("claimed_until", _time),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("accepted_at", _time),
    sa.Column("last_error", sa.Text),
    _check("id = 1", "single_row"),
)

# Which workers live; rows older than a day are swept.
worker_seen = sa.Table(
    "worker_seen",
    metadata,
    sa.Column("worker_id", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("started_at", _time, nullable=False),
    sa.Column("seen_at", _time, nullable=False),
    # What it counted for the metrics: a worker has no port of its own.
    sa.Column("counted", JSONB),
)
