"""Frees what its time is up for: invoices, subscriptions and audit entries lose their person, then the person goes.

The conditions are written with scalar subqueries: each is looked up by index for the rows of a page. Joins in their
place would, by a plan made for other sizes, read whole tables for every page.
"""

from ledger.database.connection import Connection
from ledger.retention.rules import SETTLED
from ledger.retention.walking import Limits, Place, Progress, affected, read_page

# Entries are small, and most name nobody.
_ENTRIES = 2_000
_SETTLED = ", ".join(f"'{status}'" for status in SETTLED)

LAST_FACT = """
    greatest(i.created_at, (
        select max(greatest(p.received_at, p.created_at, (
            select max(greatest(r.created_at, r.settled_at,
                case when r.status = 'requested' then 'infinity'::timestamptz end))
            from refund r where r.payment_id = p.id
        ), (
            select max(greatest(d.created_at, d.updated_at,
                case when d.status in ('needs_response', 'under_review') then 'infinity'::timestamptz end))
            from dispute d where d.payment_id = p.id
        )))
        from payment p where p.invoice_id = i.id
    ))
"""
"""When the last financial fact of invoice `i` was; `infinity` while a refund or a dispute is open."""

IS_OLD = f"(i.status in ({_SETTLED}) and {LAST_FACT} < $1)"
"""Whether the time of invoice `i` is up: `rules.is_due`, with `kept_since` as $1."""

_INVOICE_SAYS_SOMETHING = """
    (i.person_id is not null or i.notes is not null or i.metadata is not null or i.payment_instructions is not null
        or (select true from checkout c where c.invoice_id = i.id and (c.url is not null or c.error is not null)
            limit 1)
        or (select true from payment p where p.invoice_id = i.id and (p.reference is not null
            or (select true from refund r where r.payment_id = p.id
                and (r.reason is not null or r.failure is not null) limit 1))
            limit 1))
"""

# What is billed for it counts for a subscription, too: it is over when all of that is.
_SUBSCRIPTION_IS_OLD = f"""
    (s.status = 'cancelled' and greatest(s.created_at, s.cancelled_at) < $1
        and (select true from subscription_period b join invoice i on i.id = b.invoice_id
            where b.subscription_id = s.id and i.person_id is not null and not {IS_OLD} limit 1) is null)
"""

_SUBSCRIPTION_SAYS_SOMETHING = """
    (s.person_id is not null or s.checkout_url is not null or s.problem is not null
        or (select true from subscription_change c where c.subscription_id = s.id and c.failure is not null limit 1))
"""

# What keeps a person's row, and what of it will be gone by the end of this run ($1 as above, $2 `payloads_before`, $3
# `answers_before`).
_POINTING = (
    ("select true from invoice i where i.person_id = p.id", f"not {IS_OLD}"),
    ("select true from subscription s where s.person_id = p.id", f"not {_SUBSCRIPTION_IS_OLD}"),
    ("select true from audit_entry a where a.actor_person_id = p.id", "a.created_at >= $1"),
    ("select true from event e where e.person_id = p.id", "e.created_at >= $2"),
    ("select true from mail m where m.person_id = p.id", "m.created_at >= $2"),
    # While the first answer to a request of theirs is kept, they have to be recognised.
    ("select true from idempotency_record k where k.caller = 'person:' || p.id", "k.created_at >= $3"),
)
NOTHING_POINTS = " and ".join(f"({found} limit 1) is null" for found, _ in _POINTING)
"""Whether nothing points at person `p` any more."""
_NOTHING_WILL_POINT = " and ".join(f"({found} and {stays} limit 1) is null" for found, stays in _POINTING)


