"""The Dashboard's page about payments."""

from ledger.web.pages import Link, Page, staff_link, staff_page, table

pages: list[Page] = [
    staff_page(
        "/payments",
        "Payments",
        [
            table(
                "/api/payments",
                row_link="/invoices/:invoice",
                empty=("banknote", "No payments yet", "Money that arrives for an invoice will be listed here."),
            )
        ],
        layout="wide",
    )
]
staff_links: list[Link] = [staff_link("Payments", "/payments", "banknote")]
