"""The Dashboard's pages about subscriptions, while a provider that keeps them is there."""

from collections.abc import Collection

from ledger.providers.contract import Capability
from ledger.web.pages import Link, Page, action_bar, callout, detail, form, staff_link, staff_page, table, user_page


def pages_for(capabilities: Collection[Capability]) -> list[Page]:
    """The pages, if there can be subscriptions."""
    return _PAGES if Capability.SUBSCRIPTIONS in capabilities else []


def user_links_for(capabilities: Collection[Capability]) -> list[Link]:
    """What stands in everybody's sidebar."""
    if Capability.SUBSCRIPTIONS not in capabilities:
        return []
    return [Link(label="My Subscriptions", path="/my/subscriptions", icon="repeat")]


def staff_links_for(capabilities: Collection[Capability]) -> list[Link]:
    """What stands in the administration."""
    if Capability.SUBSCRIPTIONS not in capabilities:
        return []
    return [staff_link("Subscriptions", "/subscriptions", "repeat")]


_INVOICES = ("receipt", "No invoices yet", "Each period that is paid for becomes an invoice.")
_WHAT_A_CHANGE_COSTS = callout(
    "What a change costs",
    "Some products are settled at once: what is left of the period that was paid for is credited, and the difference "
    "charged. With the others, the new price counts from the next period.",
)

_PAGES: list[Page] = [
    user_page(
        "/my/subscriptions",
        "My Subscriptions",
        [
            table(
                "/api/my/subscriptions",
                row_link="/my/subscriptions/:id",
                empty=("repeat", "No subscriptions yet", "What you subscribe to will be listed here."),
            ),
            form(
                "/api/my/subscribe/form",
                submit="/api/my/subscribe",
                method="POST",
                label="Subscribe",
                title="Subscribe",
            ),
        ],
    ),
    user_page(
        "/my/subscriptions/:id",
        "Subscription",
        [
            detail("/api/my/subscriptions/:id"),
            action_bar("/api/my/subscriptions/:id/actions"),
            table("/api/my/subscriptions/:id/invoices", title="Invoices", row_link="/my/invoices/:id", empty=_INVOICES),
            form(
                "/api/my/subscriptions/:id/change/form",
                submit="/api/my/subscriptions/:id/change",
                method="POST",
                label="Change",
                title="Change to another product",
            ),
            _WHAT_A_CHANGE_COSTS,
        ],
        show_back=True,
    ),
    staff_page(
        "/subscriptions",
        "Subscriptions",
        [
            table(
                "/api/subscriptions",
                row_link="/subscriptions/:id",
                empty=("repeat", "No subscriptions yet", "Members subscribe to recurring products themselves."),
            )
        ],
        layout="wide",
    ),
    staff_page(
        "/subscriptions/:id",
        "Subscription",
        [
            detail("/api/subscriptions/:id"),
            action_bar("/api/subscriptions/:id/actions"),
            table("/api/subscriptions/:id/invoices", title="Invoices", row_link="/invoices/:id", empty=_INVOICES),
            table(
                "/api/subscriptions/:id/changes",
                title="Requested Changes",
                empty=("history", "No changes yet", "What members and staff ask for is listed here."),
            ),
            form(
                "/api/subscriptions/:id/change/form",
                submit="/api/subscriptions/:id/change",
                method="POST",
                label="Change",
                title="Change to another product",
            ),
            _WHAT_A_CHANGE_COSTS,
        ],
        show_back=True,
    ),
]
