"""What staff forgives with a credit note in Stripe's dashboard is no money that came in."""

from tests.fakes import stripe_invoices
from tests.subscriptions.club import Club


async def test_a_bill_that_a_credit_note_settled_is_no_money_received(club: Club) -> None:
    """Seen failing (10.00 received as `external`) without `pre_payment_credit_notes_amount`."""
    silver = await club.add_product("Silver", 1000)
    subscription_id, at_stripe = await club.member(silver)
    club.stripe.decline(at_stripe)
    await club.pass_days(32)
    await club.hear()
    bill = club.stripe.invoices_of(at_stripe)[-1]
    # As Stripe has it after a credit note over the whole bill.
    bill.update(pre_payment_credit_notes_amount=1000, amount_due=0)
    stripe_invoices._paid(club.stripe, bill)
    await club.hear()
    assert (await club.bills(subscription_id))[-1] == ("INV-2026-0002", "paid", 1000)
    rows = await club.ledger.sql("select method, amount_minor from payment order by created_at")
    assert [tuple(row) for row in rows] == [("card", 1000), ("credit_balance", 1000)]
