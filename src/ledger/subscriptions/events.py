"""What providers' events mean for subscriptions: the present state is asked for, and paid bills are booked."""

from ledger.database.transaction import Database
from ledger.ids import is_id
from ledger.providers.connections import Connected, Connections
from ledger.providers.contract import PeriodBilled, SubscriptionTouched, UnknownHere
from ledger.settings import Settings
from ledger.subscriptions.booking import book_period
from ledger.subscriptions.settling import Hint, look_at_subscription
from ledger.subscriptions.store import Subscription, find_subscription, find_subscription_by_remote_id


async def apply_subscription_event(
    database: Database,
    connections: Connections,
    settings: Settings,
    connected: Connected,
    meaning: SubscriptionTouched | PeriodBilled,
) -> bool:
    """Applies an event; returns False when it is about none of our subscriptions. Doing it twice changes nothing.

    Raises what keeps it from being applied now.
    """
    if isinstance(meaning, PeriodBilled):
        found = await book_period(database, settings, connected, period_remote_id=meaning.remote_id)
        hint = Hint(remote_id=meaning.subscription_remote_id)
    else:
        found = await _find(database, connected, meaning)
        hint = Hint(remote_id=meaning.remote_id, checkout_remote_id=meaning.checkout_remote_id)
    if found is None:
        return False
    await look_at_subscription(database, connections, subscription_id=found.id, hint=hint)
    return True


async def _find(database: Database, connected: Connected, meaning: SubscriptionTouched) -> Subscription | None:
    async with database.connection() as connection:
        if meaning.remote_id is not None:
            found = await find_subscription_by_remote_id(
                connection, connection_id=connected.stored.id, remote_id=meaning.remote_id
            )
            if found is not None:
                return found
        if meaning.intent_id is None or not is_id(meaning.intent_id):
            return None
        found = await find_subscription(connection, subscription_id=meaning.intent_id)
    if found is None:
        raise UnknownHere(f"There is no subscription {meaning.intent_id} here that this event could belong to")
    return found
