"""What goes at once when a person asks for erasure: all that no law keeps, and what its time is up for."""

import msgspec

from ledger.database.connection import Connection
from ledger.retention.freeing import (
    IS_OLD,
    delete_customers,
    empty_invoices,
    empty_subscriptions,
    list_old_subscriptions,
)
from ledger.retention.walking import Limits, affected


class Erased(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How much was erased. `texts` counts what free texts were emptied, `persons` is 1 when nothing is left at all."""

    invoices: int = 0
    subscriptions: int = 0
    audit_entries: int = 0
    texts: int = 0
    payloads: int = 0
    events: int = 0
    mails: int = 0
    provider_mappings: int = 0
    idempotency_records: int = 0
    persons: int = 0

    @property
    def total(self) -> int:
        return sum(msgspec.structs.astuple(self))


async def forget_what_was_said(connection: Connection, *, person_id: int) -> Erased:
    """Empties free texts, and what was told to others and to the person. What names them at providers stays."""
    await _lock_things(connection, person_id=person_id)
    return Erased(
        texts=await _empty_texts(connection, person_id=person_id),
        events=await _empty_events(connection, person_id=person_id),
        mails=affected(await connection.execute("delete from mail where person_id = $1", person_id)),
    )


async def forget_at_once(connection: Connection, *, person_id: int, limits: Limits) -> Erased:
    """The same, and lets go of invoices, subscriptions and audit entries whose time is up, and of providers' names."""
    said = await forget_what_was_said(connection, person_id=person_id)
    rows = await connection.fetch(
        f"select i.id::text from invoice i where i.person_id = $2 and {IS_OLD}", limits.kept_since, person_id
    )
    subscriptions = await list_old_subscriptions(connection, person_id=person_id, limits=limits)
    await empty_invoices(connection, ids=[row["id"] for row in rows])
    entries = await _free_audit_entries(connection, person_id=person_id, subscription_ids=subscriptions, limits=limits)
    await empty_subscriptions(connection, ids=subscriptions)
    is_live = await connection.fetchval(
        "select exists (select from subscription where person_id = $1 and status <> 'cancelled')", person_id
    )
    return msgspec.structs.replace(
        said,
        invoices=len(rows),
        subscriptions=len(subscriptions),
        audit_entries=entries,
        # A subscription that began since the person asked is paid for under that name.
        provider_mappings=0 if is_live else await delete_customers(connection, person_ids=[person_id]),
    )


async def _lock_things(connection: Connection, *, person_id: int) -> None:
    """Waits for who is changing the person's things; the statements after this see what they stored."""
    for table in ("invoice", "subscription"):
        await connection.execute(
            f"select id from {table} where person_id = $1 order by id for no key update", person_id
        )


async def _empty_texts(connection: Connection, *, person_id: int) -> int:
    """Empties the free texts about a person, also where invoices and subscriptions are kept: no law asks for them."""
    row = await connection.fetchrow(
        """
        with mine as materialized (
            select id from invoice where person_id = $1
        ), paid as materialized (
            select p.id from payment p where p.invoice_id = any(array(select id from mine))
        ), emptied as (
            update invoice set notes = null, metadata = null, payment_instructions = null
            where person_id = $1
                and (notes is not null or metadata is not null or payment_instructions is not null)
            returning 1
        ), unreferenced as (
            update payment set reference = null where id = any(array(select id from paid)) and reference is not null
            returning 1
        ), unreasoned as (
            update refund set reason = null, failure = null
            where payment_id = any(array(select id from paid)) and (reason is not null or failure is not null)
            returning 1
        ), closed as (
            update checkout set url = null, error = null
            where invoice_id = any(array(select id from mine)) and status in ('paid', 'expired', 'failed')
                and (url is not null or error is not null)
            returning 1
        ), ended as (
            update subscription set checkout_url = null, problem = null
            where person_id = $1 and status = 'cancelled' and (checkout_url is not null or problem is not null)
            returning 1
        ), unexplained as (
            update subscription_change set failure = null
            where subscription_id = any(array(
                select id from subscription where person_id = $1 and status = 'cancelled'
            )) and failure is not null
            returning 1
        )
        select (select count(*) from emptied) + (select count(*) from unreferenced)
            + (select count(*) from unreasoned) + (select count(*) from closed) + (select count(*) from ended)
            + (select count(*) from unexplained) as texts
        """,
        person_id,
    )
    assert row is not None, "counts are a row"
    texts: int = row["texts"]
    return texts


async def _free_audit_entries(
    connection: Connection, *, person_id: int, subscription_ids: list[str], limits: Limits
) -> int:
    """Entries whose time is up, and those about the person's subscriptions that are let go of, name nobody any more."""
    return affected(
        await connection.execute(
            """
            update audit_entry set actor_person_id = null
            where actor_person_id = $1
                and (created_at < $2 or (entity_type = 'subscription' and entity_id = any($3::text[])))
            """,
            person_id,
            limits.kept_since,
            subscription_ids,
        )
    )


async def _empty_events(connection: Connection, *, person_id: int) -> int:
    """Empties what was told to others, and what they answered; what is still on its way arrives first."""
    rows = await connection.fetch(
        """
        select e.id::text from event e
        where e.person_id = $1 and e.is_fanned_out
            and not exists (select from webhook_delivery d where d.event_id = e.id and d.status = 'pending')
        """,
        person_id,
    )
    ids = [row["id"] for row in rows]
    if ids:
        await connection.execute(
            """
            with settled as (
                update webhook_delivery set last_error = null
                where event_id = any($1::uuid[]) and last_error is not null
            ), answered as (
                update webhook_attempt set answer = null, error = null
                where delivery_id = any(array(select id from webhook_delivery where event_id = any($1::uuid[])))
                    and (answer is not null or error is not null)
            )
            update event set data = null, person_id = null where id = any($1::uuid[])
            """,
            ids,
        )
    return len(ids)


async def delete_idempotency_records(connection: Connection, *, person_id: int) -> int:
    """Forgets what the person's requests were answered; returns how many."""
    return affected(
        await connection.execute(
            "delete from idempotency_record where caller = 'person:' || $1::bigint::text", person_id
        )
    )
