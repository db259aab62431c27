"""How money moves at the fake Stripe: payment intents, charges, refunds, disputes."""

from typing import Literal

import stripe

from tests.fakes.stripe_shapes import Object, blank, shown
from tests.fakes.stripe_world import Refusal, World

Outcome = Literal["succeeded", "failed", "pending"]

DECLINED = "Your card was declined."


def charge(world: World, intent: Object, outcome: Outcome, *, method: str = "card", message: str = DECLINED) -> None:
    """Takes the money of an intent, tries to, or is on the way to. Leaves the intent's own event to `intent_event`."""
    is_paid = outcome == "succeeded"
    made = world.new(
        stripe.Charge,
        "ch",
        amount=intent["amount"],
        amount_captured=intent["amount"] if is_paid else 0,
        captured=outcome != "failed",
        currency=intent["currency"],
        customer=intent["customer"],
        metadata=dict(intent["metadata"]),
        payment_intent=intent["id"],
        status=outcome,
        paid=is_paid,
        payment_method_details={"type": method},
    )
    intent["latest_charge"] = made["id"]
    _turn(intent, outcome, message)
    if outcome == "failed":
        made.update(failure_code="card_declined", failure_message=message)


def land(world: World, intent: Object, outcome: Literal["succeeded", "failed"], message: str = DECLINED) -> None:
    """A charge that was on its way arrives, or does not."""
    made = world.objects[intent["latest_charge"]]
    made.update(status=outcome, paid=outcome == "succeeded")
    if outcome == "succeeded":
        made["amount_captured"] = made["amount"]
    else:
        made.update(failure_code="payment_intent_payment_attempt_failed", failure_message=message)
    _turn(intent, outcome, message)


def _turn(intent: Object, outcome: Outcome, message: str) -> None:
    if outcome == "succeeded":
        intent.update(status="succeeded", amount_received=intent["amount"], last_payment_error=None)
    elif outcome == "pending":
        intent.update(status="processing", last_payment_error=None)
    else:
        intent.update(status="requires_payment_method")
        intent["last_payment_error"] = {
            **{"type": "card_error", "code": "card_declined", "decline_code": "generic_decline"},
            **{"message": message, "charge": intent["latest_charge"]},
        }


def announce(world: World, intent: Object) -> Object:
    """The events of a charge and its intent; returns the intent's."""
    if intent["latest_charge"] is not None:
        made = world.objects[intent["latest_charge"]]
        world.happened(f"charge.{made['status']}", made)
    kind = {"succeeded": "succeeded", "processing": "processing", "requires_payment_method": "payment_failed"}
    return world.happened(f"payment_intent.{kind[intent['status']]}", intent)


def left_to_refund(world: World, intent: Object) -> int:
    before = [one for one in world.of("refund") if one["payment_intent"] == intent["id"]]
    given = sum(one["amount"] for one in before if one["status"] not in ("failed", "canceled"))
    return int(intent["amount_received"] - given)


def refund(
    world: World, intent: Object, amount: int, status: str, metadata: dict[str, str], reason: str | None
) -> Object:
    """Gives money back. Raises `Refusal`."""
    if intent["status"] != "succeeded":
        raise Refusal(400, "This PaymentIntent does not have a successful charge to refund.")
    charged = world.objects[intent["latest_charge"]]
    left = left_to_refund(world, intent)
    if charged["disputed"]:
        raise Refusal(400, f"Charge {charged['id']} has been charged back; cannot refund.", code="charge_disputed")
    if left == 0:
        raise Refusal(400, "Charge has already been refunded.", code="charge_already_refunded")
    if not 0 < amount <= left:
        raise Refusal(
            400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})", param="amount"
        )
    made = world.new(
        stripe.Refund,
        "re",
        amount=amount,
        currency=intent["currency"],
        payment_intent=intent["id"],
        charge=charged["id"],
        metadata=metadata,
        reason=reason,
        status=status,
    )
    _count_refunds(world, intent, charged)
    world.happened("refund.created", made)
    world.happened("charge.refunded", charged)
    return made


def end_refund(world: World, made: Object, status: str, failure_reason: str | None) -> Object:
    """A refund that was on its way arrives or fails; returns the refund's event."""
    made.update(status=status, failure_reason=failure_reason)
    _count_refunds(world, world.objects[made["payment_intent"]], world.objects[made["charge"]])
    world.happened("charge.refund.updated", made)
    return world.happened("refund.updated" if status != "failed" else "refund.failed", made)


def _count_refunds(world: World, intent: Object, charged: Object) -> None:
    given = intent["amount_received"] - left_to_refund(world, intent)
    charged.update(amount_refunded=given, refunded=given == charged["amount"])


def dispute(world: World, intent: Object, reason: str, amount: int) -> Object:
    """The payer's bank takes the money back, for the time being; returns the dispute."""
    charged = world.objects[intent["latest_charge"]]
    made = world.new(
        stripe.Dispute,
        "dp",
        amount=amount,
        charge=charged["id"],
        currency=intent["currency"],
        payment_intent=intent["id"],
        reason=reason,
        status="needs_response",
        is_charge_refundable=False,
        metadata={},
        balance_transactions=[_withdrawal(world, -amount, intent["currency"])],
    )
    charged["disputed"] = True
    world.happened("charge.dispute.created", made)
    world.happened("charge.dispute.funds_withdrawn", made)
    return made


def close_dispute(world: World, made: Object, status: Literal["won", "lost"]) -> Object:
    before = shown(made)
    made["status"] = "under_review"
    world.happened("charge.dispute.updated", made, before)
    made["status"] = status
    if status == "won":
        # The charge stays marked as disputed, as the real one's does.
        made["balance_transactions"].append(_withdrawal(world, made["amount"], made["currency"]))
        world.happened("charge.dispute.funds_reinstated", made)
    return world.happened("charge.dispute.closed", made)


def _withdrawal(world: World, amount: int, currency: str) -> Object:
    return {
        **blank(stripe.BalanceTransaction),
        **{"id": world.new_id("txn"), "amount": amount, "net": amount, "currency": currency, "type": "adjustment"},
        **{"created": world.now, "reporting_category": "dispute" if amount < 0 else "dispute_reversal"},
    }
