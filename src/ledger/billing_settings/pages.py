"""The Dashboard's page about the billing settings."""

from ledger.web.pages import Link, Page, callout, form, staff_link, staff_page

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
        ],
    )
]
staff_links: list[Link] = [staff_link("Settings", "/settings", "settings")]
