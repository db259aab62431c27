"""What members and staff see of subscriptions: lists, details, buttons and forms."""

from datetime import timedelta

import pytest

from tests.api.shown import buttons, cells, columns, labels, types
from tests.api.subscribed import (
    PAGE_URL,
    add_change,
    add_period,
    add_product,
    add_subscription,
    add_unpaid_subscription,
    ensure_gold,
)
from tests.installation import OTHER, USER, Answer, Installation

NO_ID = "01890000-0000-7000-8000-000000000001"


def options(answer: Answer) -> dict[str, str]:
    """What a form's only select offers: label → value."""
    (field,) = answer.body["fields"]
    assert (field["key"], field["type"]) == ("productId", "select")
    return {option["label"]: option["value"] for option in field["options"]}


# The staff's list


async def test_staff_sees_all_subscriptions_newest_first(ledger: Installation) -> None:
    product = await add_product(ledger)
    first = await add_subscription(ledger, product_id=product)
    ledger.clock.move(timedelta(minutes=1))
    second = await add_unpaid_subscription(ledger, product_id=product, user_id=OTHER)

    answer = await ledger.staff.get("/api/subscriptions")

    assert columns(answer) == [
        ("user", "User"),
        ("product", "Product"),
        ("provider", "Provider"),
        ("status", "Status"),
        ("currentPeriodEnd", "Renews"),
        ("createdAt", "Created"),
    ]
    assert answer.body["rows"] == [
        {
            "id": second,
            "user": "Cleo Other",
            "product": "Membership",
            "provider": "manual",
            "status": "incomplete",
            "currentPeriodEnd": "—",
            "createdAt": "2026-03-15T09:31:00.000Z",
        },
        {
            "id": first,
            "user": "Ben Buyer",
            "product": "Membership",
            "provider": "manual",
            "status": "active",
            "currentPeriodEnd": "2026-04-04T09:30:00.000Z",
            "createdAt": "2026-03-15T09:30:00.000Z",
        },
    ]
    assert answer.body["total"] == 2


async def test_subscriptions_are_narrowed_by_status_user_and_text(ledger: Installation) -> None:
    club = await add_product(ledger, "Club 100%")
    paper = await add_product(ledger, "Newspaper")
    of_ben = await add_subscription(ledger, product_id=club)
    of_cleo = await add_subscription(ledger, product_id=paper, user_id=OTHER, status="past_due")
    over = await add_subscription(ledger, product_id=club, status="cancelled", remote_id="sub_lookedUp")

    async def found(query: str) -> set[object]:
        answer = await ledger.staff.get(f"/api/subscriptions?{query}")
        assert answer.status == 200, answer.content
        assert answer.body["total"] == len(answer.body["rows"])
        return set(cells(answer, "id"))

    assert await found("status=active") == {of_ben}
    assert await found("status=past_due") == {of_cleo}
    assert await found(f"userId={USER}") == {of_ben, over}
    assert await found("userId=nobody-has-this-id-01") == set()
    assert await found("q=PAPER") == {of_cleo}
    # Wildcards of SQL are taken literally.
    assert await found("q=0%25") == {of_ben, over}
    assert await found("q=%25paper") == await found("q=_") == set()
    # Staff that looks at Stripe's page has its name for a subscription.
    assert await found("q=sub_lookedUp") == {over}
    # Names are known because the list was shown before.
    await found("")
    assert await found("q=cleo") == {of_cleo}
    assert await found(f"q=cleo&userId={USER}") == set()
    for query in ("status=gone", "limit=0", "limit=201", "userId=../x", "cursor=nonsense"):
        assert (await ledger.staff.get(f"/api/subscriptions?{query}")).status == 400, query


@pytest.mark.parametrize("path", ["/api/subscriptions", "/api/my/subscriptions"])
async def test_subscriptions_are_read_in_pages(ledger: Installation, path: str) -> None:
    product = await add_product(ledger)
    for minutes in (0, 0, 1, 0, 1):
        ledger.clock.move(timedelta(minutes=minutes))
        await add_subscription(ledger, product_id=product, status="cancelled")
    caller = ledger.user if "/my/" in path else ledger.staff
    whole = (await caller.get(path)).body
    assert whole["total"] == len(whole["rows"]) == 5

    pages: list[object] = []
    cursor = ""
    while True:
        page = (await caller.get(f"{path}?limit=2{cursor}")).body
        assert page["total"] == 5
        pages += page["rows"]
        if "nextCursor" not in page:
            break
        cursor = f"&cursor={page['nextCursor']}"
    assert pages == whole["rows"]


