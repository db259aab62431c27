"""`/api/webhooks/subscribers`: staff says which programs are told of what happens."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from msgspec import Meta

from ledger.database.transaction import Tx
from ledger.errors import BadRequest, FieldError
from ledger.web.bodies import LINE_PATTERN, Body, NoBody
from ledger.web.call import BodyT, Call, NoQuery
from ledger.web.idempotency import claim_keys, store_answers
from ledger.web.operation import STAFF, Reply, acts, encode, reads, writes
from ledger.web.paging import PageQuery, read_cursor
from ledger.web.shapes import Actions, Detail, Done, Form, Shape, Table
from ledger.webhooks.actions import (
    IssuedSecrets,
    change_subscriber,
    create_subscriber,
    remove_subscriber,
    rotate_secrets,
    toggle_subscriber,
)
from ledger.webhooks.addresses import URL_MAX, check_destination
from ledger.webhooks.name_lookup import NameLookup
from ledger.webhooks.rules import NAME_MAX, REQUIRED_SENTENCE, SubscriberWish, read_events
from ledger.webhooks.store import find_last_delivery, get_subscriber, list_subscribers
from ledger.webhooks.views import (
    SUBSCRIBER_COLUMNS,
    edit_subscriber_fields,
    new_subscriber_fields,
    subscriber_actions,
    subscriber_fields,
    subscriber_row,
)

THING = "Subscriber"
SECRET_MASK = "********"  # noqa: S105 - what stands for a secret that shall stay as it is

# What does not fit further is refused by the rules, in better words.
Name = Annotated[str, Meta(min_length=1, max_length=NAME_MAX, pattern=LINE_PATTERN)]
Url = Annotated[str, Meta(min_length=1, max_length=URL_MAX)]
HeaderSecret = Annotated[str, Meta(max_length=1_000)]
EventNames = (
    Annotated[str, Meta(max_length=2_000)] | Annotated[list[Annotated[str, Meta(max_length=100)]], Meta(max_length=100)]
)


class NewSubscriber(Body, frozen=True, kw_only=True):
    """Who shall be told of which events, and where. `events` are names separated by commas, or `*` (the default)."""

    missing_sentence = REQUIRED_SENTENCE

    name: Name
    url: Url
    secret: HeaderSecret | None = None
    events: EventNames | None = None
    sends_header_secret: bool | None = None


class SubscriberChange(Body, frozen=True, kw_only=True):
    """What can be changed; what is left out stays, and so does a masked secret."""

    name: Name | None = None
    url: Url | None = None
    secret: HeaderSecret | None = None
    events: EventNames | None = None
    sends_header_secret: bool | None = None


class SecretsShown(Shape, frozen=True, kw_only=True):
    """A subscriber's new secrets, shown this once: an equal request is answered without them.

    `secret` is the published header's, `signingSecret` signs; `clientSecret` is the same, since the Dashboard shows it.
    """

    # Never left out of the answer, although it is always the same.
    success: bool
    id: str
    secret: str | None = None
    signing_secret: str | None = None
    client_secret: str | None = None
    message: str
    redirect: str


class Removed(Shape, frozen=True, kw_only=True):
    """It is deleted; the Dashboard goes back to the list."""

    success: bool
    redirect: str


def _names(call: Call[BodyT, NoQuery]) -> NameLookup:
    return call.services.get(NameLookup)


def _wish(body: NewSubscriber | SubscriberChange) -> SubscriberWish:
    name = None if body.name is None else body.name.strip()
    if name == "":
        raise BadRequest(REQUIRED_SENTENCE, fields=[FieldError("name", "must not be empty")])
    return SubscriberWish(
        name=name,
        url=None if body.url is None else body.url.strip(),
        # Forms that were shown a mask send it back.
        header_secret=None if body.secret in (None, "", SECRET_MASK) else body.secret,
        events=None if body.events is None else read_events(body.events),
        sends_header_secret=body.sends_header_secret,
    )


@reads(
    "/api/webhooks/subscribers",
    "List the webhook subscribers",
    callers=STAFF,
    answer=Table,
    query=PageQuery,
    errors=(400,),
)
async def list_all_subscribers(call: Call[NoBody, PageQuery]) -> Table:
    async with call.database.connection() as connection:
        page = await list_subscribers(connection, after=read_cursor(call.query.cursor), limit=call.query.limit)
    return Table(
        columns=SUBSCRIBER_COLUMNS,
        rows=[subscriber_row(subscriber) for subscriber in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


@reads("/api/webhooks/subscribers/form", "The form that adds a subscriber", callers=STAFF, answer=Form)
async def new_subscriber_form(_call: Call[NoBody, NoQuery]) -> Form:
    return Form(fields=new_subscriber_fields())


@acts(
    "POST",
    "/api/webhooks/subscribers",
    "Add a webhook subscriber",
    callers=STAFF,
    body=NewSubscriber,
    answer=SecretsShown,
    status=201,
    is_form=True,
    errors=(400, 409, 422),
    description="It is told at once. Both secrets are in this answer only; `secret` is made when none is given. "
    "The URL must be https and lead to a public address, unless WEBHOOK_ALLOWED_NETWORKS lists its network.",
)
async def add_subscriber(call: Call[NewSubscriber, NoQuery]) -> Reply:
    wish = _wish(call.body)
    assert wish.url is not None
    # Asked before the transaction: a name server may take its time.
    await check_destination(wish.url, allowed=call.services.settings.webhook_allowed_networks, names=_names(call))

    async def create(tx: Tx) -> SecretsShown:
        issued = await create_subscriber(tx, vault=call.services.vault, wish=wish)
        return _shown(
            issued,
            redirect=f"/{call.services.settings.slug}/webhooks/subscribers/{issued.subscriber.id}",
            message=f"Copy both secrets now: they are not shown again. `secret` {_header_use(issued)}. "
            "`clientSecret` is the signing secret, which webhook-signature is verified with.",
        )

    return await _showing_once(call, create, status=201)


@reads("/api/webhooks/subscribers/{id}", "Show a subscriber", callers=STAFF, answer=Detail, errors=(404,))
async def show_subscriber(call: Call[NoBody, NoQuery]) -> Detail:
    async with call.database.connection() as connection:
        subscriber = await get_subscriber(connection, subscriber_id=call.id_of(THING))
        last = await find_last_delivery(connection, subscriber_id=subscriber.id)
    return Detail(fields=subscriber_fields(subscriber, last=last))


@reads(
    "/api/webhooks/subscribers/{id}/form",
    "A subscriber as a form with true values",
    callers=STAFF,
    answer=Form,
    errors=(404,),
)
async def subscriber_form(call: Call[NoBody, NoQuery]) -> Form:
    async with call.database.connection() as connection:
        subscriber = await get_subscriber(connection, subscriber_id=call.id_of(THING))
    return Form(fields=edit_subscriber_fields(subscriber))


@acts(
    "PUT",
    "/api/webhooks/subscribers/{id}",
    "Change a webhook subscriber",
    callers=STAFF,
    body=SubscriberChange,
    answer=Done,
    is_form=True,
    errors=(400, 404),
    description="A new `secret` for the header counts from the next delivery on. The signing secret is rotated.",
)
async def edit_subscriber(call: Call[SubscriberChange, NoQuery]) -> Done:
    wish = _wish(call.body)
    async with call.database.connection() as connection:
        before = await get_subscriber(connection, subscriber_id=call.id_of(THING))
    if wish.url is not None and wish.url != before.url:
        await check_destination(wish.url, allowed=call.services.settings.webhook_allowed_networks, names=_names(call))
    async with call.database.transaction_of(call.caller) as tx:
        await change_subscriber(tx, vault=call.services.vault, subscriber_id=before.id, wish=wish)
    return Done()


@acts(
    "DELETE",
    "/api/webhooks/subscribers/{id}",
    "Delete a webhook subscriber",
    callers=STAFF,
    answer=Removed,
    errors=(404, 503),
    description="The list of its deliveries goes with it. One with very many may take several requests (503).",
)
async def delete_one_subscriber(call: Call[NoBody, NoQuery]) -> Removed:
    await remove_subscriber(call.database, caller=call.caller, subscriber_id=call.id_of(THING))
    return Removed(success=True, redirect="/webhooks/subscribers")


@reads(
    "/api/webhooks/subscribers/{id}/actions",
    "List what staff can do with a subscriber",
    callers=STAFF,
    answer=Actions,
    errors=(404,),
)
async def list_subscriber_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        subscriber = await get_subscriber(connection, subscriber_id=call.id_of(THING))
    return Actions(actions=subscriber_actions(subscriber))


@writes(
    "POST",
    "/api/webhooks/subscribers/{id}/toggle",
    "Disable a subscriber, or enable it again",
    callers=STAFF,
    answer=Done,
    errors=(404, 409, 422),
)
async def toggle(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await toggle_subscriber(tx, subscriber_id=call.id_of(THING))
    return Done()


@acts(
    "POST",
    "/api/webhooks/subscribers/{id}/rotate-secret",
    "Give a subscriber new secrets",
    callers=STAFF,
    answer=SecretsShown,
    errors=(404, 409, 422),
    description="The signing secret before stays valid for 24 hours; the header's secret changes at once. "
    "Both new ones are in this answer only.",
)
async def rotate_secret(call: Call[NoBody, NoQuery]) -> Reply:
    async def rotate(tx: Tx) -> SecretsShown:
        issued = await rotate_secrets(tx, vault=call.services.vault, subscriber_id=call.id_of(THING))
        return _shown(
            issued,
            # An action's redirect stays inside the service by itself.
            redirect=f"/webhooks/subscribers/{issued.subscriber.id}",
            # A button's answer shows `clientSecret` and this message, and not `secret`.
            message="Copy both secrets now: they are not shown again. `clientSecret` is the new signing secret; the "
            f"old one is valid for 24 hours more. The header's secret {_header_use(issued)}: {issued.header}",
        )

    return await _showing_once(call, rotate, status=200)


def _header_use(issued: IssuedSecrets) -> str:
    if issued.subscriber.sends_header_secret:
        return "is sent in the header X-Webhook-Secret"
    return "would be sent in the header X-Webhook-Secret, which is switched off"


def _shown(issued: IssuedSecrets, *, message: str, redirect: str) -> SecretsShown:
    return SecretsShown(
        success=True,
        id=issued.subscriber.id,
        secret=issued.header,
        signing_secret=issued.signing,
        client_secret=issued.signing,
        message=message,
        redirect=redirect,
    )


async def _showing_once(
    call: Call[BodyT, NoQuery], act: Callable[[Tx], Awaitable[SecretsShown]], *, status: int
) -> Reply:
    """Carries `act` out in one transaction. Under an idempotency key, the answer is kept without its secrets.

    What is kept there is not sealed, and is given again for 30 days.
    """
    async with call.database.transaction_of(call.caller) as tx:
        if call.claim is not None:
            verdict = (await claim_keys(tx.connection, claims=[(tx.actor, call.claim)], now=tx.now))[0]
            if verdict is not None:
                raise verdict
        shown = await act(tx)
        if call.claim is not None:
            kept = SecretsShown(success=True, id=shown.id, message=_SHOWN_BEFORE, redirect=shown.redirect)
            await store_answers(tx.connection, answers=[(tx.actor, call.claim, status, encode(kept).content)])
    return encode(shown)


_SHOWN_BEFORE = (
    "This was done before, and the secrets were shown then. If that answer did not arrive, rotate the secrets."
)

operations = [
    list_all_subscribers,
    new_subscriber_form,
    add_subscriber,
    show_subscriber,
    subscriber_form,
    edit_subscriber,
    delete_one_subscriber,
    list_subscriber_actions,
    toggle,
    rotate_secret,
]
