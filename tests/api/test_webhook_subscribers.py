"""Webhook subscribers: who is told of what, and where; D4 as staff meets it."""

from datetime import timedelta

import msgspec
import pytest

from ledger.events import EVENT_TYPES
from ledger.webhooks import actions
from ledger.webhooks.actions import disable_subscriber
from ledger.webhooks.sealing import open_secrets
from ledger.webhooks.store import get_subscriber, list_wanting, update_failing_since
from tests.api.shown import buttons, cells, columns, labels
from tests.api.subscribers import NOBODY, OWN_SECRET, PATH, URL, add, add_deliveries, audited, resolve_by, stored
from tests.conftest import StartLedger
from tests.hostile_addresses import AMBIGUOUS, DISGUISED, NO_URLS, NOT_PUBLIC
from tests.installation import Installation

# Adding, changing, removing


async def test_a_subscriber_is_added_and_its_secrets_are_shown_this_once(ledger: Installation) -> None:
    answer = await add(ledger, events="invoice.paid, invoice.created")
    body = answer.body
    assert set(body) == {"success", "id", "secret", "signingSecret", "clientSecret", "message", "redirect"}
    assert body["success"] is True
    assert body["redirect"] == f"/ledger/webhooks/subscribers/{body['id']}"
    assert body["signingSecret"] == body["clientSecret"]
    assert body["signingSecret"].startswith("whsec_")
    assert 16 <= len(body["secret"]) <= 255
    assert "X-Webhook-Secret" in body["message"]
    assert "webhook-signature" in body["message"]

    listed = await ledger.staff.get(PATH)
    assert columns(listed) == [
        ("name", "Name"),
        ("url", "URL"),
        ("events", "Events"),
        ("status", "Status"),
        ("createdAt", "Created"),
    ]
    assert listed.body["rows"] == [
        {
            "id": body["id"],
            "name": "Shop",
            "url": URL,
            "events": "invoice.created, invoice.paid",
            "status": "Active",
            "createdAt": "2026-03-15T09:30:00.000Z",
        }
    ]
    shown = await ledger.staff.get(f"{PATH}/{body['id']}")
    assert labels(shown) == [
        ("name", "Name"),
        ("url", "URL"),
        ("events", "Events"),
        ("status", "Status"),
        ("failingSince", "Failing Since"),
        ("disabledReason", "Why Disabled"),
        ("lastDelivery", "Last Delivery"),
        ("lastDeliveryAt", "Last Delivery At"),
        ("sendsHeaderSecret", "Sends X-Webhook-Secret"),
        ("createdAt", "Created"),
    ]
    assert shown.fields()["sendsHeaderSecret"] is True
    assert shown.fields()["lastDelivery"] == "—"


async def test_what_is_left_out_is_what_is_usual(ledger: Installation) -> None:
    added = (await add(ledger, secret="", events="", somethingElse=1)).body
    subscriber = await stored(ledger, added["id"])
    assert (subscriber.events, subscriber.is_active, subscriber.sends_header_secret) == (("*",), True, True)
    assert (await ledger.staff.get(PATH)).body["rows"][0]["events"] == "All"
    own = (await add(ledger, secret=OWN_SECRET, sendsHeaderSecret="false", events=["ping", "*"])).body
    assert own["secret"] == OWN_SECRET
    assert "switched off" in own["message"]
    subscriber = await stored(ledger, own["id"])
    assert (subscriber.events, subscriber.sends_header_secret) == (("*",), False)
    assert open_secrets(ledger.services.vault, subscriber, now=ledger.clock.now()).header is None