async def test_a_subscription_that_retention_freed_has_no_user(ledger: Installation) -> None:
    freed = await add_subscription(ledger, status="cancelled", person_id=None)

    assert cells(await ledger.staff.get("/api/subscriptions"), "user") == ["(erased)"]
    assert (await ledger.staff.get(f"/api/subscriptions/{freed}")).fields()["user"] == "(erased)"
    assert (await ledger.user.get(f"/api/my/subscriptions/{freed}")).status == 404


# The staff's detail


async def test_the_detail_for_staff_has_the_published_fields_first(ledger: Installation) -> None:
    made = await add_subscription(ledger)

    answer = await ledger.staff.get(f"/api/subscriptions/{made}")

    assert labels(answer) == [
        ("id", "Subscription ID"),
        ("user", "User"),
        ("product", "Product"),
        ("status", "Status"),
        ("currentPeriodStart", "Period Start"),
        ("currentPeriodEnd", "Period End"),
        ("cancelAtPeriodEnd", "Cancels at Period End"),
        ("cancelledAt", "Cancelled At"),
        ("createdAt", "Created"),
        ("price", "Price"),
        ("provider", "Provider"),
    ]
    assert answer.fields() == {
        "id": made,
        "user": "Ben Buyer",
        "product": "Membership",
        "status": "active",
        "currentPeriodStart": "2026-03-05T09:30:00.000Z",
        "currentPeriodEnd": "2026-04-04T09:30:00.000Z",
        "cancelAtPeriodEnd": False,
        "cancelledAt": "—",
        "createdAt": "2026-03-15T09:30:00.000Z",
        "price": "12.00 EUR / month",
        "provider": "Cash box (manual)",
    }
    # A dash is no date.
    assert types(answer) == {
        "currentPeriodStart": "date",
        "currentPeriodEnd": "date",
        "cancelAtPeriodEnd": "boolean",
        "createdAt": "date",
    }
    assert (await ledger.staff.get(f"/api/subscriptions/{NO_ID}")).error == "Subscription not found"


async def test_a_price_is_shown_with_its_currency_and_interval(ledger: Installation) -> None:
    product = await add_product(ledger, price=5000, currency="JPY", interval="year")
    made = await add_subscription(ledger, product_id=product)

    assert (await ledger.staff.get(f"/api/subscriptions/{made}")).fields()["price"] == "5000 JPY / year"


async def test_a_subscription_keeps_the_price_that_was_agreed_on(ledger: Installation) -> None:
    product = await add_product(ledger)
    made = await add_subscription(ledger, product_id=product)
    await ledger.staff.put(f"/api/products/{product}", {"price": 9900})

    for path, client in (("/api/subscriptions", ledger.staff), ("/api/my/subscriptions", ledger.user)):
        assert (await client.get(f"{path}/{made}")).fields()["price"] == "12.00 EUR / month"


async def test_what_is_not_confirmed_and_what_needs_attention_is_shown(ledger: Installation) -> None:
    made = await add_subscription(ledger, problem="The provider charges a price that no product here has")
    await add_change(ledger, made, product_id=await ensure_gold(ledger), status="requested")

    answer = await ledger.staff.get(f"/api/subscriptions/{made}")
    assert labels(answer)[-2:] == [("problem", "Attention"), ("pendingChange", "Requested Change")]
    assert answer.fields()["problem"] == "The provider charges a price that no product here has"
    wanted = "Change to Gold - 24.00 EUR / month, not confirmed by the provider yet"
    assert answer.fields()["pendingChange"] == wanted

    mine = (await ledger.user.get(f"/api/my/subscriptions/{made}")).fields()
    # What staff has to look at is none of the member's business.
    assert mine["pendingChange"] == wanted
    assert "problem" not in mine


