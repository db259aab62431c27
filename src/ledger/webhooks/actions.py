"""What can be done with subscribers. Each function is one change in one transaction, but for deleting a large one."""

import time

import msgspec
from yarl import URL

from ledger.crypto import SealBroken, Vault
from ledger.database.transaction import AuditEntry, Database, Tx
from ledger.errors import BadRequest, FieldError, Unavailable
from ledger.identity import Caller
from ledger.webhooks.rules import EVERY_EVENT, EventsUnknown, SubscriberWish, check_header_secret
from ledger.webhooks.sealing import seal
from ledger.webhooks.signing import PREVIOUS_SECRET_KEPT, new_header_secret, new_signing_secret
from ledger.webhooks.store import (
    HEADER_SECRET,
    PREVIOUS_SIGNING_SECRET,
    SIGNING_SECRET,
    SUBSCRIBERS_MAX,
    TABLE,
    Subscriber,
    count_deliveries,
    count_subscribers,
    delete_some_deliveries,
    delete_subscriber,
    insert_subscriber,
    lock_subscriber,
    update_subscriber,
)

# Deliveries that go with their subscriber in one transaction; removing more at once would hold it too long.
DELETED_AT_ONCE = 5_000
# A request may not take longer than 8 s.
DELETING_S = 5.0


class TooManySubscribers(BadRequest):
    """There are as many subscribers as every event is looked at for (400)."""


class IssuedSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """A subscriber's new secrets, to be shown this once."""

    subscriber: Subscriber
    header: str
    signing: str

    def __repr__(self) -> str:
        return "IssuedSecrets(********)"


async def create_subscriber(tx: Tx, *, vault: Vault, wish: SubscriberWish) -> IssuedSecrets:
    """Adds a subscriber, active at once. Its address was checked before (`check_destination`).

    Raises `SecretRefused`, `TooManySubscribers`.
    """
    assert wish.name is not None
    assert wish.url is not None
    header = wish.header_secret or new_header_secret()
    check_header_secret(header)
    signing = new_signing_secret()
    if await count_subscribers(tx.connection) >= SUBSCRIBERS_MAX:
        raise TooManySubscribers(
            f"There are {SUBSCRIBERS_MAX} subscribers already; delete one that is not needed any more"
        )
    subscriber_id = tx.ids.new()
    subscriber = Subscriber(
        id=subscriber_id,
        name=wish.name,
        url=wish.url,
        events=wish.events or (EVERY_EVENT,),
        is_active=True,
        header_secret_sealed=seal(vault, header, subscriber_id=subscriber_id, column=HEADER_SECRET),
        sends_header_secret=wish.sends_header_secret is not False,
        signing_secret_sealed=seal(vault, signing, subscriber_id=subscriber_id, column=SIGNING_SECRET),
        created_at=tx.now,
        updated_at=tx.now,
    )
    await insert_subscriber(tx.connection, subscriber=subscriber)
    tx.audit(_entry("subscriber.created", subscriber, host=host_of(subscriber), events=", ".join(subscriber.events)))
    return IssuedSecrets(subscriber=subscriber, header=header, signing=signing)


async def change_subscriber(tx: Tx, *, vault: Vault, subscriber_id: str, wish: SubscriberWish) -> None:
    """Stores what is wished differently. A new address was checked before, and begins without failures.

    Raises `NotFound`, `SecretRefused`, `EventsUnknown` when no event is left.
    """
    if wish.events == ():
        raise EventsUnknown(
            "Name at least one event, or * for all of them", fields=[FieldError("events", "must name at least one")]
        )
    before = await lock_subscriber(tx.connection, subscriber_id=subscriber_id)
    after = msgspec.structs.replace(
        before,
        name=before.name if wish.name is None else wish.name,
        url=before.url if wish.url is None else wish.url,
        events=before.events if wish.events is None else wish.events,
        sends_header_secret=(
            before.sends_header_secret if wish.sends_header_secret is None else wish.sends_header_secret
        ),
    )
    if wish.header_secret is not None:
        check_header_secret(wish.header_secret)
        sealed = seal(vault, wish.header_secret, subscriber_id=before.id, column=HEADER_SECRET)
        after = msgspec.structs.replace(after, header_secret_sealed=sealed)
    if after.url != before.url:
        after = msgspec.structs.replace(after, failing_since=None)
    changed = [name for name in _CHANGEABLE if getattr(after, name) != getattr(before, name)]
    if not changed:
        return
    await update_subscriber(tx.connection, subscriber=msgspec.structs.replace(after, updated_at=tx.now))
    details = {"changed": ", ".join(_CHANGEABLE[name] for name in changed)}
    if after.url != before.url:
        details["host"] = host_of(after)
    if after.events != before.events:
        details["events"] = ", ".join(after.events)
    tx.audit(_entry("subscriber.updated", after, **details))


# Which fields changed is worth keeping; an address may hold a secret, so of it only the host is.
_CHANGEABLE = {
    "name": "name",
    "url": "url",
    "events": "events",
    "sends_header_secret": "sendsHeaderSecret",
    "header_secret_sealed": "secret",
}