async def test_a_subscriber_is_changed_and_what_is_left_out_stays(ledger: Installation) -> None:
    subscriber_id = (await add(ledger, events="invoice.paid")).body["id"]
    before = await stored(ledger, subscriber_id)

    answer = await ledger.staff.put(f"{PATH}/{subscriber_id}", {"name": " Shop in town "})
    assert (answer.status, answer.body) == (200, {"success": True})
    after = await stored(ledger, subscriber_id)
    assert after == msgspec.structs.replace(before, name="Shop in town", updated_at=after.updated_at)

    wish = {
        "url": "https://[2606:2800:220:1::7]/x?key=1",
        "events": "subscription.paid,ping",
        "sendsHeaderSecret": "false",
    }
    assert (await ledger.staff.put(f"{PATH}/{subscriber_id}", wish | {"secret": OWN_SECRET})).status == 200
    after = await stored(ledger, subscriber_id)
    assert (after.url, after.events, after.sends_header_secret) == (wish["url"], ("subscription.paid", "ping"), False)

    # A mask, and the same again, change nothing and are not audited.
    count = len(await audited(ledger))
    assert (await ledger.staff.put(f"{PATH}/{subscriber_id}", wish | {"secret": "********"})).status == 200
    assert await stored(ledger, subscriber_id) == after
    assert len(await audited(ledger)) == count


async def test_the_form_shows_true_values_and_can_be_sent_back(ledger: Installation) -> None:
    subscriber_id = (await add(ledger, events="ping", url=f"{URL}?key=abc")).body["id"]
    fields = (await ledger.staff.get(f"{PATH}/{subscriber_id}/form")).body["fields"]
    values = {field["key"]: field.get("value") for field in fields}
    assert values == {
        "name": "Shop",
        "url": f"{URL}?key=abc",
        "events": "ping",
        "secret": None,
        "sendsHeaderSecret": "true",
    }
    before = await stored(ledger, subscriber_id)
    sent = {key: value for key, value in values.items() if value is not None}
    assert (await ledger.staff.put(f"{PATH}/{subscriber_id}", sent)).status == 200
    assert await stored(ledger, subscriber_id) == before
    empty = (await ledger.staff.get(f"{PATH}/form")).body["fields"]
    assert [field["key"] for field in empty] == ["name", "url", "events", "secret", "sendsHeaderSecret"]


async def test_a_subscriber_is_disabled_and_enabled(ledger: Installation) -> None:
    subscriber_id = (await add(ledger)).body["id"]
    database, at = ledger.services.database, f"{PATH}/{subscriber_id}"
    assert list(buttons(await ledger.staff.get(f"{at}/actions")).items()) == [
        ("Send Test Event", ("POST", f"{at}/test")),
        ("Disable", ("POST", f"{at}/toggle")),
        ("Rotate Secrets", ("POST", f"{at}/rotate-secret")),
        ("Delete", ("DELETE", at)),
    ]

    assert (await ledger.staff.post(f"{at}/toggle")).body == {"success": True}
    assert (await ledger.staff.get(at)).fields()["status"] == "Disabled"
    assert list(buttons(await ledger.staff.get(f"{at}/actions"))) == ["Enable", "Rotate Secrets", "Delete"]
    await ledger.staff.post(f"{at}/toggle")

    # When Ledger itself gives up, it says why; who enables it begins anew.
    async with database.connection() as connection:
        await update_failing_since(connection, subscriber_id=subscriber_id, failing_since=ledger.clock.now())
    assert (await ledger.staff.get(at)).fields()["status"] == "Failing"
    async with database.transaction_by(kind="system", name="deliveries") as tx:
        assert await disable_subscriber(tx, subscriber_id=subscriber_id, reason="Nothing arrived for 5 days.")
        assert not await disable_subscriber(tx, subscriber_id=subscriber_id, reason="Again.")
    shown = (await ledger.staff.get(at)).fields()
    assert (shown["status"], shown["disabledReason"]) == ("Disabled", "Nothing arrived for 5 days.")
    assert shown["failingSince"] == "2026-03-15T09:30:00.000Z"
    await ledger.staff.post(f"{at}/toggle")
    shown = (await ledger.staff.get(at)).fields()
    assert (shown["status"], shown["disabledReason"], shown["failingSince"]) == ("Active", "—", "—")
    assert await audited(ledger) == [
        ("subscriber.created", {"host": "93.184.216.34", "events": "*"}),
        ("subscriber.disabled", None),
        ("subscriber.enabled", None),
        ("subscriber.disabled", {"reason": "Nothing arrived for 5 days."}),
        ("subscriber.enabled", None),
    ]


