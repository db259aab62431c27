"""The Dashboard's page about the billing settings."""

from ledger.web.pages import Link, Page, action_bar, callout, detail, form, staff_link, staff_page, table

_SEND_AGAIN = {"label": "Send Again", "endpoint": "/api/mails/:id/send", "method": "POST"}

pages: list[Page] = [
    staff_page(
        "/settings",
        "Settings",
        [
            form("/api/settings/form", submit="/api/settings", method="PUT", label="Save"),
            callout(
                "What changes when",
                "A new tax rate or label counts for invoices created from now on. Issued invoices do not change.",
            ),
            detail("/api/settings/mail", title="Mail"),
            action_bar("/api/settings/actions"),
            table(
                "/api/mails",
                title="Mails",
                row_actions=[_SEND_AGAIN],
                empty=("mail", "No mails yet", "What Ledger sends to people about their invoices will be listed here."),
            ),
        ],
    )
]
staff_links: list[Link] = [staff_link("Settings", "/settings", "settings")]