@pytest.mark.parametrize(("kind", "text"), [("cancel", "Cancellation"), ("reactivate", "Reactivation")])
async def test_a_wish_without_a_product_is_named(ledger: Installation, kind: str, text: str) -> None:
    made = await add_subscription(ledger)
    await add_change(ledger, made, kind=kind, status="requested")  # type: ignore[arg-type]

    shown = (await ledger.staff.get(f"/api/subscriptions/{made}")).fields()["pendingChange"]
    assert shown == f"{text}, not confirmed by the provider yet"


# Buttons


STAFF_BUTTONS = {
    ("incomplete", False): ["Discard"],
    ("active", False): ["Cancel"],
    ("active", True): ["Reactivate"],
    ("past_due", False): ["Reactivate"],
    ("past_due", True): ["Reactivate"],
    ("paused", False): [],
    ("paused", True): ["Reactivate"],
    ("cancelled", False): ["Reactivate"],
}
OWN_BUTTONS = {**STAFF_BUTTONS, ("active", False): ["Cancel Subscription"], ("cancelled", False): []}


@pytest.mark.parametrize("state", STAFF_BUTTONS, ids=str)
async def test_the_buttons_follow_the_state(ledger: Installation, state: tuple[str, bool]) -> None:
    status, cancels = state
    made = await add_subscription(ledger, status=status, cancels_at_period_end=cancels)

    for_staff = await ledger.staff.get(f"/api/subscriptions/{made}/actions")
    mine = await ledger.user.get(f"/api/my/subscriptions/{made}/actions")

    assert list(buttons(for_staff)) == STAFF_BUTTONS[state]
    assert list(buttons(mine)) == OWN_BUTTONS[state]
    for action in (*for_staff.body["actions"], *mine.body["actions"]):
        is_cancel = action["label"].startswith(("Cancel", "Discard"))
        assert action["endpoint"].endswith("/cancel" if is_cancel else "/reactivate")
        assert action.get("variant") == ("danger" if is_cancel else None)
        assert "Membership" in action["confirm"]
        assert made in action["endpoint"]


async def test_members_have_no_buttons_while_they_may_not_cancel_themselves(ledger: Installation) -> None:
    made = await add_subscription(ledger)
    await ledger.staff.put("/api/settings", {"allowSelfCancel": "false"})

    assert buttons(await ledger.user.get(f"/api/my/subscriptions/{made}/actions")) == {}
    assert list(buttons(await ledger.staff.get(f"/api/subscriptions/{made}/actions"))) == ["Cancel"]
    for wish in ("cancel", "reactivate"):
        refused = await ledger.user.post(f"/api/my/subscriptions/{made}/{wish}")
        assert (refused.status, refused.body["required"]) == (403, "ledger:manage")
    assert await ledger.value("select count(*) from subscription_change") == 0


# What members see


async def test_members_see_their_own_subscriptions_but_none_that_never_began(ledger: Installation) -> None:
    await add_subscription(ledger, product_id=await add_product(ledger, "Running"))
    await add_subscription(ledger, product_id=await add_product(ledger, "Running out"), cancels_at_period_end=True)
    await add_subscription(ledger, product_id=await add_product(ledger, "Over"), status="cancelled")
    await add_unpaid_subscription(ledger, product_id=await add_product(ledger, "Being paid"))
    await add_subscription(
        ledger, product_id=await add_product(ledger, "Abandoned"), status="cancelled", activated_at=None
    )
    await add_subscription(ledger, product_id=await add_product(ledger, "Cleo's"), user_id=OTHER)

    answer = await ledger.user.get("/api/my/subscriptions")

    assert columns(answer) == [("product", "Product"), ("status", "Status"), ("renews", "Renews")]
    assert [(row["product"], row["status"], row["renews"]) for row in answer.body["rows"]] == [
        ("Being paid", "incomplete", "—"),
        ("Over", "cancelled", "—"),
        ("Running out", "active (cancelling)", "—"),
        ("Running", "active", "2026-04-04T09:30:00.000Z"),
    ]
    assert answer.body["total"] == 4
    assert cells(await ledger.other.get("/api/my/subscriptions"), "product") == ["Cleo's"]
    assert (await ledger.staff.get("/api/my/subscriptions")).body["rows"] == []