async def test_the_first_failure_of_a_row_counts_until_something_arrives(ledger: Installation) -> None:
    subscriber_id = (await add(ledger)).body["id"]
    first, later = ledger.clock.now(), ledger.clock.now() + timedelta(hours=1)
    async with ledger.services.database.connection() as connection:
        seen = []
        for moment in (first, later, None, None, later):
            await update_failing_since(connection, subscriber_id=subscriber_id, failing_since=moment)
            seen.append((await get_subscriber(connection, subscriber_id=subscriber_id)).failing_since)
    assert seen == [first, first, None, None, later]
    # Another address has not failed yet.
    await ledger.staff.put(f"{PATH}/{subscriber_id}", {"url": "https://93.184.216.34/elsewhere"})
    assert (await stored(ledger, subscriber_id)).failing_since is None


async def test_only_active_subscribers_that_asked_for_an_event_want_it(ledger: Installation) -> None:
    everything = (await add(ledger, name="All")).body["id"]
    paid = (await add(ledger, name="Paid", events="invoice.paid")).body["id"]
    await add(ledger, name="Ping", events="ping")
    off = (await add(ledger, name="Off", events="invoice.paid")).body["id"]
    await ledger.staff.post(f"{PATH}/{off}/toggle")
    async with ledger.services.database.connection() as connection:
        wanting = await list_wanting(connection, event_types={"invoice.paid", "invoice.created"})
    assert {each.id for each in wanting} == {everything, paid}
    assert [each.wants("invoice.created") for each in wanting] == [each.id == everything for each in wanting]


async def test_the_last_delivery_is_shown(ledger: Installation) -> None:
    subscriber_id = (await add(ledger)).body["id"]
    await add_deliveries(ledger, subscriber_id, 2)
    shown = (await ledger.staff.get(f"{PATH}/{subscriber_id}")).fields()
    assert shown["lastDelivery"] == "ping: delivered (HTTP 204)"
    assert shown["lastDeliveryAt"] == "2026-03-15T09:30:02.000Z"


async def test_deleting_takes_the_deliveries_along_and_leads_back_to_the_list(ledger: Installation) -> None:
    kept, gone = (await add(ledger)).body["id"], (await add(ledger)).body["id"]
    for subscriber_id in (kept, gone):
        await add_deliveries(ledger, subscriber_id, 3)

    answer = await ledger.staff.delete(f"{PATH}/{gone}")
    assert (answer.status, answer.body) == (200, {"success": True, "redirect": "/webhooks/subscribers"})
    assert (await ledger.staff.delete(f"{PATH}/{gone}")).error == "Subscriber not found"
    assert cells(await ledger.staff.get(PATH), "id") == [kept]
    assert await ledger.value("select count(*) from webhook_delivery") == 3
    assert await ledger.value("select count(*) from webhook_attempt") == 3
    assert (await audited(ledger))[-1] == ("subscriber.deleted", {"host": "93.184.216.34"})


