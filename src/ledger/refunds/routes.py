"""`POST /api/invoices/{id}/refund`: staff sends money back, and the form that asks how much."""

from ledger.invoices.bodies import RefundWish
from ledger.invoices.store import get_invoice
from ledger.money import format_money
from ledger.payments.refundable import can_refund, list_refundable
from ledger.providers.connections import Connections
from ledger.refunds.actions import request_refund
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, Reply, acts, completed, encode, reads
from ledger.web.shapes import Done, Form, FormField


@acts(
    "POST",
    "/api/invoices/{id}/refund",
    "Give money back through the provider that took it",
    callers=STAFF,
    body=RefundWish,
    answer=Done,
    is_form=True,
    errors=(400, 404, 409, 422, 502, 503),
    description="Without an `amount` everything that is left goes back. A refund whose outcome is not known in time "
    "is answered 503 and settled by the reconciler; its amount stays reserved.",
)
async def refund(call: Call[RefundWish, NoQuery]) -> Reply:
    await request_refund(
        call.database,
        call.services.get(Connections),
        caller=call.caller,
        claim=call.claim,
        invoice_id=call.id_of("Invoice"),
        amount_minor=call.body.amount,
        reason=call.body.reason or None,
    )
    answer = encode(Done())
    return await completed(call, answer)


@reads(
    "/api/invoices/{id}/refund/form", "The form that asks how much to refund", callers=STAFF, answer=Form, errors=(404,)
)
async def refund_form(call: Call[NoBody, NoQuery]) -> Form:
    connections = call.services.get(Connections)
    async with call.database.connection() as connection:
        invoice = await get_invoice(connection, invoice_id=call.id_of("Invoice"))
        payments = await list_refundable(connection, invoice_id=invoice.id)
    left_minor = sum(payment.left_minor for payment in payments if can_refund(connections, payment))
    return Form(
        fields=[
            FormField(
                key="amount",
                label=(
                    f"Amount to send back, in minor units (at most {left_minor} = "
                    f"{format_money(left_minor, invoice.currency)}; empty = all of it)"
                    if left_minor
                    else "Amount (nothing of this invoice can be sent back by Ledger)"
                ),
                type="number",
                value=left_minor or None,
                placeholder="e.g. 2500 for 25.00 EUR",
            ),
            FormField(key="reason", label="Reason", type="text", placeholder="Shown to staff only"),
        ]
    )


operations = [refund, refund_form]
