"""The Dashboard's pages about payment providers."""

from ledger.web.pages import Link, Page, action_bar, detail, form, staff_link, staff_page, table

pages: list[Page] = [
    staff_page(
        "/providers",
        "Payment Providers",
        [
            table(
                "/api/providers",
                row_link="/providers/:id",
                create_link="/providers/new",
                create_label="Add Provider",
                empty=("credit-card", "No providers yet", "Add one, fill in its settings, and activate it."),
            )
        ],
    ),
    staff_page(
        "/providers/new",
        "Add Provider",
        [form("/api/providers/form", submit="/api/providers", method="POST", label="Add")],
        show_back=True,
    ),
    staff_page(
        "/providers/:id",
        "Payment Provider",
        [
            detail("/api/providers/:id"),
            action_bar("/api/providers/:id/actions"),
            form(
                "/api/providers/:id/settings",
                submit="/api/providers/:id",
                method="PUT",
                label="Save",
                title="Settings",
            ),
        ],
        show_back=True,
    ),
]
staff_links: list[Link] = [staff_link("Providers", "/providers", "credit-card")]