async def test_one_with_very_many_deliveries_is_deleted_in_small_transactions(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    subscriber_id = (await add(ledger)).body["id"]
    await add_deliveries(ledger, subscriber_id, 25)
    monkeypatch.setattr(actions, "DELETED_AT_ONCE", 10)
    monkeypatch.setattr(actions, "DELETING_S", 0.0)

    first = await ledger.staff.delete(f"{PATH}/{subscriber_id}")
    assert (first.status, first.headers["Retry-After"]) == (503, "1")
    assert "delete it again" in first.error
    assert (await stored(ledger, subscriber_id)).is_active is False
    assert await ledger.value("select count(*) from webhook_delivery") == 15

    monkeypatch.setattr(actions, "DELETING_S", 5.0)
    assert (await ledger.staff.delete(f"{PATH}/{subscriber_id}")).status == 200
    assert await ledger.value("select count(*) from webhook_attempt") == 0
    actions_seen = [action for action, _ in await audited(ledger)]
    assert actions_seen == ["subscriber.created", "subscriber.disabled", "subscriber.deleted"]


async def test_there_is_an_end_to_the_number_of_subscribers(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actions, "SUBSCRIBERS_MAX", 2)
    await add(ledger)
    await add(ledger)
    refused = await ledger.staff.post(PATH, {"name": "Third", "url": URL})
    assert (refused.status, refused.error.partition(";")[0]) == (400, "There are 2 subscribers already")


async def test_the_list_is_paged(ledger: Installation) -> None:
    ids = []
    for _ in range(3):
        ids.append((await add(ledger)).body["id"])
        ledger.clock.move(timedelta(minutes=1))
    first = await ledger.staff.get(f"{PATH}?limit=2")
    second = await ledger.staff.get(f"{PATH}?limit=2&cursor={first.body['nextCursor']}")
    assert cells(first, "id") + cells(second, "id") == ids[::-1]
    assert (first.body["total"], "nextCursor" in second.body) == (3, False)


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("GET", ""),
        ("PUT", ""),
        ("DELETE", ""),
        ("GET", "/form"),
        ("GET", "/actions"),
        ("POST", "/toggle"),
        ("POST", "/rotate-secret"),
    ],
)
async def test_what_does_not_exist_is_not_found(ledger: Installation, method: str, tail: str) -> None:
    for subscriber_id in (NOBODY, "x", "%2e%2e", "'"):
        answer = await ledger.staff.send(
            method, f"{PATH}/{subscriber_id}{tail}", data=b"{}" if method != "GET" else None
        )
        assert (answer.status, answer.error) == (404, "Subscriber not found")


# Bad input


