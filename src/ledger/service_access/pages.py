"""The Dashboard's page about what services may do."""

from ledger.web.pages import Link, Page, callout, form, staff_link, staff_page, table

_REVOKE = {
    "label": "Take back",
    "endpoint": "/api/service-access/:id",
    "method": "DELETE",
    "variant": "danger",
    "confirm": "Take back what this service was granted? It keeps its own invoices.",
}

pages: list[Page] = [
    staff_page(
        "/service-access",
        "Service Access",
        [
            callout(
                "What services may do",
                "A service creates invoices and sees and marks as paid the ones it created. Here you grant it more.",
            ),
            table(
                "/api/service-access",
                row_actions=[_REVOKE],
                empty=("plug", "No grants", "Every service works with its own invoices only."),
            ),
            form(
                "/api/service-access/form",
                submit="/api/service-access",
                method="POST",
                label="Save",
                title="Grant a service more",
            ),
        ],
    )
]
staff_links: list[Link] = [staff_link("Service Access", "/service-access", "plug")]
