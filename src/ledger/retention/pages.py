"""The Dashboard's pages about personal data."""

from ledger.web.pages import Link, Page, action_bar, callout, detail, form, staff_link, staff_page, table

_COMING_UP = table(
    "/api/privacy/schedule",
    title="What Will Be Erased When",
    empty=("calendar-clock", "Nothing yet", "Once there are invoices, it says here when whose data goes."),
)

pages: list[Page] = [
    staff_page(
        "/privacy",
        "Privacy",
        [
            detail("/api/privacy", title="How Long Personal Data Is Kept"),
            _COMING_UP,
            form(
                "/api/privacy/person/form",
                submit="/api/privacy/person",
                method="POST",
                label="Look Up",
                title="Export or Erase a Person's Data",
            ),
            callout(
                "What stays",
                "Numbers, amounts, dates, states and taxes of invoices and payments are never erased. What goes is who "
                "they were about. The number of days is on the page Settings.",
            ),
        ],
    ),
    staff_page(
        "/privacy/users/:id",
        "A Person's Data",
        [
            detail("/api/privacy/users/:id"),
            action_bar("/api/privacy/users/:id/actions"),
            callout(
                "What erasing does",
                "What no law keeps goes at once: notes, mails, payment instructions, what providers sent. Invoices "
                "stay until their time is up, with the person's id and nothing else; nobody writes to the person "
                "any more. The payment provider and Lanyard have to be asked on their own.",
                variant="warning",
            ),
        ],
        show_back=True,
    ),
]
staff_links: list[Link] = [staff_link("Privacy", "/privacy", "shield")]
