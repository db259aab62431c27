"""`/api/subscriptions`: what staff sees of everybody's, and does with them.

What staff and owners do alike is here once, and told whose the subscription has to be (`owner`, None for staff).
"""

from ledger.database.connection import Connection
from ledger.database.persons import list_user_ids
from ledger.identity import Person
from ledger.invoices.listing import list_person_ids
from ledger.providers.connections import Connections
from ledger.providers.store import get_connection
from ledger.subscriptions import changing
from ledger.subscriptions.bodies import PreviewedChange, SubscriptionQuery, WantedProductChange, chosen_product_id
from ledger.subscriptions.change_store import find_open_change
from ledger.subscriptions.listing import (
    SubscriptionFilter,
    list_booked_invoices,
    list_changes,
    list_choices,
    list_subscriptions,
)
from ledger.subscriptions.rules import available_actions
from ledger.subscriptions.store import (
    Subscription,
    get_agreed_price,
    get_subscription,
)
from ledger.subscriptions.views import (
    INVOICE_COLUMNS,
    PendingChange,
    change_form,
    change_row,
    invoice_row,
    previewed_change,
    staff_fields,
    subscription_actions,
    subscription_row,
    user_text,
)
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.idempotency import claim_resumable
from ledger.web.operation import STAFF, Reply, acts, completed, encode, reads
from ledger.web.paging import PageQuery, read_cursor
from ledger.web.shapes import Actions, Column, Detail, Done, Form, Table

THING = "Subscription"
NAMES_MATCHED_MAX = 1_000
# What can go wrong where a provider is asked between two transactions.
ASKING_ERRORS = (400, 404, 409, 422, 501, 502, 503)
CHANGE_DESCRIPTION = (
    "It counts from now on, at the product's present price. If the new product prorates, what is left of the period "
    "is credited and the difference charged at once, else the new price counts from the next period. A change whose "
    "outcome is not known in time is answered 503 and settled by the reconciler."
)
PREVIEW_DESCRIPTION = "Asks the provider and changes nothing."
_COLUMNS = (
    Column(key="user", label="User"),
    Column(key="product", label="Product"),
    Column(key="provider", label="Provider"),
    Column(key="status", label="Status"),
    Column(key="currentPeriodEnd", label="Renews"),
    Column(key="createdAt", label="Created", type="date"),
)
_CHANGE_COLUMNS = (
    Column(key="wanted", label="Wanted"),
    Column(key="status", label="Status"),
    Column(key="failure", label="Reason"),
    Column(key="createdAt", label="Date", type="date"),
)


# What staff and owners do alike


async def cancel_for(call: Call[NoBody, NoQuery], *, owner: Person | None) -> Reply:
    """Cancels the subscription in the path."""
    await changing.cancel_subscription(
        call.database,
        call.services.get(Connections),
        caller=call.person,
        owner=owner,
        subscription_id=call.id_of(THING),
        claim=call.claim,
    )
    return await completed(call, encode(Done()))


async def reactivate_for(call: Call[NoBody, NoQuery], *, owner: Person | None) -> Reply:
    """Reactivates the subscription in the path."""
    await changing.reactivate_subscription(
        call.database,
        call.services.get(Connections),
        caller=call.person,
        owner=owner,
        subscription_id=call.id_of(THING),
        claim=call.claim,
    )
    return await completed(call, encode(Done()))


async def change_for(call: Call[WantedProductChange, NoQuery], *, owner: Person | None) -> Reply:
    """Gives the subscription in the path another product."""
    await changing.change_product(
        call.database,
        call.services.get(Connections),
        caller=call.person,
        owner=owner,
        subscription_id=call.id_of(THING),
        product_id=chosen_product_id(call.body),
        prorate_at=call.body.proration_date,
        claim=call.claim,
    )
    return await completed(call, encode(Done()))


