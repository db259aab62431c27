"""The Dashboard's pages about products."""

from ledger.web.pages import Link, Page, action_bar, callout, detail, form, staff_link, staff_page, table

pages: list[Page] = [
    staff_page(
        "/products",
        "Products",
        [
            table(
                "/api/products",
                row_link="/products/:id",
                create_link="/products/new",
                create_label="Add Product",
                empty=("package", "No products yet", "Add what you sell once, or as a subscription."),
            )
        ],
    ),
    staff_page(
        "/products/new",
        "Add Product",
        [form("/api/products/form", submit="/api/products", method="POST", label="Add")],
        show_back=True,
    ),
    staff_page(
        "/products/:id",
        "Product",
        [
            detail("/api/products/:id"),
            action_bar("/api/products/:id/actions"),
            form("/api/products/:id/form", submit="/api/products/:id", method="PUT", label="Save", title="Change"),
            callout(
                "What changes when",
                "A new price counts for what is sold from now on. Existing subscriptions keep theirs until changed.",
            ),
        ],
        show_back=True,
    ),
]
staff_links: list[Link] = [staff_link("Products", "/products", "package")]
