"""Reads what a mail says, at the moment it is sent: the invoice as it is by now, and how it can be paid by now."""

from datetime import datetime, time

import msgspec

from ledger.billing_settings.mail_kinds import MailKind
from ledger.billing_settings.store import BillingSettings
from ledger.database.connection import Connection
from ledger.database.transaction import Database
from ledger.invoices.payment_view import open_amount_minor
from ledger.invoices.store import Invoice, get_facts, get_invoice
from ledger.mail.examples import Values
from ledger.mail.rules import due_day, not_needed
from ledger.mail.store import Mail, find_recipient
from ledger.mail.words import Language, day, in_groups_of_four, language_of, money
from ledger.payments.checkout_store import list_unsettled_checkouts
from ledger.payments.reference import format_reference
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import Capability, Instructions, Payer, PaymentLine, WantedPayment
from ledger.settings import Settings
from ledger.subscriptions.rules import SubscriptionStatus
from ledger.subscriptions.store import get_agreed_price, get_subscription


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """What a mail says, but for the name of the person, whom Lanyard knows."""

    user_id: str
    values: Values


class NotNeeded(Exception):
    """A mail need not be sent; the text says why."""


class _Debt(msgspec.Struct, frozen=True, kw_only=True):
    """An invoice, what is still owed, and who takes payments just now."""

    invoice: Invoice
    open_minor: int
    active: Connected | None


async def read_letter(
    database: Database, connections: Connections, settings: Settings, *, mail: Mail, billing: BillingSettings
) -> Letter:
    """What a mail says now. Raises `NotNeeded`, and what keeps the provider from saying how to pay."""
    language = language_of(billing.language)
    async with database.connection() as connection:
        user_id = await _user_id(connection, mail)
        debt = None
        if mail.invoice_id is not None:
            debt = await _read_debt(connection, connections, mail, invoice_id=mail.invoice_id)
        else:
            subject = await _about_subscription(connection, settings, mail, language)
    if debt is not None:
        subject = _about_invoice(debt, settings, mail, language)
        subject |= await _how_to_pay(debt, settings)
    return Letter(user_id=user_id, values={"language": language, "company": billing.company_name, **subject})


def values_of_test_mail(*, language: Language, billing: BillingSettings, settings: Settings) -> Values:
    """What the test mail says."""
    link = f"{settings.dashboard_url}/{settings.slug}/settings" if settings.dashboard_url else None
    return {"language": language, "company": billing.company_name, "link": link}


async def _user_id(connection: Connection, mail: Mail) -> str:
    recipient = None if mail.person_id is None else await find_recipient(connection, person_id=mail.person_id)
    if recipient is None:
        raise NotNeeded("Ledger has let go of this person")
    if recipient.is_restricted:
        raise NotNeeded("This person asked to be erased")
    return recipient.user_id


async def _read_debt(connection: Connection, connections: Connections, mail: Mail, *, invoice_id: str) -> _Debt:
    invoice = await get_invoice(connection, invoice_id=invoice_id)
    facts = await get_facts(connection, invoice_id=invoice.id)
    still_open_minor = open_amount_minor(invoice, facts)
    unsettled = await list_unsettled_checkouts(connection, invoice_id=invoice.id)
    reason = not_needed(
        mail.kind,
        status=invoice.status,
        still_open_minor=still_open_minor,
        is_payment_under_way=any(each.status == "pending" for each in unsettled),
    )
    if reason is not None:
        raise NotNeeded(reason)
    return _Debt(
        invoice=invoice,
        open_minor=still_open_minor,
        active=await connections.find_active(connection) if still_open_minor else None,
    )


def _about_invoice(debt: _Debt, settings: Settings, mail: Mail, language: Language) -> dict[str, object]:
    invoice = debt.invoice
    due_at = invoice.due_at
    return {
        "number": invoice.number,
        "total": money(invoice.total_minor, invoice.currency, language),
        "open": money(debt.open_minor, invoice.currency, language) if debt.open_minor else None,
        "amount": None
        if mail.amount_minor is None
        else money(mail.amount_minor, mail.amount_currency or invoice.currency, language),
        "due_date": None if due_at is None else day(due_day(due_at, settings.timezone), language),
        "reference": format_reference(invoice.payment_reference),
        "link": _link(settings, f"my/invoices/{invoice.id}"),
        "product": None,
    }


async def _how_to_pay(debt: _Debt, settings: Settings) -> dict[str, object]:
    """What the active provider says, without storing it. One with a page for paying is not asked to open one: the
    invoice's page in the Dashboard does, when somebody wants to pay."""
    unknown: dict[str, object] = {"account": None, "instructions": None, "pays_online": False}
    if debt.active is None or not debt.active.can(Capability.INVOICES):
        return unknown
    if debt.active.can(Capability.CHECKOUT):
        return unknown | {"pays_online": True}
    account = debt.active.provider.bank_account()
    if account is not None:
        iban = in_groups_of_four(account.iban)
        return unknown | {"account": {"holder": account.holder, "iban": iban, "bic": account.bic}}
    started = await debt.active.provider.start_payment(_wanted_payment(debt, settings))
    return unknown | {"instructions": started.text if isinstance(started, Instructions) else None}


def _wanted_payment(debt: _Debt, settings: Settings) -> WantedPayment:
    invoice = debt.invoice
    assert invoice.person_id is not None, "an open invoice has its buyer"
    page = _link(settings, f"my/invoices/{invoice.id}") or ""
    due_at = invoice.due_at
    noon = time(12, tzinfo=settings.timezone)
    return WantedPayment(
        intent_id=invoice.id,
        invoice_id=invoice.id,
        invoice_number=invoice.number,
        amount_minor=debt.open_minor,
        currency=invoice.currency,
        lines=(PaymentLine(description=invoice.number, unit_price_minor=debt.open_minor, quantity=1),),
        tax_minor=0,
        tax_label=invoice.tax_label,
        payer=Payer(person_id=invoice.person_id),
        payment_reference=invoice.payment_reference,
        # The provider names the day of this moment.
        due_at=None if due_at is None else datetime.combine(due_day(due_at, settings.timezone), noon),
        success_url=page,
        cancel_url=page,
    )


async def _about_subscription(
    connection: Connection, settings: Settings, mail: Mail, language: Language
) -> dict[str, object]:
    assert mail.subscription_id is not None, "a mail is about an invoice or a subscription"
    subscription = await get_subscription(connection, subscription_id=mail.subscription_id)
    is_over = subscription.status is SubscriptionStatus.CANCELLED
    if mail.kind is MailKind.SUBSCRIPTION_CANCELLED and not is_over:
        raise NotNeeded("The subscription goes on after all")
    if mail.kind is MailKind.PAYMENT_FAILED and subscription.status is not SubscriptionStatus.PAST_DUE:
        raise NotNeeded("The subscription was paid or ended meanwhile")
    price = await get_agreed_price(connection, price_id=subscription.price_id)
    ended_at = subscription.cancelled_at if is_over else None
    return {
        "product": price.product_name,
        "ended_on": None if ended_at is None else day(ended_at.astimezone(settings.timezone).date(), language),
        "link": _link(settings, f"my/subscriptions/{subscription.id}"),
    }


def _link(settings: Settings, path: str) -> str | None:
    """A page of the Dashboard, where its address is known."""
    return f"{settings.dashboard_url}/{settings.slug}/{path}" if settings.dashboard_url else None