async def preview_for(call: Call[WantedProductChange, NoQuery], *, owner: Person | None) -> Reply:
    """Says what another product would cost."""
    if call.claim is not None:
        async with call.database.transaction_of(call.caller) as tx:
            # There is no effect to repeat; the key only makes the second answer equal to the first.
            await claim_resumable(tx.connection, actor=tx.actor, claim=call.claim, now=tx.now)
    previewed = await changing.preview_change(
        call.database,
        call.services.get(Connections),
        owner=owner,
        subscription_id=call.id_of(THING),
        product_id=chosen_product_id(call.body),
        prorate_at=call.body.proration_date,
    )
    return await completed(call, encode(previewed_change(previewed)))


async def change_form_of(connection: Connection, subscription: Subscription) -> Form:
    """The form that asks for another product."""
    price = await get_agreed_price(connection, price_id=subscription.price_id)
    choices = await list_choices(
        connection,
        person_id=subscription.person_id,
        currency=price.currency,
        without_product_id=subscription.product_id,
    )
    return change_form(subscription, price=price, choices=choices)


async def invoices_of(connection: Connection, subscription: Subscription, query: PageQuery) -> Table:
    """The invoices that were booked for a subscription."""
    page = await list_booked_invoices(
        connection, subscription_id=subscription.id, after=read_cursor(query.cursor), limit=query.limit
    )
    return Table(
        columns=INVOICE_COLUMNS,
        rows=[invoice_row(invoice) for invoice in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


async def pending_of(connection: Connection, subscription: Subscription) -> PendingChange | None:
    """What was wanted of a subscription and is not confirmed."""
    change = await find_open_change(connection, subscription_id=subscription.id)
    if change is None:
        return None
    price = None if change.price_id is None else await get_agreed_price(connection, price_id=change.price_id)
    return PendingChange(kind=change.kind, price=price)


# For staff


@reads(
    "/api/subscriptions",
    "List all subscriptions",
    callers=STAFF,
    answer=Table,
    query=SubscriptionQuery,
    errors=(400,),
)
async def list_all_subscriptions(call: Call[NoBody, SubscriptionQuery]) -> Table:
    query = call.query
    async with call.database.connection() as connection:
        people_named: list[int] = []
        if query.q is not None:
            named = sorted(call.services.names.find_user_ids(query.q))[:NAMES_MATCHED_MAX]
            people_named = await list_person_ids(connection, user_ids=named) if named else []
        page = await list_subscriptions(
            connection,
            wanted=SubscriptionFilter(
                status=query.status,
                user_id=query.user_id,
                text=None if query.q is None else query.q.strip(),
                person_ids=people_named,
            ),
            after=read_cursor(query.cursor),
            limit=query.limit,
        )
        owners = {row.subscription.person_id for row in page.rows} - {None}
        users = await list_user_ids(connection, person_ids={each for each in owners if each is not None})
    names = await call.services.names.display_names(set(users.values()))
    return Table(
        columns=_COLUMNS,
        rows=[subscription_row(listed, users=users, names=names) for listed in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


@reads("/api/subscriptions/{id}", "Show a subscription", callers=STAFF, answer=Detail, errors=(404,))
async def show_subscription(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        subscription = await get_subscription(connection, subscription_id=call.id_of(THING))
        price = await get_agreed_price(connection, price_id=subscription.price_id)
        stored = await get_connection(connection, connection_id=subscription.connection_id)
        pending = await pending_of(connection, subscription)
        users = await list_user_ids(
            connection, person_ids=set() if subscription.person_id is None else {subscription.person_id}
        )
    names = await call.services.names.display_names(set(users.values()))
    return Detail(
        fields=staff_fields(
            subscription,
            price=price,
            user=user_text(subscription, users=users, names=names),
            provider=f"{stored.name} ({stored.type})",
            pending=pending,
            now=call.services.clock.now(),
        )
    )


@reads(
    "/api/subscriptions/{id}/actions",
    "List what staff can do with a subscription",
    callers=STAFF,
    answer=Actions,
    errors=(404,),
)
async def list_subscription_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        subscription = await get_subscription(connection, subscription_id=call.id_of(THING))
        price = await get_agreed_price(connection, price_id=subscription.price_id)
    return subscription_actions(
        subscription,
        available_actions(subscription.status, cancels_at_period_end=subscription.cancels_at_period_end),
        at=f"/api/subscriptions/{subscription.id}",
        product_name=price.product_name,
        cancel_label="Cancel",
    )


@acts(
    "POST",
    "/api/subscriptions/{id}/cancel",
    "End a subscription at the end of its period",
    callers=STAFF,
    answer=Done,
    errors=ASKING_ERRORS,
    description="One that is not paid yet ends now, and its payment page is closed.",
)
async def cancel(call: Call[NoBody, NoQuery]) -> Reply:
    return await cancel_for(call, owner=None)


@acts(
    "POST",
    "/api/subscriptions/{id}/reactivate",
    "Let a subscription go on",
    callers=STAFF,
    answer=Done,
    errors=ASKING_ERRORS,
    description="Takes a cancellation back, and has a payment that failed collected again. What has ended stays so.",
)
async def reactivate(call: Call[NoBody, NoQuery]) -> Reply:
    return await reactivate_for(call, owner=None)


@acts(
    "POST",
    "/api/subscriptions/{id}/change",
    "Give a subscription another product",
    callers=STAFF,
    body=WantedProductChange,
    answer=Done,
    is_form=True,
    errors=ASKING_ERRORS,
    description=CHANGE_DESCRIPTION,
)
async def change(call: Call[WantedProductChange, NoQuery]) -> Reply:
    return await change_for(call, owner=None)


@acts(
    "POST",
    "/api/subscriptions/{id}/change/preview",
    "Tell what another product would cost",
    callers=STAFF,
    body=WantedProductChange,
    answer=PreviewedChange,
    is_form=True,
    errors=ASKING_ERRORS,
    description=PREVIEW_DESCRIPTION,
)
async def preview_change(call: Call[WantedProductChange, NoQuery]) -> Reply:
    return await preview_for(call, owner=None)


@reads(
    "/api/subscriptions/{id}/change/form",
    "The form that asks for another product",
    callers=STAFF,
    answer=Form,
    errors=(404,),
)
async def show_change_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        subscription = await get_subscription(connection, subscription_id=call.id_of(THING))
        return await change_form_of(connection, subscription)


@reads(
    "/api/subscriptions/{id}/invoices",
    "List the invoices of a subscription",
    callers=STAFF,
    answer=Table,
    query=PageQuery,
    errors=(400, 404),
)
async def list_subscription_invoices(call: Call[NoBody, PageQuery]) -> Table:
    async with call.database.connection() as connection:
        subscription = await get_subscription(connection, subscription_id=call.id_of(THING))
        return await invoices_of(connection, subscription, call.query)


@reads(
    "/api/subscriptions/{id}/changes",
    "List what was wanted of a subscription, and what came of it",
    callers=STAFF,
    answer=Table,
    query=PageQuery,
    errors=(400, 404),
)
async def list_subscription_changes(call: Call[NoBody, PageQuery]) -> Table:
    async with call.database.connection() as connection:
        subscription = await get_subscription(connection, subscription_id=call.id_of(THING))
        page = await list_changes(
            connection,
            subscription_id=subscription.id,
            after=read_cursor(call.query.cursor),
            limit=call.query.limit,
        )
    return Table(
        columns=_CHANGE_COLUMNS,
        rows=[change_row(each) for each in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


operations = [
    list_all_subscriptions,
    show_subscription,
    list_subscription_actions,
    cancel,
    reactivate,
    change,
    preview_change,
    show_change_form,
    list_subscription_invoices,
    list_subscription_changes,
]