async def toggle_subscriber(tx: Tx, *, subscriber_id: str) -> None:
    """Disables an active subscriber, or enables a disabled one, which begins without failures. Raises `NotFound`."""
    before = await lock_subscriber(tx.connection, subscriber_id=subscriber_id)
    if before.is_active:
        await _disable(tx, before, reason=None)
        return
    after = msgspec.structs.replace(before, is_active=True, failing_since=None, disabled_reason=None, updated_at=tx.now)
    await update_subscriber(tx.connection, subscriber=after)
    tx.audit(_entry("subscriber.enabled", after))


async def disable_subscriber(tx: Tx, *, subscriber_id: str, reason: str) -> bool:
    """Disables a subscriber that nothing can be delivered to; `reason` is a sentence for staff, without secrets.

    Tells whether it was still active. Raises `NotFound`.
    """
    before = await lock_subscriber(tx.connection, subscriber_id=subscriber_id)
    if not before.is_active:
        return False
    await _disable(tx, before, reason=reason)
    return True


async def _disable(tx: Tx, before: Subscriber, *, reason: str | None) -> None:
    after = msgspec.structs.replace(before, is_active=False, disabled_reason=reason, updated_at=tx.now)
    await update_subscriber(tx.connection, subscriber=after)
    tx.audit(_entry("subscriber.disabled", after, **({} if reason is None else {"reason": reason})))


async def rotate_secrets(tx: Tx, *, vault: Vault, subscriber_id: str) -> IssuedSecrets:
    """Gives a subscriber new secrets. The signing secret before signs as well for 24 hours; the header's is replaced.

    Raises `NotFound`.
    """
    before = await lock_subscriber(tx.connection, subscriber_id=subscriber_id)
    header, signing = new_header_secret(), new_signing_secret()
    previous = _reseal_as_previous(vault, before)
    after = msgspec.structs.replace(
        before,
        header_secret_sealed=seal(vault, header, subscriber_id=before.id, column=HEADER_SECRET),
        signing_secret_sealed=seal(vault, signing, subscriber_id=before.id, column=SIGNING_SECRET),
        previous_signing_secret_sealed=previous,
        previous_signing_until=None if previous is None else tx.now + PREVIOUS_SECRET_KEPT,
        updated_at=tx.now,
    )
    await update_subscriber(tx.connection, subscriber=after)
    tx.audit(_entry("subscriber.secret_rotated", after))
    return IssuedSecrets(subscriber=after, header=header, signing=signing)


def _reseal_as_previous(vault: Vault, before: Subscriber) -> bytes | None:
    """The present signing secret, sealed for the other column; None when it cannot be opened: rotating heals that."""
    try:
        secret = vault.open(before.signing_secret_sealed, table=TABLE, row=before.id, column=SIGNING_SECRET)
    except SealBroken:
        return None
    return seal(vault, secret, subscriber_id=before.id, column=PREVIOUS_SIGNING_SECRET)


async def remove_subscriber(database: Database, *, caller: Caller, subscriber_id: str) -> None:
    """Deletes a subscriber with its deliveries and their attempts.

    One with very many is disabled first and emptied in small transactions. Raises `NotFound`, and `Unavailable` when
    that takes longer than a request may; then it is asked for again.
    """
    deadline_s = time.monotonic() + DELETING_S
    while not await _remove_if_small(database, caller=caller, subscriber_id=subscriber_id):
        async with database.atomically() as connection:
            # First, as everybody who locks both does.
            await lock_subscriber(connection, subscriber_id=subscriber_id)
            await delete_some_deliveries(connection, subscriber_id=subscriber_id, limit=DELETED_AT_ONCE)
        if time.monotonic() > deadline_s:
            raise Unavailable(
                "This subscriber has very many deliveries. It is disabled, and part of them is deleted; "
                "delete it again to go on",
                retry_after_s=1,
            )


async def _remove_if_small(database: Database, *, caller: Caller, subscriber_id: str) -> bool:
    async with database.transaction_of(caller) as tx:
        subscriber = await lock_subscriber(tx.connection, subscriber_id=subscriber_id)
        found = await count_deliveries(tx.connection, subscriber_id=subscriber_id, limit=DELETED_AT_ONCE + 1)
        if found > DELETED_AT_ONCE:
            if subscriber.is_active:
                await _disable(tx, subscriber, reason="It is being deleted.")
            return False
        await delete_subscriber(tx.connection, subscriber_id=subscriber_id)
        tx.audit(_entry("subscriber.deleted", subscriber, host=host_of(subscriber)))
    return True


def host_of(subscriber: Subscriber) -> str:
    """The host deliveries go to: what may be told of an address outside of staff's pages."""
    return URL(subscriber.url).host or ""


def _entry(action: str, subscriber: Subscriber, **details: str) -> AuditEntry:
    return AuditEntry(action=action, entity_type="subscriber", entity_id=subscriber.id, details=details or None)
