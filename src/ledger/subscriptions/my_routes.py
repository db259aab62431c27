"""`/api/my/subscribe`, `/api/my/subscriptions`: what people do with their own. Somebody else's id is 404."""

import msgspec

from ledger.billing_settings.store import SettingsReader
from ledger.database.connection import Connection
from ledger.database.persons import find_person_id
from ledger.providers.connections import Connections
from ledger.subscriptions.bodies import (
    NewSubscription,
    PreviewedChange,
    StartedSubscription,
    WantedProductChange,
    chosen_product_id,
)
from ledger.subscriptions.listing import SubscriptionFilter, list_choices, list_subscriptions
from ledger.subscriptions.routes import (
    ASKING_ERRORS,
    CHANGE_DESCRIPTION,
    PREVIEW_DESCRIPTION,
    THING,
    cancel_for,
    change_for,
    change_form_of,
    invoices_of,
    pending_of,
    preview_for,
    reactivate_for,
)
from ledger.subscriptions.rules import own_actions
from ledger.subscriptions.starting import subscribe
from ledger.subscriptions.store import Subscription, get_agreed_price, get_subscription_of
from ledger.subscriptions.views import my_fields, my_subscription_row, subscribe_form, subscription_actions
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery, QueryT
from ledger.web.operation import USER, Reply, acts, completed, encode, reads
from ledger.web.paging import PageQuery, read_cursor
from ledger.web.shapes import Actions, Column, Detail, Done, Form, Table

_COLUMNS = (
    Column(key="product", label="Product"),
    Column(key="status", label="Status"),
    Column(key="renews", label="Renews"),
)


async def _own(connection: Connection, call: Call[NoBody, QueryT]) -> Subscription:
    return await get_subscription_of(connection, subscription_id=call.id_of(THING), user_id=call.person.user_id)


@acts(
    "POST",
    "/api/my/subscribe",
    "Subscribe to a product",
    callers=USER,
    body=NewSubscription,
    answer=StartedSubscription,
    status=201,
    other_statuses=(200,),
    is_form=True,
    errors=ASKING_ERRORS,
    description="200 when it has to be paid first, at `url`; it is `incomplete` until the provider says that it is "
    "paid. Subscribing again until then gives the same page.",
)
async def subscribe_to_product(call: Call[NewSubscription, NoQuery]) -> Reply:
    services = call.services
    started = await subscribe(
        call.database,
        services.get(Connections),
        services.settings,
        person=call.person,
        product_id=chosen_product_id(call.body),
        claim=call.claim,
    )
    if started.url is None:
        return await completed(call, encode(StartedSubscription(success=True, id=started.subscription_id)), status=201)
    answer = StartedSubscription(
        success=True,
        id=started.subscription_id,
        url=started.url,
        redirect=f"/my/subscriptions/{started.subscription_id}",
    )
    return await completed(call, msgspec.structs.replace(encode(answer), status=200))


@reads("/api/my/subscribe/form", "The form that asks what to subscribe to", callers=USER, answer=Form)
async def show_subscribe_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        person_id = await find_person_id(connection, user_id=call.person.user_id)
        choices = await list_choices(connection, person_id=person_id, currency=None, without_product_id=None)
    return subscribe_form(choices)


