"""The Dashboard's page about what Ledger does by itself."""

from ledger.web.pages import Link, Page, staff_link, staff_page, stats, table

pages: list[Page] = [
    staff_page(
        "/jobs",
        "Jobs",
        [
            stats("/api/jobs/stats"),
            table(
                "/api/jobs",
                title="Schedules",
                empty=("clock", "No schedules", "What Ledger does by itself will be listed here."),
            ),
            table(
                "/api/jobs/runs",
                title="Latest Runs",
                empty=("history", "Nothing has run yet", "A worker is needed for that: is one running?"),
            ),
        ],
        layout="wide",
    )
]
staff_links: list[Link] = [staff_link("Jobs", "/jobs", "clock")]
