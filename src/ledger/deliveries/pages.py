"""The Dashboard's pages about deliveries to webhook subscribers."""

from ledger.web.pages import Link, Page, action_bar, detail, staff_link, staff_page, table

_REPLAY = {"label": "Send Again", "endpoint": "/api/webhooks/deliveries/:id/replay", "method": "POST"}

pages: list[Page] = [
    staff_page(
        "/webhooks/deliveries",
        "Deliveries",
        [
            table(
                "/api/webhooks/deliveries",
                row_link="/webhooks/deliveries/:id",
                row_actions=[_REPLAY],
                empty=("send", "No deliveries yet", "What webhook subscribers are told will be listed here."),
            )
        ],
        layout="wide",
    ),
    staff_page(
        "/webhooks/deliveries/:id",
        "Delivery",
        [
            detail("/api/webhooks/deliveries/:id"),
            action_bar("/api/webhooks/deliveries/:id/actions"),
            table(
                "/api/webhooks/deliveries/:id/attempts",
                title="Attempts",
                empty=("send", "No attempt yet", "It is sent within a second while a worker runs."),
            ),
        ],
        show_back=True,
    ),
]
staff_links: list[Link] = [staff_link("Deliveries", "/webhooks/deliveries", "send")]
