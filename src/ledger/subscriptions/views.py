"""How subscriptions are shown: the same values in the same words for staff and for their owners."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from ledger.invoices.store import Invoice
from ledger.invoices.views import FORGOTTEN_USER
from ledger.money import format_money
from ledger.subscriptions.bodies import NO_PRODUCT, PreviewedChange, PreviewedLine
from ledger.subscriptions.change_store import ChangeKind
from ledger.subscriptions.changing import Preview
from ledger.subscriptions.listing import ListedChange, ListedSubscription
from ledger.subscriptions.rules import BEGUN, CannotChange, SubscriptionStatus, check_can_change, shown_status
from ledger.subscriptions.store import AgreedPrice, Subscription
from ledger.web.shapes import NOTHING, Action, Actions, Column, Field, Form, FormField, Option, Row, iso

INVOICE_COLUMNS = (
    Column(key="invoiceNumber", label="#"),
    Column(key="amount", label="Amount"),
    Column(key="status", label="Status"),
    Column(key="createdAt", label="Date", type="date"),
)


class PendingChange(msgspec.Struct, frozen=True, kw_only=True):
    """What was wanted without the outcome being known; `price` is there for a change of product."""

    kind: ChangeKind
    price: AgreedPrice | None


def price_text(price: AgreedPrice) -> str:
    """What a period costs, before tax: `12.00 EUR / month`."""
    amount = format_money(price.amount_minor, price.currency)
    return amount if price.interval is None else f"{amount} / {price.interval}"


def _product_text(price: AgreedPrice) -> str:
    return f"{price.product_name} - {price_text(price)}"


def _moment_text(moment: datetime | None) -> str:
    """A moment, or a dash. Without a type, since the Dashboard would show a dash as an invalid date."""
    return NOTHING if moment is None else iso(moment)


def _moment_field(key: str, label: str, moment: datetime | None) -> Field:
    return Field(key=key, label=label, type=None if moment is None else "date", value=_moment_text(moment))


# Lists


def subscription_row(listed: ListedSubscription, *, users: Mapping[int, str], names: Mapping[str, str]) -> Row:
    """A row of the staff's list."""
    subscription = listed.subscription
    return {
        "id": subscription.id,
        "user": user_text(subscription, users=users, names=names),
        "product": listed.product_name,
        "provider": listed.provider,
        "status": subscription.status.value,
        "currentPeriodEnd": _moment_text(subscription.period_end if _is_renewed(subscription) else None),
        "createdAt": iso(subscription.created_at),
    }


def my_subscription_row(listed: ListedSubscription) -> Row:
    """A row of the owner's list. What runs out, or is over, is not renewed."""
    subscription = listed.subscription
    return {
        "id": subscription.id,
        "product": listed.product_name,
        "status": _status_text(subscription),
        "renews": _moment_text(subscription.period_end if _is_renewed(subscription) else None),
    }


def user_text(subscription: Subscription, *, users: Mapping[int, str], names: Mapping[str, str]) -> str:
    """The subscriber's display name; once retention freed the subscription, a word that says so."""
    user_id = users.get(subscription.person_id) if subscription.person_id is not None else None
    return FORGOTTEN_USER if user_id is None else names.get(user_id, user_id)


def _status_text(subscription: Subscription) -> str:
    return shown_status(subscription.status, cancels_at_period_end=subscription.cancels_at_period_end)


def _is_renewed(subscription: Subscription) -> bool:
    return subscription.status in BEGUN and not subscription.cancels_at_period_end


def invoice_row(invoice: Invoice) -> Row:
    """A row of the invoices of one subscription, with the invoice's id."""
    return {
        "id": invoice.id,
        "invoiceNumber": invoice.number,
        "amount": format_money(invoice.total_minor, invoice.currency),
        "status": invoice.status.value,
        "createdAt": iso(invoice.created_at),
    }


def change_row(change: ListedChange) -> Row:
    """A row of what was wanted of one subscription."""
    return {
        "id": change.id,
        "wanted": _wanted_text(change.kind, change.price),
        "status": change.status,
        "failure": change.failure or NOTHING,
        "createdAt": iso(change.created_at),
    }


def _wanted_text(kind: ChangeKind, price: AgreedPrice | None) -> str:
    if price is not None:
        return f"Change to {_product_text(price)}"
    return "Cancellation" if kind == "cancel" else "Reactivation"


# Details


def staff_fields(
    subscription: Subscription,
    *,
    price: AgreedPrice,
    user: str,
    provider: str,
    pending: PendingChange | None,
    now: datetime,
) -> list[Field]:
    """The detail view for staff."""
    fields = [
        Field(key="id", label="Subscription ID", value=subscription.id),
        Field(key="user", label="User", value=user),
        Field(key="product", label="Product", value=price.product_name),
        Field(key="status", label="Status", value=subscription.status.value),
        _moment_field("currentPeriodStart", "Period Start", subscription.period_start),
        _moment_field("currentPeriodEnd", "Period End", subscription.period_end),
        Field(
            key="cancelAtPeriodEnd",
            label="Cancels at Period End",
            type="boolean",
            value=subscription.cancels_at_period_end,
        ),
        _moment_field("cancelledAt", "Cancelled At", subscription.cancelled_at),
        _moment_field("createdAt", "Created", subscription.created_at),
        Field(key="price", label="Price", value=price_text(price)),
        Field(key="provider", label="Provider", value=provider),
        *_pay_link(subscription, now=now),
    ]
    if subscription.problem is not None:
        fields.append(Field(key="problem", label="Attention", type="multiline", value=subscription.problem))
    return fields + _pending(pending)