async def free_invoices(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Invoices whose time is up lose their person and every free text. Amounts, dates and states stay."""
    ids, following = await read_page(
        connection,
        f"""
        select i.id, i.created_at as at, i.status in ({_SETTLED}) and {_INVOICE_SAYS_SOMETHING} as is_wanted
        from invoice i where i.created_at < $1 and (i.created_at, i.id) > ($2, $3::uuid)
        order by i.created_at, i.id limit $4
        """,
        limits.kept_since,
        after.at,
        after.id,
    )
    if not limits.is_dry:
        ids = await lock_invoices(connection, ids=ids)
    rows = await connection.fetch(
        f"select i.id::text, i.person_id from invoice i where i.id = any($2::uuid[]) and {IS_OLD}",
        limits.kept_since,
        ids,
    )
    if not limits.is_dry:
        await empty_invoices(connection, ids=[row["id"] for row in rows])
    return Progress(sum(row["person_id"] is not None for row in rows), following)


async def lock_invoices(connection: Connection, *, ids: list[str]) -> list[str]:
    """Locks those that nobody else is changing. What is decided then is decided by a statement that sees what others
    stored until now: a payment that arrived a moment ago keeps its invoice."""
    rows = await connection.fetch(
        "select id::text from invoice where id = any($1::uuid[]) order by id for no key update skip locked", ids
    )
    return [row["id"] for row in rows]


async def empty_invoices(connection: Connection, *, ids: list[str]) -> None:
    """Takes the person and every free text from invoices that are locked and due."""
    if not ids:
        return
    await connection.execute(
        """
        with payments as (
            update payment set reference = null where invoice_id = any($1::uuid[]) and reference is not null
        ), refunds as (
            update refund set reason = null, failure = null
            where payment_id = any(array(select id from payment where invoice_id = any($1::uuid[])))
                and (reason is not null or failure is not null)
        ), pages as (
            update checkout set url = null, error = null
            where invoice_id = any($1::uuid[]) and (url is not null or error is not null)
        )
        update invoice set person_id = null, notes = null, metadata = null, payment_instructions = null
        where id = any($1::uuid[])
        """,
        ids,
    )


async def free_subscriptions(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Subscriptions that are over lose their person once their time, and that of all their invoices, is up."""
    ids, following = await read_page(
        connection,
        f"""
        select s.id, s.created_at as at, s.status = 'cancelled' and {_SUBSCRIPTION_SAYS_SOMETHING} as is_wanted
        from subscription s where s.created_at < $1 and (s.created_at, s.id) > ($2, $3::uuid)
        order by s.created_at, s.id limit $4
        """,
        limits.kept_since,
        after.at,
        after.id,
    )
    if not limits.is_dry:
        ids = await lock_subscriptions(connection, ids=ids)
    rows = await connection.fetch(
        f"select s.id::text, s.person_id from subscription s where s.id = any($2::uuid[]) and {_SUBSCRIPTION_IS_OLD}",
        limits.kept_since,
        ids,
    )
    if not limits.is_dry:
        await empty_subscriptions(connection, ids=[row["id"] for row in rows])
    return Progress(sum(row["person_id"] is not None for row in rows), following)


async def lock_subscriptions(connection: Connection, *, ids: list[str]) -> list[str]:
    """Locks those that nobody else is changing."""
    rows = await connection.fetch(
        "select id::text from subscription where id = any($1::uuid[]) order by id for no key update skip locked", ids
    )
    return [row["id"] for row in rows]


async def list_old_subscriptions(connection: Connection, *, person_id: int, limits: Limits) -> list[str]:
    """A person's subscriptions whose time is up, and those that ended without ever having begun: nobody paid."""
    rows = await connection.fetch(
        f"""
        select s.id::text from subscription s
        where s.person_id = $2 and s.status = 'cancelled' and (s.activated_at is null or {_SUBSCRIPTION_IS_OLD})
        """,
        limits.kept_since,
        person_id,
    )
    return [row["id"] for row in rows]


async def empty_subscriptions(connection: Connection, *, ids: list[str]) -> None:
    """Takes the person and what was said about them from subscriptions that are locked and due."""
    if not ids:
        return
    await connection.execute(
        """
        with changes as (
            update subscription_change set failure = null
            where subscription_id = any($1::uuid[]) and failure is not null
        )
        update subscription set person_id = null, checkout_url = null, problem = null where id = any($1::uuid[])
        """,
        ids,
    )


async def free_audit_entries(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """Audit entries of years that are not kept lose who acted. What was done stays, and so does the chain of seals."""
    rows = await connection.fetch(
        """
        select id, created_at < $1 as is_old, actor_person_id from audit_entry
        where id > $2 order by id limit $3
        """,
        limits.kept_since,
        int(after.id),
        _ENTRIES,
    )
    ids = [row["id"] for row in rows if row["is_old"] and row["actor_person_id"] is not None]
    if ids and not limits.is_dry:
        await connection.execute("update audit_entry set actor_person_id = null where id = any($1::bigint[])", ids)
    # Entries are numbered in the order of time, but for moments: a page without an old one is the end.
    goes_on = len(rows) == _ENTRIES and any(row["is_old"] for row in rows)
    return Progress(len(ids), Place(after.at, str(rows[-1]["id"])) if goes_on else None)


async def delete_persons(connection: Connection, *, limits: Limits, after: Place) -> Progress:
    """People at whom nothing points any more go, and with them what providers call them."""
    ids, following = await read_page(
        connection,
        "select p.id, p.created_at as at, true as is_wanted from person p where p.id > $1 order by p.id limit $2",
        int(after.id),
    )
    page = [int(each) for each in ids]
    if limits.is_dry:
        found: int = await connection.fetchval(
            f"select count(*) from person p where p.id = any($4::bigint[]) and {_NOTHING_WILL_POINT}",
            limits.kept_since,
            limits.payloads_before,
            limits.answers_before,
            page,
        )
        return Progress(found, following)
    rows = await connection.fetch(
        f"select p.id from person p where p.id = any($1::bigint[]) and {NOTHING_POINTS}", page
    )
    return Progress(await delete_unused_persons(connection, ids=[row["id"] for row in rows]), following)


async def delete_unused_persons(connection: Connection, *, ids: list[int]) -> int:
    """Deletes the rows among these that nothing points at; returns how many.

    Who is about to point at one holds it (`ensure_persons`), and is let through; who comes later waits, and makes a
    new row.
    """
    if not ids:
        return 0
    rows = await connection.fetch(
        "select id from person where id = any($1::bigint[]) order by id for update skip locked", ids
    )
    # A statement of its own: it sees what was stored until the rows were locked.
    gone = await connection.fetch(
        f"delete from person p where p.id = any($1::bigint[]) and {NOTHING_POINTS} returning p.id",
        [row["id"] for row in rows],
    )
    await delete_customers(connection, person_ids=[row["id"] for row in gone])
    return len(gone)


async def delete_customers(connection: Connection, *, person_ids: list[int]) -> int:
    """Forgets what providers call these people; returns how many names that were."""
    return affected(
        await connection.execute(
            """
            delete from provider_mapping
            where connection_id = any(array(select id from provider_connection)) and kind = 'customer'
                and local_id = any($1::text[])
            """,
            [str(each) for each in person_ids],
        )
    )
