"""A6, A7: what does not come from Stripe is refused, and leaves nothing."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator

import aiohttp

from tests.fakes.stripe import WEBHOOK_SECRET
from tests.guarantees.scale import scaled, seeded
from tests.subscriptions.club import Club, Event

FORGED = 10_000
AT_ONCE = 64


def forgeries(club: Club, rng: random.Random, event: Event, count: int) -> Iterator[tuple[bytes, dict[str, str]]]:
    """Events that look like Stripe's, and are not."""
    stripe = club.stripe
    for number in range(count):
        body, headers = stripe.sign(event)
        genuine = headers["stripe-signature"]
        kind = number % 10
        if kind == 0:
            yield stripe.sign(event, f"whsec_{rng.randbytes(12).hex()}")
        elif kind == 1:
            yield stripe.sign(event, timestamp=1_700_000_000 + rng.randrange(10**7))
        elif kind == 2:
            place = rng.randrange(len(body))
            yield body[:place] + bytes([body[place] ^ (1 << rng.randrange(8))]) + body[place + 1 :], headers
        elif kind == 3:
            place = genuine.index("v1=") + 3 + rng.randrange(64)
            digit = "0" if genuine[place] != "0" else "1"
            yield body, {"stripe-signature": genuine[:place] + digit + genuine[place + 1 :]}
        elif kind == 4:
            yield body, {}
        elif kind == 5:
            yield (
                body,
                {"stripe-signature": rng.choice(["", "v1=", "t=1,v1=00", "t=,v1=", genuine[::-1], "ü", "," * 99])},
            )
        elif kind == 6:
            # The scheme of test signatures is not to be accepted in place of the real one.
            yield body, {"stripe-signature": genuine.replace("v1=", "v0=")}
        elif kind == 7:
            # Another event under a signature that was genuine once.
            other = json.dumps({**event, "id": f"evt_forged{number}", "type": "invoice.paid"}).encode()
            yield other, headers
        elif kind == 8:
            # Signed as it should be, and of the other mode.
            yield stripe.sign({**event, "id": f"evt_live{number}", "livemode": True})
        else:
            text = rng.choice(["", "null", "[]", "{}", '"event"', "{" * 500, json.dumps({"id": 7}), "\x00"])
            yield _signed_text(club, text)


def _signed_text(club: Club, text: str) -> tuple[bytes, dict[str, str]]:
    import stripe

    signature = stripe.WebhookSignature.generate_signature_header(text, WEBHOOK_SECRET, None)
    return text.encode(), {"stripe-signature": signature}


async def test_a6_forged_stale_resigned_and_mutated_events_leave_nothing(club: Club) -> None:
    """Seen failing with the tolerance taken out (stale ones), and without the check of `livemode` (kind 8)."""
    rng = seeded()
    silver = await club.add_product("Silver", 1000)
    subscription_id, session_id = await club.subscribe(silver)
    event = club.stripe.pay(session_id)
    statuses: Counter[int] = Counter()
    slots = asyncio.Semaphore(AT_ONCE)
    url = f"{club.ledger.url}/api/webhooks/stripe"

    async def send(session: aiohttp.ClientSession, at: str, body: bytes, headers: dict[str, str]) -> None:
        async with slots, session.post(at, data=body, headers=headers) as answer:
            statuses[answer.status] += 1
            await answer.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE)) as session:
        await asyncio.gather(
            *(
                send(session, url if number % 2 else f"{url}/{club.provider_id}", body, headers)
                for number, (body, headers) in enumerate(forgeries(club, rng, event, scaled(FORGED)))
            )
        )
    assert statuses == {400: scaled(FORGED)}
    assert await club.ledger.value("select count(*) from inbound_event") == 0
    assert await club.status(subscription_id) == "incomplete"
    await club.hear()
    assert await club.status(subscription_id) == "active"