async def test_members_see_when_a_subscription_renews_ends_or_ended(ledger: Installation) -> None:
    async def shown(**state: object) -> list[tuple[str, str, object]]:
        made = await add_subscription(ledger, **state)  # type: ignore[arg-type]
        answer = await ledger.user.get(f"/api/my/subscriptions/{made}")
        return [(field["key"], field["label"], field["value"]) for field in answer.body["fields"]]

    def about(status: str) -> list[tuple[str, str, object]]:
        return [
            ("product", "Product", "Membership"),
            ("status", "Status", status),
            ("price", "Price", "12.00 EUR / month"),
        ]

    end = "2026-04-04T09:30:00.000Z"
    assert await shown() == [*about("active"), ("currentPeriodEnd", "Renews", end)]
    assert await shown(status="past_due") == [*about("past_due"), ("currentPeriodEnd", "Renews", end)]
    assert await shown(cancels_at_period_end=True) == [
        *about("active (cancelling)"),
        ("currentPeriodEnd", "Ends", end),
    ]
    assert await shown(status="cancelled") == [
        *about("cancelled"),
        ("cancelledAt", "Ended", "2026-03-15T09:30:00.000Z"),
    ]


async def test_the_link_for_paying_is_there_while_the_page_is_open(ledger: Installation) -> None:
    made = await add_unpaid_subscription(ledger)

    for client, path in ((ledger.user, "/api/my/subscriptions"), (ledger.staff, "/api/subscriptions")):
        answer = await client.get(f"{path}/{made}")
        assert answer.fields()["payUrl"] == PAGE_URL
        assert types(answer)["payUrl"] == "link"
        assert ("payUrl", "Pay Online") in labels(answer)

    ledger.clock.move(timedelta(hours=1))
    assert "payUrl" not in (await ledger.user.get(f"/api/my/subscriptions/{made}")).fields()

    for state in ({"is_unwanted": True}, {"checkout_url": None}):
        made = await add_unpaid_subscription(ledger, **state)
        assert "payUrl" not in (await ledger.user.get(f"/api/my/subscriptions/{made}")).fields()


async def test_the_invoices_of_a_subscription_are_listed_with_links_to_them(ledger: Installation) -> None:
    made = await add_subscription(ledger)
    invoices = []
    for _ in range(3):
        ledger.clock.move(timedelta(days=31))
        invoices.append((await ledger.create_invoice()).body)
        await add_period(ledger, made, invoice_id=invoices[-1]["id"])
    await ledger.staff.post(f"/api/invoices/{invoices[0]['id']}/mark-paid")
    # One that has nothing to do with it.
    await ledger.create_invoice()

    for client, at in ((ledger.staff, "/api/subscriptions"), (ledger.user, "/api/my/subscriptions")):
        answer = await client.get(f"{at}/{made}/invoices")
        assert columns(answer) == [
            ("invoiceNumber", "#"),
            ("amount", "Amount"),
            ("status", "Status"),
            ("createdAt", "Date"),
        ]
        assert cells(answer, "id") == [each["id"] for each in reversed(invoices)]
        assert answer.body["rows"][-1] == {
            "id": invoices[0]["id"],
            "invoiceNumber": "INV-2026-0001",
            "amount": "50.00 EUR",
            "status": "paid",
            "createdAt": "2026-04-15T09:30:00.000Z",
        }
        page = (await client.get(f"{at}/{made}/invoices?limit=2")).body
        rest = await client.get(f"{at}/{made}/invoices?limit=2&cursor={page['nextCursor']}")
        assert [row["id"] for row in page["rows"]] + cells(rest, "id") == cells(answer, "id")
        assert page["total"] == 3
    assert (await ledger.other.get(f"/api/my/subscriptions/{made}/invoices")).status == 404