async def test_what_a_subscriber_needs_is_told_in_words(ledger: Installation) -> None:
    for missing in ({}, {"name": "Shop"}, {"url": URL}, {"name": "", "url": URL}, {"name": "  ", "url": URL}):
        refused = await ledger.staff.post(PATH, missing)
        assert (refused.status, refused.error) == (400, "Name and URL are required")
    wrong: list[tuple[dict[str, object], str]] = [
        ({"name": "x" * 101}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": 5}, "name"),
        ({"url": 5}, "url"),
        ({"events": 5}, "events"),
        ({"events": [5]}, "events"),
        ({"sendsHeaderSecret": "perhaps"}, "sendsHeaderSecret"),
    ]
    for body, field in wrong:
        refused = await ledger.staff.post(PATH, {"name": "Shop", "url": URL} | body)
        assert refused.status == 400, body
        assert next(iter(refused.refused())).startswith(field), body
    assert await ledger.value("select count(*) from webhook_subscriber") == 0


async def test_an_unknown_event_is_refused_with_the_list_of_known_ones(ledger: Installation) -> None:
    subscriber_id = (await add(ledger, events="ping")).body["id"]
    refused = await ledger.staff.post(PATH, {"name": "Shop", "url": URL, "events": "invoice.payed,ping"})
    assert refused.status == 400
    assert refused.error.startswith("There is no event invoice.payed; known are ")
    assert all(name in refused.error for name in (*EVENT_TYPES, "*"))
    assert list(refused.refused()) == ["events"]
    for events in ("invoice.payed", ["invoice.*"], "INVOICE.PAID", "ping;invoice.paid", "nul\0"):
        refused = await ledger.staff.put(f"{PATH}/{subscriber_id}", {"events": events})
        assert (refused.status, list(refused.refused())) == (400, ["events"]), events
    nothing = await ledger.staff.put(f"{PATH}/{subscriber_id}", {"events": " , "})
    assert (nothing.status, nothing.error) == (400, "Name at least one event, or * for all of them")
    assert (await stored(ledger, subscriber_id)).events == ("ping",)


@pytest.mark.parametrize(
    "secret",
    ["abc", "x" * 15, "x" * 256, "blanks in between are no good", "not-äscii-but-long", "line\r\nbreak: injected"],
)
async def test_a_secret_that_is_too_short_or_fits_no_header_is_refused(ledger: Installation, secret: str) -> None:
    subscriber_id = (await add(ledger)).body["id"]
    for answer in (
        await ledger.staff.post(PATH, {"name": "Shop", "url": URL, "secret": secret}),
        await ledger.staff.put(f"{PATH}/{subscriber_id}", {"secret": secret}),
    ):
        assert answer.status == 400
        assert "must be 16 to 255 printable ASCII characters" in answer.error
        assert list(answer.refused()) == ["secret"]
        assert secret.encode() not in answer.content
    for good in ("x" * 16, "~" * 255):
        assert (await ledger.staff.put(f"{PATH}/{subscriber_id}", {"secret": good})).status == 200


async def test_d4_a_hostile_address_is_refused_when_it_is_saved(ledger: Installation) -> None:
    """Both at creation and at change; what was there stays."""
    subscriber_id = (await add(ledger)).body["id"]
    urls = [f"https://{host}/hook" for host in (*(host for host, _ in NOT_PUBLIC), *AMBIGUOUS, *DISGUISED)]
    urls += [each for each in NO_URLS if each not in ("", " https://example.com/")]
    urls += ["http://example.com/", "http://93.184.216.34/", "http://127.0.0.1/"]
    assert len(urls) > 100
    for url in urls:
        for answer in (
            await ledger.staff.post(PATH, {"name": "Shop", "url": url}),
            await ledger.staff.put(f"{PATH}/{subscriber_id}", {"url": url}),
        ):
            assert answer.status == 400, url
            assert list(answer.refused()) == ["url"], url
    assert (await stored(ledger, subscriber_id)).url == URL
    assert await ledger.value("select count(*) from webhook_subscriber") == 1


async def test_d4_what_a_name_resolves_to_is_checked_when_it_is_saved(
    ledger: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "inside.example.com": ["10.0.0.7"],
        "both.example.com": ["93.184.216.34", "192.168.1.1"],
        "outside.example.com": ["93.184.216.34"],
    }
    resolve_by(ledger, names, monkeypatch)
    for host, reason in (("inside", "10.0.0.7, which is private"), ("both", "192.168.1.1, which is private")):
        refused = await ledger.staff.post(PATH, {"name": "Shop", "url": f"https://{host}.example.com/"})
        assert refused.status == 400
        assert refused.error.startswith(f"The URL names {host}.example.com, which leads to {reason}")
    subscriber_id = (await add(ledger, url="https://outside.example.com/")).body["id"]
    await add(ledger, url="https://not-there-yet.example.com/")

    # Where the name leads later is the deliveries' business: staff can still rename it.
    names["outside.example.com"] = ["10.0.0.7"]
    same = {"name": "Renamed", "url": "https://outside.example.com/"}
    assert (await ledger.staff.put(f"{PATH}/{subscriber_id}", same)).status == 200
    other = await ledger.staff.put(f"{PATH}/{subscriber_id}", {"url": "https://outside.example.com/other"})
    assert other.status == 400


async def test_d4_a_listed_network_may_be_told_also_over_http(
    start_ledger: StartLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = await start_ledger(WEBHOOK_ALLOWED_NETWORKS="10.0.0.0/8,127.0.0.0/8")
    resolve_by(ledger, {"shop": ["10.1.2.3"], "camp": ["172.18.0.5"], "web": ["93.184.216.34"]}, monkeypatch)
    for url in (
        "http://10.0.0.5:3000/hook",
        "http://shop:3000/hook",
        "https://shop/",
        "http://localhost/",
        "https://web/",
    ):
        await add(ledger, url=url)
    for url in ("http://camp/hook", "https://camp/hook", "http://web/", "http://192.168.1.1/", "http://[::1]/"):
        assert (await ledger.staff.post(PATH, {"name": "Shop", "url": url})).status == 400, url
