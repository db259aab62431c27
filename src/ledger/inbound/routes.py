"""`/api/webhooks/stripe`: what providers send. Proven by its signature and nothing else."""

from contextlib import suppress
from typing import Literal

import msgspec

from ledger.errors import NotFound
from ledger.ids import is_id
from ledger.inbound.actions import receive_event
from ledger.inbound.limits import ForgeryLimit
from ledger.providers.connections import Connected, Connections, SettingsUnreadable
from ledger.providers.contract import SignatureWrong
from ledger.providers.store import list_connections
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import PUBLIC, acts


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """The event is saved; it is applied in a moment."""

    received: Literal[True] = True


_KIND = "stripe"
_DESCRIPTION = (
    "Proven by the `Stripe-Signature` header over the raw body. Sending an event again changes nothing. "
    "A wrong, stale or missing signature is 400, and nothing is stored. Who keeps sending such is answered 429."
)


@acts(
    "POST",
    "/api/webhooks/stripe",
    "Receive an event from Stripe",
    callers=PUBLIC,
    answer=Received,
    errors=(400, 413, 429, 503),
    description=_DESCRIPTION,
)
async def receive_stripe_event(call: Call[NoBody, NoQuery]) -> Received:
    with call.services.get(ForgeryLimit).watching(call.address):
        return await _receive(call, await _configured(call))


@acts(
    "POST",
    "/api/webhooks/stripe/{id}",
    "Receive an event from one Stripe account",
    callers=PUBLIC,
    answer=Received,
    errors=(400, 404, 413, 429, 503),
    description=_DESCRIPTION,
)
async def receive_event_of_account(call: Call[NoBody, NoQuery]) -> Received:
    connection_id = call.path["id"]
    with call.services.get(ForgeryLimit).watching(call.address):
        found = [each for each in await _configured(call) if each.stored.id == connection_id.lower()]
        if not is_id(connection_id) or not found:
            raise NotFound("Provider")
        return await _receive(call, found)


async def _configured(call: Call[NoBody, NoQuery]) -> list[Connected]:
    """Every Stripe connection that has settings, active or not: events for old payments keep coming."""
    connections = call.services.get(Connections)
    async with call.database.connection() as connection:
        stored = await list_connections(connection)
    configured = []
    for each in stored:
        if each.type == _KIND and each.settings_sealed is not None:
            # One that cannot be opened must not keep the others' events out.
            with suppress(SettingsUnreadable):
                configured.append(connections.connect(each))
    return configured


async def _receive(call: Call[NoBody, NoQuery], candidates: list[Connected]) -> Received:
    if not candidates:
        raise SignatureWrong("No Stripe account is configured")
    await receive_event(call.database, candidates, body=call.raw_body, headers=call.headers)
    return Received()


operations = [receive_stripe_event, receive_event_of_account]
