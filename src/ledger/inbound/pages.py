"""The Dashboard's page about events that Stripe sent."""

from collections.abc import Collection

from ledger.providers.contract import Capability
from ledger.web.pages import Link, Page, staff_link, staff_page, table

_RETRY = {"label": "Retry", "endpoint": "/api/stripe-events/:id/retry", "method": "POST"}

_PAGE = staff_page(
    "/stripe-events",
    "Stripe Events",
    [
        table(
            "/api/stripe-events",
            row_actions=[_RETRY],
            empty=("zap", "No events yet", "What Stripe tells about payments and subscriptions will be listed here."),
        )
    ],
    layout="wide",
)


def pages_for(capabilities: Collection[Capability]) -> list[Page]:
    """The page, where a provider keeps subscriptions."""
    return [_PAGE] if Capability.SUBSCRIPTIONS in capabilities else []


def links_for(capabilities: Collection[Capability]) -> list[Link]:
    """What stands in the sidebar for staff."""
    return [staff_link("Stripe Events", "/stripe-events", "zap")] if Capability.SUBSCRIPTIONS in capabilities else []