async def test_staff_sees_what_was_wanted_and_why_it_failed(ledger: Installation) -> None:
    made = await add_subscription(ledger)
    gold = await ensure_gold(ledger)
    await add_change(ledger, made, product_id=gold, status="failed", failure="Your card was declined")
    ledger.clock.move(timedelta(days=1))
    await add_change(ledger, made, kind="cancel")
    ledger.clock.move(timedelta(days=1))
    await add_change(ledger, made, kind="reactivate", status="requested")

    answer = await ledger.staff.get(f"/api/subscriptions/{made}/changes")

    assert columns(answer) == [
        ("wanted", "Wanted"),
        ("status", "Status"),
        ("failure", "Reason"),
        ("createdAt", "Date"),
    ]
    assert [(row["wanted"], row["status"], row["failure"], row["createdAt"]) for row in answer.body["rows"]] == [
        ("Reactivation", "requested", "—", "2026-03-17T09:30:00.000Z"),
        ("Cancellation", "succeeded", "—", "2026-03-16T09:30:00.000Z"),
        ("Change to Gold - 24.00 EUR / month", "failed", "Your card was declined", "2026-03-15T09:30:00.000Z"),
    ]
    page = (await ledger.staff.get(f"/api/subscriptions/{made}/changes?limit=2")).body
    rest = await ledger.staff.get(f"/api/subscriptions/{made}/changes?limit=2&cursor={page['nextCursor']}")
    assert [row["id"] for row in page["rows"]] + cells(rest, "id") == cells(answer, "id")
    assert page["total"] == 3


# Forms


async def test_the_form_for_a_change_offers_what_the_subscription_can_be_changed_to(ledger: Installation) -> None:
    made = await add_subscription(ledger)
    silver = await add_product(ledger, "silver", price=1800, interval="year")
    gold = await ensure_gold(ledger)
    has_already = await add_product(ledger, "Newspaper")
    await add_subscription(ledger, product_id=has_already)
    await add_product(ledger, "In dollars", currency="USD")
    off_sale = await add_product(ledger, "Off sale")
    await ledger.staff.post(f"/api/products/{off_sale}/toggle")
    await ledger.staff.post("/api/products", {"name": "Ticket", "price": 5000, "type": "one-time"})

    for client, at in ((ledger.staff, "/api/subscriptions"), (ledger.user, "/api/my/subscriptions")):
        form = await client.get(f"{at}/{made}/change/form")
        assert options(form) == {"Gold - 24.00 EUR / month": gold, "silver - 18.00 EUR / year": silver}
        assert form.body["fields"][0]["required"] is True
    assert (await ledger.other.get(f"/api/my/subscriptions/{made}/change/form")).status == 404


async def test_a_form_without_a_choice_says_why_and_so_does_sending_it(ledger: Installation) -> None:
    product = await add_product(ledger)
    await add_product(ledger, "In dollars", currency="USD")

    async def said(subscription_id: str) -> str:
        at = f"/api/subscriptions/{subscription_id}"
        ((sentence, value),) = options(await ledger.staff.get(f"{at}/change/form")).items()
        sent = await ledger.staff.post(f"{at}/change", {"productId": value})
        assert (sent.status, sent.error) == (400, "There is no product to choose at the moment")
        return sentence

    assert await said(await add_subscription(ledger, product_id=product)) == (
        "There is no other product that is charged in EUR"
    )
    await ensure_gold(ledger)
    ended = await add_subscription(ledger, product_id=product, status="cancelled")
    assert await said(ended) == "A cancelled subscription cannot be changed; subscribe again"
    unpaid = await add_unpaid_subscription(ledger, product_id=product, user_id=OTHER)
    assert (await said(unpaid)).startswith("This subscription is not paid yet; pay for it first")


async def test_the_form_for_subscribing_offers_what_a_person_does_not_have(ledger: Installation) -> None:
    membership = await add_product(ledger)
    running_out = await add_product(ledger, "Newspaper", price=300, currency="USD")
    await add_subscription(ledger, product_id=running_out, cancels_at_period_end=True)
    had = await add_product(ledger, "Club")
    await add_subscription(ledger, product_id=had, status="cancelled")

    offered = options(await ledger.user.get("/api/my/subscribe/form"))
    assert offered == {"Club - 12.00 EUR / month": had, "Membership - 12.00 EUR / month": membership}
    # Somebody Ledger never heard of can have everything.
    assert len(options(await ledger.other.get("/api/my/subscribe/form"))) == 3

    for product in (membership, had, running_out):
        await ledger.staff.post(f"/api/products/{product}/toggle")
    ((sentence, value),) = options(await ledger.user.get("/api/my/subscribe/form")).items()
    assert sentence == "There is nothing more to subscribe to at the moment"
    sent = await ledger.user.post("/api/my/subscribe", {"productId": value})
    assert (sent.status, sent.error) == (400, "There is no product to choose at the moment")
    assert "productId" in sent.refused()
