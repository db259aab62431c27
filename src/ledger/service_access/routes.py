"""`/api/service-access`: staff grants services more than their own invoices, and takes it back."""

import re
from typing import Annotated, Literal

from msgspec import Meta

from ledger.database.transaction import AuditEntry, Tx
from ledger.errors import NotFound
from ledger.service_access.store import ACCESS_PHRASES, list_access, update_access
from ledger.web.bodies import ID_PATTERN, Body, NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, reads, writes
from ledger.web.paging import PageQuery, read_cursor
from ledger.web.shapes import Column, Done, Form, FormField, Option, Row, Shape, Table, iso


class AccessChange(Body, frozen=True, kw_only=True):
    """What a service may do from now on."""

    missing_sentence = "serviceId and access are required"

    service_id: Annotated[str, Meta(pattern=ID_PATTERN)]
    access: Literal["own", "read", "manage"]


class AccessChanged(Shape, frozen=True, kw_only=True):
    """The change was made; the Dashboard goes back to the list."""

    # Never left out of the answer, although it is always the same.
    success: bool
    redirect: str


_COLUMNS = (
    Column(key="service", label="Service"),
    Column(key="access", label="Access"),
    Column(key="updatedAt", label="Since", type="date"),
)


@reads(
    "/api/service-access",
    "List the services that may do more than touch their own invoices",
    callers=STAFF,
    answer=Table,
    query=PageQuery,
    errors=(400,),
)
async def list_service_access(call: Call[NoBody, PageQuery]) -> Table:
    async with call.database.connection() as connection:
        page = await list_access(
            connection,
            after=read_cursor(call.query.cursor, is_row_id=_is_service_id),
            limit=call.query.limit,
        )
    rows: list[Row] = [
        {
            "id": each.service_id,
            "service": each.service_id,
            "access": ACCESS_PHRASES[each.access],
            "updatedAt": iso(each.updated_at),
        }
        for each in page.rows
    ]
    return Table(
        columns=_COLUMNS,
        rows=rows,
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


def _is_service_id(text: str) -> bool:
    return re.match(ID_PATTERN, text) is not None


@reads("/api/service-access/form", "The form that grants a service more", callers=STAFF, answer=Form)
async def service_access_form(call: Call[NoBody, NoQuery]) -> Form:
    options = [Option(label=phrase, value=access) for access, phrase in ACCESS_PHRASES.items()]
    return Form(
        fields=[
            FormField(
                key="serviceId",
                label="Service ID (as Lanyard lists it)",
                type="text",
                required=True,
                placeholder="e.g. the id of your ticket shop",
            ),
            FormField(key="access", label="Access", type="select", required=True, options=options, value="own"),
        ]
    )


@writes(
    "POST",
    "/api/service-access",
    "Grant a service more, or take it back",
    callers=STAFF,
    body=AccessChange,
    answer=AccessChanged,
    is_form=True,
    errors=(400,),
)
async def change_service_access(call: Call[AccessChange, NoQuery], tx: Tx) -> AccessChanged:
    await _change(tx, service_id=call.body.service_id, access=call.body.access)
    return AccessChanged(success=True, redirect=f"/{call.services.settings.slug}/service-access")


@writes(
    "DELETE",
    "/api/service-access/{id}",
    "Take back what a service was granted",
    callers=STAFF,
    answer=Done,
    errors=(404,),
)
async def revoke_service_access(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    service_id = call.path["id"]
    if not _is_service_id(service_id) or not await _change(tx, service_id=service_id, access="own"):
        raise NotFound("Service access")
    return Done()


async def _change(tx: Tx, *, service_id: str, access: Literal["own", "read", "manage"]) -> bool:
    changed = await update_access(tx.connection, service_id=service_id, access=access, now=tx.now)
    if changed:
        tx.audit(
            AuditEntry(
                action="service_access.updated",
                entity_type="service",
                entity_id=service_id,
                details={"access": access},
            )
        )
    return changed


operations = [list_service_access, service_access_form, change_service_access, revoke_service_access]
