"""`/api/privacy`: how long personal data is kept, and what is done with one person's on request."""

import hashlib
import re
from typing import Literal

import msgspec

from ledger.billing_settings.store import get_settings
from ledger.database.persons import find_person_id
from ledger.database.transaction import AuditEntry
from ledger.errors import NotFound
from ledger.retention.erasing import ErasureDone, erase_person
from ledger.retention.export import Span, export_person
from ledger.retention.forecast import read_forecast
from ledger.retention.held import PersonExport
from ledger.retention.views import erase_actions, held_fields, policy_fields, read_held, read_policy, schedule_table
from ledger.web.bodies import ID_PATTERN, Body, Instant, LastInstant, NoBody, UserId
from ledger.web.call import Call, NoQuery
from ledger.web.idempotency import Claim
from ledger.web.operation import STAFF, Reply, acts, reads
from ledger.web.shapes import Actions, Detail, Form, FormField, Table

THING = "Person"
_ID_IN_WORDS = "`id` is the person's id at Lanyard."


class SpanQuery(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is exported: all, or what came about in a span of time."""

    from_: Instant | None = msgspec.field(default=None, name="from")
    to: LastInstant | None = None


class PersonWanted(Body, frozen=True, kw_only=True):
    """Whom somebody wants to see, by their id at Lanyard."""

    missing_sentence = "Enter the user id, as Lanyard shows it"

    user_id: UserId


class PersonFound(msgspec.Struct, frozen=True, kw_only=True):
    """Ledger knows the person; the Dashboard goes to their page."""

    success: Literal[True] = True
    redirect: str


def _user_id(path_id: str) -> str:
    """The user id in a path. Raises `NotFound` for what can be none, before a query or a URL sees it."""
    if re.match(ID_PATTERN, path_id) is None:
        raise NotFound(THING)
    return path_id


@reads("/api/privacy", "Say how long personal data is kept", callers=STAFF, answer=Detail)
async def show_policy(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        policy = await read_policy(connection)
    return Detail(fields=policy_fields(policy, now=call.services.clock.now(), zone=call.services.settings.timezone))


@reads(
    "/api/privacy/schedule",
    "List when whose data will be erased",
    callers=STAFF,
    answer=Table,
    description="By the present settings, for the invoices that still name a person.",
)
async def list_schedule(call: Call[NoBody, NoQuery]) -> Table:
    now, zone = call.services.clock.now(), call.services.settings.timezone
    async with call.database.connection() as connection:
        settings = await get_settings(connection)
        forecast = await read_forecast(connection, now=now, retention_days=settings.data_retention_days, zone=zone)
    return schedule_table(forecast, today=now.astimezone(zone).date())


@reads("/api/privacy/person/form", "The form that looks a person up", callers=STAFF, answer=Form)
async def person_form(call: Call[NoBody, NoQuery]) -> Form:
    return Form(
        fields=[
            FormField(
                key="userId",
                label="User ID (as Lanyard lists it)",
                type="text",
                required=True,
                placeholder="e.g. V1StGXR8_Z5jdHi6B-myT",
            )
        ]
    )


@acts(
    "POST",
    "/api/privacy/person",
    "Look a person up",
    callers=STAFF,
    body=PersonWanted,
    answer=PersonFound,
    is_form=True,
    errors=(400, 404),
    description="Changes nothing; it leads the Dashboard to the person's page.",
)
async def look_person_up(call: Call[PersonWanted, NoQuery]) -> PersonFound:
    user_id = call.body.user_id
    async with call.database.connection() as connection:
        if await find_person_id(connection, user_id=user_id) is None:
            raise NotFound(THING)
    return PersonFound(redirect=f"/{call.services.settings.slug}/privacy/users/{user_id}")


@reads(
    "/api/privacy/users/{id}",
    "Show how much is held about a person",
    callers=STAFF,
    answer=Detail,
    errors=(404,),
    description=_ID_IN_WORDS,
)
async def show_person(call: Call[NoBody, NoQuery]) -> Detail:
    user_id, settings = _user_id(call.path["id"]), call.services.settings
    async with call.database.connection() as connection:
        held = await read_held(connection, user_id=user_id, now=call.services.clock.now(), zone=settings.timezone)
    return Detail(fields=held_fields(held, user_id=user_id, settings=settings))


@reads(
    "/api/privacy/users/{id}/actions",
    "List what can be done with a person's data",
    callers=STAFF,
    answer=Actions,
    errors=(404,),
    description=_ID_IN_WORDS,
)
async def list_person_actions(call: Call[NoBody, NoQuery]) -> Actions:
    user_id, zone = _user_id(call.path["id"]), call.services.settings.timezone
    async with call.database.connection() as connection:
        held = await read_held(connection, user_id=user_id, now=call.services.clock.now(), zone=zone)
    return erase_actions(held, user_id=user_id)


@reads(
    "/api/privacy/users/{id}/export",
    "Export everything that is held about a person",
    callers=STAFF,
    answer=PersonExport,
    query=SpanQuery,
    errors=(400, 404),
    description=f"{_ID_IN_WORDS} That there was an export, but not of whom, stands in the audit log.",
)
async def export(call: Call[NoBody, SpanQuery]) -> PersonExport:
    span = Span(begins_at=call.query.from_, ends_at=call.query.to)
    exported = await export_person(call.database, user_id=_user_id(call.path["id"]), span=span)
    async with call.database.transaction_of(call.caller) as tx:
        tx.audit(
            AuditEntry(
                action="privacy.exported",
                entity_type="privacy",
                # It names the export, and nobody.
                entity_id=tx.ids.new(),
                details={
                    "invoices": len(exported.invoices),
                    "subscriptions": len(exported.subscriptions),
                    "auditEntries": len(exported.audit_entries),
                    "complete": not exported.incomplete,
                },
            )
        )
    return exported


@acts(
    "POST",
    "/api/privacy/users/{id}/erase",
    "Erase a person",
    callers=STAFF,
    answer=ErasureDone,
    errors=(404, 409),
    description=f"{_ID_IN_WORDS} What no law keeps goes at once. The rest is restricted: the person's name is not "
    "asked for any more, and nobody writes to them. `retainedUntil` is the earliest day from which nothing has to be "
    "kept. 409 while a subscription of theirs is not over.",
)
async def erase(call: Call[NoBody, NoQuery]) -> Reply:
    user_id = _user_id(call.path["id"])
    answer = await erase_person(
        call.database,
        user_id=user_id,
        caller=call.caller,
        claim=None if call.claim is None else _without_person(call.claim, user_id=user_id),
        zone=call.services.settings.timezone,
    )
    return Reply(content=answer)


def _without_person(claim: Claim, *, user_id: str) -> Claim:
    """The path names the person, and claims are kept for 30 days: so only a hash of it is, with that of the body."""
    digest = hashlib.sha256(user_id.encode() + claim.body_sha256).digest()
    return Claim(operation="POST /api/privacy/users/erase", key=claim.key, body_sha256=digest)


operations = [
    show_policy,
    list_schedule,
    person_form,
    look_person_up,
    show_person,
    list_person_actions,
    export,
    erase,
]