@reads(
    "/api/my/subscriptions",
    "List your subscriptions",
    callers=USER,
    answer=Table,
    query=PageQuery,
    errors=(400,),
    description="Those that ended without ever having been paid are left out.",
)
async def list_my_subscriptions(call: Call[NoBody, PageQuery]) -> Table:
    async with call.database.connection() as connection:
        page = await list_subscriptions(
            connection,
            wanted=SubscriptionFilter(user_id=call.person.user_id, has_begun=True),
            after=read_cursor(call.query.cursor),
            limit=call.query.limit,
        )
    return Table(
        columns=_COLUMNS,
        rows=[my_subscription_row(listed) for listed in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


@reads("/api/my/subscriptions/{id}", "Show one of your subscriptions", callers=USER, answer=Detail, errors=(404,))
async def show_my_subscription(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        subscription = await _own(connection, call)
        price = await get_agreed_price(connection, price_id=subscription.price_id)
        pending = await pending_of(connection, subscription)
    return Detail(fields=my_fields(subscription, price=price, pending=pending, now=call.services.clock.now()))


@reads(
    "/api/my/subscriptions/{id}/actions",
    "List what you can do with your subscription",
    callers=USER,
    answer=Actions,
    errors=(404,),
)
async def list_my_subscription_actions(call: Call[NoBody, NoQuery]) -> Actions:
    settings = await call.services.get(SettingsReader).get()
    async with call.database.connection() as connection:
        subscription = await _own(connection, call)
        price = await get_agreed_price(connection, price_id=subscription.price_id)
    available = own_actions(
        subscription.status,
        cancels_at_period_end=subscription.cancels_at_period_end,
        allow_self_cancel=settings.allow_self_cancel,
    )
    return subscription_actions(
        subscription,
        available,
        at=f"/api/my/subscriptions/{subscription.id}",
        product_name=price.product_name,
        cancel_label="Cancel Subscription",
    )


@acts(
    "POST",
    "/api/my/subscriptions/{id}/cancel",
    "End your subscription at the end of its period",
    callers=USER,
    answer=Done,
    errors=ASKING_ERRORS,
    description="403 while people may not cancel themselves. One that is not paid yet ends now.",
)
async def cancel_mine(call: Call[NoBody, NoQuery]) -> Reply:
    return await cancel_for(call, owner=call.person)


@acts(
    "POST",
    "/api/my/subscriptions/{id}/reactivate",
    "Let your subscription go on",
    callers=USER,
    answer=Done,
    errors=ASKING_ERRORS,
    description="Takes a cancellation back, and has a payment that failed collected again. What has ended stays so.",
)
async def reactivate_mine(call: Call[NoBody, NoQuery]) -> Reply:
    return await reactivate_for(call, owner=call.person)


@acts(
    "POST",
    "/api/my/subscriptions/{id}/change",
    "Give your subscription another product",
    callers=USER,
    body=WantedProductChange,
    answer=Done,
    is_form=True,
    errors=ASKING_ERRORS,
    description=CHANGE_DESCRIPTION,
)
async def change_mine(call: Call[WantedProductChange, NoQuery]) -> Reply:
    return await change_for(call, owner=call.person)


@acts(
    "POST",
    "/api/my/subscriptions/{id}/change/preview",
    "Tell what another product would cost you",
    callers=USER,
    body=WantedProductChange,
    answer=PreviewedChange,
    is_form=True,
    errors=ASKING_ERRORS,
    description=PREVIEW_DESCRIPTION,
)
async def preview_my_change(call: Call[WantedProductChange, NoQuery]) -> Reply:
    return await preview_for(call, owner=call.person)


@reads(
    "/api/my/subscriptions/{id}/change/form",
    "The form that asks for another product",
    callers=USER,
    answer=Form,
    errors=(404,),
)
async def show_my_change_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        return await change_form_of(connection, await _own(connection, call))


@reads(
    "/api/my/subscriptions/{id}/invoices",
    "List the invoices of your subscription",
    callers=USER,
    answer=Table,
    query=PageQuery,
    errors=(400, 404),
)
async def list_my_subscription_invoices(call: Call[NoBody, PageQuery]) -> Table:
    async with call.database.connection() as connection:
        return await invoices_of(connection, await _own(connection, call), call.query)


operations = [
    subscribe_to_product,
    show_subscribe_form,
    list_my_subscriptions,
    show_my_subscription,
    list_my_subscription_actions,
    cancel_mine,
    reactivate_mine,
    change_mine,
    preview_my_change,
    show_my_change_form,
    list_my_subscription_invoices,
]
