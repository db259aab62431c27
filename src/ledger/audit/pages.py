"""The Dashboard's page about the audit log."""

from ledger.web.pages import Link, Page, staff_link, staff_page, table

pages: list[Page] = [
    staff_page(
        "/audit",
        "Audit Log",
        [table("/api/audit", empty=("scroll-text", "Nothing yet", "Every change will be listed here."))],
        layout="wide",
    )
]
staff_links: list[Link] = [staff_link("Audit Log", "/audit", "scroll-text")]
