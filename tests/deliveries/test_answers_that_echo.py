"""Receivers that answer with what they were sent, as echo services and debugging pages do: no secret is kept of it."""

import pytest
from aiohttp import web

from tests.deliveries.telling import Telling
from tests.fakes.receiver import Mode, Receiver


class Echo(Receiver):
    """Answers with the headers and the address of the request, after some words."""

    words = ""

    async def _answer(self, request: web.Request, _mode: Mode) -> web.StreamResponse:
        headers = "\n".join(f"{name}: {value}" for name, value in request.headers.items())
        return web.Response(status=500, text=f"{self.words}{request.raw_path}\n{headers}")


# Also where the first 1024 bytes end within the secret.
@pytest.mark.parametrize("words", ["", "w" * 700, *("w" * count for count in range(740, 800, 7))], ids=len)
async def test_no_secret_is_kept_of_an_answer(shop: Telling, words: str) -> None:
    """Seen failing with the answer kept as it came (A7: a secret is shown once)."""
    async with Echo() as receiver:
        receiver.words = words
        subscribed = await shop.subscribe(f"{receiver.url}?token=open-sesame-123456", secret="S" * 20 + "t" * 20)
        await shop.tell()
    delivery = await shop.delivery()
    shown = await shop.ledger.staff.get(f"/api/webhooks/deliveries/{delivery['id']}/attempts")
    kept = await shop.ledger.value("select answer from webhook_attempt")
    assert kept.startswith(words)
    assert subscribed.secret == "S" * 20 + "t" * 20
    assert len(kept) <= 1024
    for text in (kept, str(shown.content)):
        assert "SSSS" not in text
        assert "open-sesame" not in text