def my_fields(
    subscription: Subscription, *, price: AgreedPrice, pending: PendingChange | None, now: datetime
) -> list[Field]:
    """The detail view for the owner: when it is renewed, when it ends, or when it ended."""
    fields = [
        Field(key="product", label="Product", value=price.product_name),
        Field(key="status", label="Status", value=_status_text(subscription)),
        Field(key="price", label="Price", value=price_text(price)),
    ]
    if subscription.status is SubscriptionStatus.CANCELLED:
        fields.append(_moment_field("cancelledAt", "Ended", subscription.cancelled_at))
    elif subscription.status in BEGUN:
        label = "Renews" if _is_renewed(subscription) else "Ends"
        fields.append(_moment_field("currentPeriodEnd", label, subscription.period_end))
    return fields + _pay_link(subscription, now=now) + _pending(pending)


def _pay_link(subscription: Subscription, *, now: datetime) -> list[Field]:
    payable = (SubscriptionStatus.INCOMPLETE, SubscriptionStatus.PAST_DUE)
    is_payable = subscription.status in payable and not subscription.is_unwanted
    expires_at = subscription.checkout_expires_at
    if not is_payable or subscription.checkout_url is None or (expires_at is not None and expires_at <= now):
        return []
    return [Field(key="payUrl", label="Pay Online", type="link", value=subscription.checkout_url)]


def _pending(pending: PendingChange | None) -> list[Field]:
    if pending is None:
        return []
    text = f"{_wanted_text(pending.kind, pending.price)}, not confirmed by the provider yet"
    return [Field(key="pendingChange", label="Requested Change", value=text)]


# Buttons and forms


def subscription_actions(
    subscription: Subscription, available: Sequence[str], *, at: str, product_name: str, cancel_label: str
) -> Actions:
    """The buttons for what is possible now; `at` is where the subscription's operations are."""
    buttons = {
        "cancel": Action(
            label=cancel_label,
            endpoint=f"{at}/cancel",
            method="POST",
            variant="danger",
            confirm=f"Cancel {product_name}? It ends with the period that is paid for, and is not renewed.",
        ),
        "discard": Action(
            label="Discard",
            endpoint=f"{at}/cancel",
            method="POST",
            variant="danger",
            confirm=f"Discard {product_name}? Its payment page is closed; a debit on its way still pays one period.",
        ),
        "reactivate": Action(
            label="Reactivate",
            endpoint=f"{at}/reactivate",
            method="POST",
            confirm=_reactivation_question(subscription, product_name),
        ),
    }
    return Actions(actions=[buttons[name] for name in available])


def _reactivation_question(subscription: Subscription, product_name: str) -> str:
    if subscription.status is SubscriptionStatus.PAST_DUE:
        return f"Reactivate {product_name}? The payment that failed is collected again."
    if subscription.cancels_at_period_end:
        return f"Reactivate {product_name}? It is renewed at the end of its period again."
    return f"{product_name} has ended, and Ledger will say so: people who want it back subscribe again. Try anyway?"


def change_form(subscription: Subscription, *, price: AgreedPrice, choices: Sequence[AgreedPrice]) -> Form:
    """The form that asks for another product; what speaks against any stands where they would be chosen."""
    refusal = _refusal_of_any(subscription, price)
    return _product_form(
        "New Product",
        [] if refusal is not None else choices,
        if_none=refusal or f"There is no other product that is charged in {price.currency}",
    )


def _refusal_of_any(subscription: Subscription, price: AgreedPrice) -> str | None:
    """Why no product at all can be chosen, as the change itself would say it, or None."""
    try:
        check_can_change(
            subscription.status,
            product_id=subscription.product_id,
            currency=price.currency,
            new_product_id=NO_PRODUCT,
            new_is_recurring=True,
            new_currency=price.currency,
        )
    except CannotChange as refused:
        return refused.sentence
    return None


def subscribe_form(choices: Sequence[AgreedPrice]) -> Form:
    """The form that asks what to subscribe to."""
    return _product_form("Product", choices, if_none="There is nothing more to subscribe to at the moment")


def _product_form(label: str, choices: Sequence[AgreedPrice], *, if_none: str) -> Form:
    # A select without options would show nothing at all.
    options = [Option(label=_product_text(each), value=each.product_id) for each in choices]
    return Form(
        fields=[
            FormField(
                key="productId",
                label=label,
                type="select",
                required=True,
                options=options or [Option(label=if_none, value=NO_PRODUCT)],
            )
        ]
    )


def previewed_change(previewed: Preview) -> PreviewedChange:
    """A preview as it is answered."""
    preview = previewed.preview
    return PreviewedChange(
        amount_due=preview.amount_due_minor,
        currency=preview.currency,
        credit=preview.credit_minor,
        charge=preview.charge_minor,
        effective_at=iso(preview.effective_at),
        lines=[PreviewedLine(description=line.description, amount=line.amount_minor) for line in preview.lines],
        proration_date=iso(previewed.prorate_at),
    )
