"""Purges what is kept for a while only: what providers sent, what was told to others, mails, attempts to deliver."""

from ledger.database.connection import Connection
from ledger.retention.walking import PAGE, Limits, Place, Progress, affected, read_page

PURGED_PAYLOAD = "What this event said was deleted in time"
PURGED_EVENT = "What was to be sent was deleted in time"
# Each event takes its deliveries and their attempts along.
_EVENTS_DELETED = 500


async def empty_payloads(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Providers' events lose what they said. That they came stays, so that none is applied twice."""
    ids, following = await read_page(
        connection,
        """
        select id, received_at as at, true as is_wanted from inbound_event
        where payload is not null and received_at < $1 and (received_at, id) > ($2, $3::uuid)
        order by received_at, id limit $4
        """,
        limits.payloads_before,
        after.at,
        after.id,
    )
    if not limits.is_dry:
        await empty_payloads_of(connection, ids=ids)
    return Progress(len(ids), following)


async def empty_payloads_of(connection: Connection, *, ids: list[str]) -> None:
    """Empties the payloads of these events; an error may be in the provider's own words, so it is replaced."""
    await connection.execute(
        """
        update inbound_event set payload = null, error = case when error is not null then $2 end
        where id = any($1::uuid[])
        """,
        ids,
        PURGED_PAYLOAD,
    )


async def empty_events(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Our own events lose what they said and whom they are about; what of them was not delivered yet never is."""
    ids, following = await read_page(
        connection,
        """
        select id, created_at as at, data is not null or person_id is not null or not is_fanned_out as is_wanted
        from event where created_at < $1 and created_at >= $2 and (created_at, id) > ($3, $4::uuid)
        order by created_at, id limit $5
        """,
        limits.payloads_before,
        # Earlier ones go altogether.
        limits.deliveries_before,
        after.at,
        after.id,
    )
    if ids and not limits.is_dry:
        await connection.execute(
            """
            update webhook_delivery set status = 'failed', last_error = $2, next_try_at = null, claimed_until = null,
                settled_at = $3
            where event_id = any($1::uuid[]) and status = 'pending'
            """,
            ids,
            PURGED_EVENT,
            limits.now,
        )
        await connection.execute(
            "update event set data = null, person_id = null, is_fanned_out = true where id = any($1::uuid[])", ids
        )
    return Progress(len(ids), following)


async def delete_events(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Events and their deliveries go when nobody has to be told any more that they were purged."""
    rows = await connection.fetch(
        """
        select id::text, created_at from event where created_at < $1 and (created_at, id) > ($2, $3::uuid)
        order by created_at, id limit $4
        """,
        limits.deliveries_before,
        after.at,
        after.id,
        _EVENTS_DELETED,
    )
    ids = [row["id"] for row in rows]
    if ids and not limits.is_dry:
        await connection.execute("delete from webhook_delivery where event_id = any($1::uuid[])", ids)
        await connection.execute("delete from event where id = any($1::uuid[])", ids)
    is_full = len(rows) == _EVENTS_DELETED
    return Progress(len(ids), Place(rows[-1]["created_at"], ids[-1]) if is_full else None)


async def delete_attempts(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """The log of attempts to deliver goes, with what receivers answered."""
    ids, following = await read_page(
        connection,
        """
        select id, started_at as at, true as is_wanted from webhook_attempt
        where started_at < $1 and (started_at, id) > ($2, $3) order by started_at, id limit $4
        """,
        limits.payloads_before,
        after.at,
        int(after.id),
    )
    if ids and not limits.is_dry:
        await connection.execute(
            "delete from webhook_attempt where id = any($1::bigint[])", [int(each) for each in ids]
        )
    return Progress(len(ids), following)


async def empty_deliveries(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Deliveries that were settled long ago lose what was said about them."""
    ids, following = await read_page(
        connection,
        """
        select id, created_at as at, last_error is not null and settled_at < $1 as is_wanted
        from webhook_delivery where created_at < $1 and (created_at, id) > ($2, $3::uuid)
        order by created_at, id limit $4
        """,
        limits.payloads_before,
        after.at,
        after.id,
    )
    if ids and not limits.is_dry:
        await connection.execute("update webhook_delivery set last_error = null where id = any($1::uuid[])", ids)
    return Progress(len(ids), following)


async def delete_mails(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Mails go, also those that could not be sent for so long."""
    ids, following = await read_page(
        connection,
        """
        select id, created_at as at, true as is_wanted from mail
        where created_at < $1 and (created_at, id) > ($2, $3::uuid) order by created_at, id limit $4
        """,
        limits.payloads_before,
        after.at,
        after.id,
    )
    if ids and not limits.is_dry:
        await connection.execute("delete from mail where id = any($1::uuid[])", ids)
    return Progress(len(ids), following)


async def delete_answers(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """What requests with a key were answered goes; the key is free again."""
    if limits.is_dry:
        found: int = await connection.fetchval(
            "select count(*) from idempotency_record where created_at < $1", limits.answers_before
        )
        return Progress(found, None)
    status = await connection.execute(
        """
        delete from idempotency_record where (caller, operation, key) in (
            select caller, operation, key from idempotency_record where created_at < $1 limit $2
        )
        """,
        limits.answers_before,
        PAGE,
    )
    count = affected(status)
    return Progress(count, after if count == PAGE else None)


async def delete_orphaned_customers(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """What providers call people who are gone goes: it can have been stored in the moment they went."""
    if limits.is_dry:
        return Progress(0, None)
    status = await connection.execute(
        """
        delete from provider_mapping where (connection_id, kind, local_id) in (
            select m.connection_id, m.kind, m.local_id from provider_mapping m
            where m.kind = 'customer' and not exists (select from person p where p.id::text = m.local_id) limit $1
        )
        """,
        PAGE,
    )
    count = affected(status)
    return Progress(count, after if count == PAGE else None)
