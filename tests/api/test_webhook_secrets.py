"""A subscriber's two secrets: shown once (A7), sealed (A7), rotated with a day of both being valid (D5)."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from ledger.check import check_secrets
from ledger.crypto import Vault
from ledger.rotation import list_unreadable_secrets, rotate_key
from ledger.webhooks.sealing import SecretsUnreadable, open_secrets
from ledger.webhooks.signing import signature_header, timestamp_header
from ledger.webhooks.store import delete_expired_secrets
from tests.api.shown import cells
from tests.api.subscribers import OWN_SECRET, PATH, URL, add, audited, stored
from tests.installation import KEY, Installation


async def test_a7_secrets_are_shown_once_and_nowhere_else(
    ledger: Installation, capfd: pytest.CaptureFixture[str]
) -> None:
    added = (await add(ledger, url=f"{URL}?key=secret-in-the-address")).body
    subscriber_id = added["id"]
    rotated = (await ledger.staff.post(f"{PATH}/{subscriber_id}/rotate-secret")).body
    await ledger.staff.put(f"{PATH}/{subscriber_id}", {"secret": OWN_SECRET})
    secrets = [added["secret"], added["signingSecret"], rotated["secret"], rotated["signingSecret"], OWN_SECRET]
    assert len(set(secrets)) == 5

    for path in ("", f"/{subscriber_id}", f"/{subscriber_id}/form", f"/{subscriber_id}/actions"):
        content = (await ledger.staff.get(f"{PATH}{path}")).content.decode()
        assert not [secret for secret in secrets if secret in content], path
    # The list shows an address without what may be a key in it.
    assert b"secret-in-the-address" not in (await ledger.staff.get(PATH)).content
    audit = (await ledger.staff.get("/api/audit")).content.decode() + str(await audited(ledger))
    logged = "".join(capfd.readouterr())
    for secret in (*secrets, "secret-in-the-address"):
        assert secret not in audit
        assert secret not in logged

    dumped = str(await ledger.sql("select t::text from webhook_subscriber t"))
    for secret in secrets:
        assert secret not in dumped
        assert secret.encode().hex() not in dumped


async def test_a7_an_equal_request_is_answered_without_the_secrets(ledger: Installation) -> None:
    """What is kept under an idempotency key is not sealed. Seen failing with the answer kept as it was given."""
    body = {"name": "Shop", "url": URL}
    first = await ledger.staff.post(PATH, body, key="add-1")
    again = await ledger.staff.post(PATH, body, key="add-1")
    assert (first.status, again.status, again.headers["Idempotent-Replayed"]) == (201, 201, "true")
    assert again.body["id"] == first.body["id"]
    assert set(again.body) == {"success", "id", "message", "redirect"}
    assert "rotate the secrets" in again.body["message"]
    assert await ledger.value("select count(*) from webhook_subscriber") == 1
    assert (await ledger.staff.post(PATH, body | {"name": "Other"}, key="add-1")).status == 422

    rotate = f"{PATH}/{first.body['id']}/rotate-secret"
    rotated = await ledger.staff.post(rotate, key="rotate-1")
    replayed = await ledger.staff.post(rotate, key="rotate-1")
    assert "secret" not in replayed.body
    subscriber = await stored(ledger, first.body["id"])
    opened = open_secrets(ledger.services.vault, subscriber, now=ledger.clock.now())
    assert opened.signing == (rotated.body["signingSecret"], first.body["signingSecret"])
    kept = str(await ledger.sql("select convert_from(answer, 'utf8') from idempotency_record"))
    for answer in (first, rotated):
        assert answer.body["secret"] not in kept
        assert answer.body["signingSecret"] not in kept


async def test_d5_rotation_keeps_the_old_signing_secret_for_24_hours(ledger: Installation) -> None:
    added = (await add(ledger, secret=OWN_SECRET)).body
    ledger.clock.move(timedelta(hours=1))
    answer = await ledger.staff.post(f"{PATH}/{added['id']}/rotate-secret")
    rotated = answer.body
    assert answer.status == 200
    assert set(rotated) == set(added)
    assert rotated["redirect"] == f"/webhooks/subscribers/{added['id']}"
    assert rotated["clientSecret"] == rotated["signingSecret"] != added["signingSecret"]
    assert rotated["secret"] != OWN_SECRET
    # A button shows `clientSecret` and the message only.
    assert rotated["secret"] in rotated["message"]

    subscriber = await stored(ledger, added["id"])
    rotated_at = ledger.clock.now()

    def verifies(secret: str, *, after: timedelta) -> bool:
        """Whether a delivery that is sent then verifies; the library's own clock is the real one."""
        opened = open_secrets(ledger.services.vault, subscriber, now=rotated_at + after)
        assert opened.header == rotated["secret"]
        sent_at = datetime.now(UTC)
        headers = {
            "webhook-id": "m",
            "webhook-timestamp": timestamp_header(sent_at),
            "webhook-signature": signature_header(
                secrets=opened.signing, message_id="m", timestamp=sent_at, body=b'{"a": 1}'
            ),
        }
        try:
            Webhook(secret).verify(b'{"a": 1}', headers)
        except WebhookVerificationError:
            return False
        return True

    almost, day = timedelta(hours=24) - timedelta(seconds=1), timedelta(hours=24)
    for after, old_is_valid in ((timedelta(0), True), (almost, True), (day, False)):
        assert verifies(rotated["signingSecret"], after=after)
        assert verifies(added["signingSecret"], after=after) is old_is_valid
    # The header's secret does not sign.
    assert not verifies(base64.b64encode(rotated["secret"].encode()).decode(), after=timedelta(0))
    assert (await audited(ledger))[-1] == ("subscriber.secret_rotated", None)


