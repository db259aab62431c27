"""The Dashboard's pages about invoices."""

from collections.abc import Collection

from ledger.providers.contract import Capability
from ledger.web.pages import Link, Page, action_bar, detail, form, staff_link, staff_page, stats, table, user_page

_LINES = ("list", "No lines", "This invoice has no lines.")

_REFUND = form(
    "/api/invoices/:id/refund/form",
    submit="/api/invoices/:id/refund",
    method="POST",
    label="Refund",
    title="Refund a part",
)


def pages_for(capabilities: Collection[Capability]) -> list[Page]:
    """The pages; the form for refunds is there when a provider can send money back."""
    refunds = [_REFUND] if Capability.REFUNDS in capabilities else []
    return [*_PAGES, staff_page("/invoices/:id", "Invoice", [*_INVOICE, *refunds], show_back=True)]


_INVOICE = [
    detail("/api/invoices/:id"),
    table("/api/invoices/:id/items", title="Items", empty=_LINES),
    action_bar("/api/invoices/:id/actions"),
]
_PAGES: list[Page] = [
    user_page(
        "/",
        "My Invoices",
        [
            table(
                "/api/my/invoices",
                row_link="/my/invoices/:id",
                empty=("receipt", "No invoices yet", "Invoices for you will be listed here."),
            )
        ],
    ),
    user_page(
        "/my/invoices/:id",
        "Invoice",
        [
            detail("/api/my/invoices/:id"),
            table("/api/my/invoices/:id/items", title="Items", empty=_LINES),
            action_bar("/api/my/invoices/:id/actions"),
        ],
        show_back=True,
    ),
    staff_page(
        "/overview",
        "Overview",
        [
            stats("/api/overview/stats"),
            table(
                "/api/invoices?limit=10",
                title="Recent Invoices",
                row_link="/invoices/:id",
                empty=("receipt", "No invoices yet", "Services and staff create invoices through the API."),
            ),
        ],
        layout="wide",
    ),
    staff_page(
        "/invoices",
        "All Invoices",
        [
            table(
                "/api/invoices",
                row_link="/invoices/:id",
                empty=("receipt", "No invoices yet", "Services and staff create invoices through the API."),
            )
        ],
        layout="wide",
    ),
]

user_links: list[Link] = [Link(label="My Invoices", path="/", icon="receipt")]
staff_links: list[Link] = [
    staff_link("Overview", "/overview", "layout-dashboard"),
    staff_link("All Invoices", "/invoices", "files"),
]
