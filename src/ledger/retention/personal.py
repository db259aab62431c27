"""The one list of every place that can hold personal data, and what becomes of it.

A test compares it with the schema: a column that holds text, JSON or bytes, or points at a person, and stands in
neither list, fails. `docs/privacy.md` tells the same to administrators; a test compares that, too.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class PersonalColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column that can hold personal data: what it holds, and what retention and an erasure do to it."""

    holds: str
    retention: str
    erasure: str


_WITH_INVOICE = "emptied when the invoice's time is up"
_WITH_SUBSCRIPTION = "emptied when the subscription's time is up"
_AT_90_DAYS = "emptied after 90 days"
_AT_ONCE = "emptied at once"
_KEPT = "kept: it is part of what happened, and means nothing without the person"

_FREE_TEXT = {"retention": _WITH_INVOICE, "erasure": _AT_ONCE}
_OF_SUBSCRIPTION = {"retention": _WITH_SUBSCRIPTION, "erasure": _AT_ONCE}
_OF_DELIVERY = {"retention": "goes after 90 days", "erasure": _AT_ONCE}
_FACT = {"retention": _KEPT, "erasure": _KEPT}

PERSONAL: Mapping[str, PersonalColumn] = MappingProxyType(
    {
        "person.lanyard_user_id": PersonalColumn(
            holds="the user id at Lanyard; the only place that has it",
            retention="the row goes when nothing points at it any more",
            erasure="the row goes at once when nothing has to be kept; else it is marked restricted",
        ),
        "invoice.person_id": PersonalColumn(
            holds="who is billed",
            retention=_WITH_INVOICE,
            erasure="emptied if the invoice's time is up, else kept until then",
        ),
        "invoice.notes": PersonalColumn(holds="free text by staff or a service", **_FREE_TEXT),
        "invoice.metadata": PersonalColumn(holds="whatever a service put there", **_FREE_TEXT),
        "invoice.payment_instructions": PersonalColumn(holds="what the payer was told to do", **_FREE_TEXT),
        "invoice_line.description": PersonalColumn(
            holds="what was sold; a service can write a name into it, and should not",
            retention="kept: an issued invoice does not change",
            erasure="kept: an issued invoice does not change",
        ),
        "payment.reference": PersonalColumn(holds="what staff noted, such as a bank statement's line", **_FREE_TEXT),
        "payment.provider_reference": PersonalColumn(holds="the provider's name for the payment", **_FACT),
        "refund.reason": PersonalColumn(holds="free text by staff", **_FREE_TEXT),
        "refund.failure": PersonalColumn(holds="what the provider said", **_FREE_TEXT),
        "refund.provider_reference": PersonalColumn(holds="the provider's name for the refund", **_FACT),
        "dispute.reason": PersonalColumn(
            holds="why a bank says that the payer disputes; one of a few phrases", **_FACT
        ),
        "dispute.remote_id": PersonalColumn(holds="the provider's name for the dispute", **_FACT),
        "checkout.url": PersonalColumn(
            holds="the page where it can be paid",
            retention=_WITH_INVOICE,
            erasure="emptied at once where the page is closed",
        ),
        "checkout.error": PersonalColumn(holds="what the provider said", **_FREE_TEXT),
        "checkout.remote_id": PersonalColumn(holds="the provider's name for the page", **_FACT),
        "subscription.person_id": PersonalColumn(
            holds="who subscribed",
            retention=_WITH_SUBSCRIPTION,
            erasure="emptied if its time is up, or it never began; else kept until then",
        ),
        "subscription.checkout_url": PersonalColumn(holds="the page where it was started", **_OF_SUBSCRIPTION),
        "subscription.problem": PersonalColumn(holds="what staff has to look at", **_OF_SUBSCRIPTION),
        "subscription.remote_id": PersonalColumn(holds="the provider's name for the subscription", **_FACT),
        "subscription.checkout_remote_id": PersonalColumn(holds="the provider's name for the page", **_FACT),
        "subscription_change.failure": PersonalColumn(holds="what the provider said", **_OF_SUBSCRIPTION),
        "subscription_period.remote_id": PersonalColumn(holds="the provider's name for the bill", **_FACT),
        "provider_mapping.local_id": PersonalColumn(
            holds="for customers: the row of the person",
            retention="the row goes with the person",
            erasure="the row goes at once",
        ),
        "provider_mapping.remote_id": PersonalColumn(
            holds="for customers: the provider's name for the person",
            retention="the row goes with the person",
            erasure="the row goes at once",
        ),
        "inbound_event.payload": PersonalColumn(
            holds="what a provider sent, often with names and addresses",
            retention=_AT_90_DAYS,
            erasure="emptied at once where it is about the person and was applied",
        ),
        "inbound_event.error": PersonalColumn(
            holds="why it could not be applied, perhaps in the provider's words",
            retention="replaced by a fixed sentence after 90 days",
            erasure="emptied with the payload",
        ),
        "event.person_id": PersonalColumn(
            holds="whom the event is about", retention=_AT_90_DAYS, erasure="emptied at once where it was delivered"
        ),
        "event.data": PersonalColumn(
            holds="what subscribers are told: numbers, amounts, states",
            retention=_AT_90_DAYS,
            erasure="emptied at once where it was delivered",
        ),
        "webhook_delivery.last_error": PersonalColumn(holds="why a delivery failed", **_OF_DELIVERY),
        "webhook_attempt.error": PersonalColumn(holds="why an attempt failed", **_OF_DELIVERY),
        "webhook_attempt.answer": PersonalColumn(holds="the first bytes of a receiver's answer", **_OF_DELIVERY),
        "mail.person_id": PersonalColumn(
            holds="who was written to", retention="the row goes after 90 days", erasure="the row goes at once"
        ),
        "mail.error": PersonalColumn(
            holds="why it could not be sent, perhaps with the address",
            retention="the row goes after 90 days",
            erasure="the row goes at once",
        ),
        "audit_entry.actor_person_id": PersonalColumn(
            holds="who made a change",
            retention="emptied like an invoice's person, by the year of the entry",
            erasure="emptied if the entry's time is up, else kept until then",
        ),
        "idempotency_record.caller": PersonalColumn(
            holds="the row of the person who sent a request",
            retention="the row goes after 30 days",
            erasure="the row goes at once",
        ),
        "idempotency_record.key": PersonalColumn(
            holds="a text the caller chose", retention="the row goes after 30 days", erasure="the row goes at once"
        ),
        "idempotency_record.answer": PersonalColumn(
            holds="what the request was answered: ids, numbers, amounts",
            retention="the row goes after 30 days",
            erasure="the row goes at once",
        ),
        "pgqueuer.payload": PersonalColumn(
            holds="what a job is about: the ids of rows",
            retention="the row goes when the job is done",
            erasure="the row goes when the job is done",
        ),
        "pgqueuer_log.traceback": PersonalColumn(
            holds="how a job failed",
            retention="the row goes after 14 days",
            erasure="the row goes after 14 days",
        ),
    }
)