async def test_an_old_signing_secret_is_forgotten_when_its_time_is_up(ledger: Installation) -> None:
    subscriber_id = (await add(ledger)).body["id"]
    await ledger.staff.post(f"{PATH}/{subscriber_id}/rotate-secret")
    async with ledger.services.database.connection() as connection:
        assert await delete_expired_secrets(connection, now=ledger.clock.now()) == 0
        ledger.clock.move(timedelta(hours=24))
        assert await delete_expired_secrets(connection, now=ledger.clock.now()) == 1
    assert (await stored(ledger, subscriber_id)).previous_signing_secret_sealed is None


async def test_a7_a_new_key_opens_all_three_secrets_after_rotate_key(ledger: Installation) -> None:
    added = (await add(ledger, secret=OWN_SECRET)).body
    rotated = (await ledger.staff.post(f"{PATH}/{added['id']}/rotate-secret")).body
    new_key = bytes.fromhex("a7" * 32)
    assert await rotate_key(ledger.services.database, Vault(new_key, bytes.fromhex(KEY))) == 3

    opened = open_secrets(Vault(new_key), await stored(ledger, added["id"]), now=ledger.clock.now())
    assert opened.header == rotated["secret"]
    assert opened.signing == (rotated["signingSecret"], added["signingSecret"])
    assert added["signingSecret"] not in repr(opened)


async def test_ledger_check_names_secrets_that_cannot_be_opened(ledger: Installation) -> None:
    ids = [(await add(ledger)).body["id"] for _ in range(7)]
    await ledger.staff.post(f"{PATH}/{ids[0]}/rotate-secret")
    async with ledger.services.database.connection() as connection:
        assert await check_secrets(connection, ledger.settings) == []
        await ledger.sql("update webhook_subscriber set previous_signing_secret_sealed = header_secret_sealed")
        problems = await check_secrets(connection, ledger.settings)
        assert len(problems) == 1
        assert f"webhook_subscriber.previous_signing_secret_sealed of {ids[0]}" in problems[0]
        assert problems[0].count("webhook_subscriber") == 5
        assert "and others" in problems[0]
        assert len(await list_unreadable_secrets(connection, Vault(bytes.fromhex("a7" * 32)))) == 3 * 7


@pytest.mark.parametrize("column", ["header_secret_sealed", "signing_secret_sealed", "previous_signing_secret_sealed"])
async def test_a7_a_swap_between_rows_and_between_columns_is_detected_and_rotating_heals_it(
    ledger: Installation, column: str
) -> None:
    """Seen failing with the row, and with the column, left out of the associated data."""
    ids = [(await add(ledger)).body["id"] for _ in range(2)]
    for subscriber_id in ids:
        await ledger.staff.post(f"{PATH}/{subscriber_id}/rotate-secret")
    other = "signing_secret_sealed" if column == "header_secret_sealed" else "header_secret_sealed"
    before = [await stored(ledger, subscriber_id) for subscriber_id in ids]
    for swap in (
        f"update webhook_subscriber a set {column} = b.{column} from webhook_subscriber b where a.id <> b.id",
        f"update webhook_subscriber set {column} = {other}",
        f"update webhook_subscriber set {column} = set_byte({column}, 30, get_byte({column}, 30) # 1)",
    ):
        await ledger.sql(swap)
        for subscriber_id in ids:
            with pytest.raises(SecretsUnreadable, match="rotate its secrets"):
                open_secrets(ledger.services.vault, await stored(ledger, subscriber_id), now=ledger.clock.now())
        for each in before:
            await ledger.sql(
                f"update webhook_subscriber set {column} = $2 where id = $1", each.id, getattr(each, column)
            )
    await ledger.sql(f"update webhook_subscriber set {column} = {other}")
    # The page still opens, and new secrets work.
    assert (await ledger.staff.get(f"{PATH}/{ids[0]}")).status == 200
    rotated = (await ledger.staff.post(f"{PATH}/{ids[0]}/rotate-secret")).body
    opened = open_secrets(ledger.services.vault, await stored(ledger, ids[0]), now=ledger.clock.now())
    assert (opened.header, opened.signing[0]) == (rotated["secret"], rotated["signingSecret"])


async def test_changes_are_audited_without_what_may_be_secret(ledger: Installation) -> None:
    subscriber_id = (await add(ledger, url=f"{URL}?key=abc", events="ping")).body["id"]
    await ledger.staff.put(
        f"{PATH}/{subscriber_id}",
        {"url": "https://93.184.216.35/x?key=def", "secret": OWN_SECRET, "events": "invoice.paid", "name": "Camp"},
    )
    await ledger.staff.put(f"{PATH}/{subscriber_id}", {"sendsHeaderSecret": False})
    assert await audited(ledger) == [
        ("subscriber.created", {"host": "93.184.216.34", "events": "ping"}),
        (
            "subscriber.updated",
            {"changed": "name, url, events, secret", "host": "93.184.216.35", "events": "invoice.paid"},
        ),
        ("subscriber.updated", {"changed": "sendsHeaderSecret"}),
    ]
    shown = await ledger.staff.get("/api/audit?entityType=subscriber")
    assert cells(shown, "action") == ["subscriber.updated", "subscriber.updated", "subscriber.created"]
