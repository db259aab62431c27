"""`…/epc-qr.png` and `.svg`: the code a banking app reads to fill in a transfer (EPC069-12)."""

import asyncio

from ledger.database.connection import Connection
from ledger.errors import NotFound
from ledger.invoices.payment_view import open_amount_minor, read_payment_view, transfer_account
from ledger.invoices.store import Invoice, get_facts, get_invoice, get_invoice_of
from ledger.payments.epc import epc_png, epc_svg, epc_text
from ledger.providers.connections import Connections
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, USER, Reply, reads

PNG, SVG = "image/png", "image/svg+xml"
_DESCRIPTION = "Exists while the invoice is open, in EUR, and the active provider takes bank transfers."


async def _text(call: Call[NoBody, NoQuery], connection: Connection, invoice: Invoice) -> str:
    facts = await get_facts(connection, invoice_id=invoice.id)
    view = await read_payment_view(connection, call.services.get(Connections), invoice=invoice)
    account = transfer_account(view, invoice, facts)
    if account is None:
        raise NotFound("QR code")
    # Drawing takes some milliseconds of computing, hence the threads below.
    return epc_text(
        account,
        amount_minor=open_amount_minor(invoice, facts),
        currency=invoice.currency,
        reference=invoice.payment_reference,
    )


async def _text_for_staff(call: Call[NoBody, NoQuery]) -> str:
    async with call.database.connection() as connection:
        invoice = await get_invoice(connection, invoice_id=call.id_of("Invoice"))
        return await _text(call, connection, invoice)


async def _text_for_owner(call: Call[NoBody, NoQuery]) -> str:
    async with call.database.connection() as connection:
        invoice = await get_invoice_of(connection, invoice_id=call.id_of("Invoice"), user_id=call.person.user_id)
        return await _text(call, connection, invoice)


@reads(
    "/api/invoices/{id}/epc-qr.png",
    "The bank transfer as a QR code (PNG)",
    callers=STAFF,
    answer=bytes,
    media_type=PNG,
    errors=(404,),
    description=_DESCRIPTION,
)
async def show_code_png(call: Call[NoBody, NoQuery]) -> Reply:
    return Reply(content=await asyncio.to_thread(epc_png, await _text_for_staff(call)), media_type=PNG)


@reads(
    "/api/invoices/{id}/epc-qr.svg",
    "The bank transfer as a QR code (SVG)",
    callers=STAFF,
    answer=bytes,
    media_type=SVG,
    errors=(404,),
    description=_DESCRIPTION,
)
async def show_code_svg(call: Call[NoBody, NoQuery]) -> Reply:
    return Reply(content=await asyncio.to_thread(epc_svg, await _text_for_staff(call)), media_type=SVG)


@reads(
    "/api/my/invoices/{id}/epc-qr.png",
    "Your bank transfer as a QR code (PNG)",
    callers=USER,
    answer=bytes,
    media_type=PNG,
    errors=(404,),
    description=_DESCRIPTION,
)
async def show_my_code_png(call: Call[NoBody, NoQuery]) -> Reply:
    return Reply(content=await asyncio.to_thread(epc_png, await _text_for_owner(call)), media_type=PNG)


@reads(
    "/api/my/invoices/{id}/epc-qr.svg",
    "Your bank transfer as a QR code (SVG)",
    callers=USER,
    answer=bytes,
    media_type=SVG,
    errors=(404,),
    description=_DESCRIPTION,
)
async def show_my_code_svg(call: Call[NoBody, NoQuery]) -> Reply:
    return Reply(content=await asyncio.to_thread(epc_svg, await _text_for_owner(call)), media_type=SVG)


operations = [show_code_png, show_code_svg, show_my_code_png, show_my_code_svg]