NOT_PERSONAL: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "alembic_version": ("version_num",),
        "audit_entry": ("action", "entity_type", "entity_id", "actor_kind", "actor_name", "details"),
        "audit_seal": ("seal",),
        "billing_settings": (
            *("default_currency", "tax_label", "smtp_host", "smtp_user", "smtp_password_sealed", "smtp_from"),
            *("smtp_security", "language", "company_name", "mails_off"),
        ),
        "checkout": ("currency", "status"),
        "counter": ("series",),
        "dispute": ("currency", "status"),
        "event": ("type",),
        "idempotency_record": ("operation", "body_sha256"),
        "inbound_event": ("remote_id", "type", "state"),
        "invoice": (
            *("number", "series", "created_by_service", "currency", "tax_label", "status", "provider"),
            "payment_reference",
        ),
        "lanyard_heartbeat": ("last_error",),
        "mail": ("kind", "occasion", "amount_currency", "status"),
        "payment": ("currency", "provider", "method"),
        "pgqueuer": ("entrypoint", "dedupe_key", "headers"),
        "pgqueuer_log": ("entrypoint",),
        "pgqueuer_schedules": ("expression", "entrypoint"),
        "pgqueuer_statistics": ("entrypoint",),
        "product": ("name", "description", "kind"),
        "product_price": ("currency", "interval"),
        "product_sync": ("state", "error"),
        "provider_connection": ("type", "name", "settings_sealed", "test_result"),
        "provider_mapping": ("kind",),
        "refund": ("currency", "status"),
        "schedule_run": ("name", "error"),
        "service_access": ("service_id", "access"),
        "subscription": ("status",),
        "subscription_change": ("kind", "tax_label", "status"),
        "webhook_delivery": ("event_type", "status"),
        "webhook_subscriber": (
            *("name", "url", "events", "header_secret_sealed", "signing_secret_sealed"),
            *("previous_signing_secret_sealed", "disabled_reason"),
        ),
        "worker_seen": ("worker_id", "version", "counted"),
    }
)
"""What can hold no personal data, by table: names of things, states, codes, numbers, ids of rows that are not people,
ids of services, sealed secrets, and what is about the installation itself. Audit details hold none by rule."""
