"""The Dashboard's pages about webhook subscribers."""

from ledger.web.pages import Link, Page, action_bar, callout, detail, form, staff_link, staff_page, table

pages: list[Page] = [
    staff_page(
        "/webhooks/subscribers",
        "Webhooks",
        [
            table(
                "/api/webhooks/subscribers",
                row_link="/webhooks/subscribers/:id",
                create_link="/webhooks/subscribers/new",
                create_label="Add Subscriber",
                empty=("webhook", "No subscribers yet", "Add the programs that Ledger shall tell what happens."),
            )
        ],
    ),
    staff_page(
        "/webhooks/subscribers/new",
        "Add Subscriber",
        [
            callout(
                "Two secrets",
                "They are shown once, when you have added the subscriber. Its programmer needs the signing secret to "
                "verify what arrives; the other one travels in the header X-Webhook-Secret.",
            ),
            form(
                "/api/webhooks/subscribers/form",
                submit="/api/webhooks/subscribers",
                method="POST",
                label="Add",
            ),
        ],
        show_back=True,
    ),
    staff_page(
        "/webhooks/subscribers/:id",
        "Subscriber",
        [
            detail("/api/webhooks/subscribers/:id"),
            action_bar("/api/webhooks/subscribers/:id/actions"),
            table(
                "/api/webhooks/deliveries?subscriberId=:id",
                title="Deliveries",
                row_link="/webhooks/deliveries/:id",
                empty=("send", "No deliveries yet", "Send a test event to see whether it arrives."),
            ),
            form(
                "/api/webhooks/subscribers/:id/form",
                submit="/api/webhooks/subscribers/:id",
                method="PUT",
                label="Save",
                title="Settings",
            ),
            form(
                "/api/webhooks/subscribers/:id/replay/form",
                submit="/api/webhooks/subscribers/:id/replay",
                method="POST",
                label="Send Again",
                title="Send Events Again",
            ),
        ],
        show_back=True,
    ),
]
staff_links: list[Link] = [staff_link("Webhooks", "/webhooks/subscribers", "webhook")]
