"""The parts of the Dashboard's manifest: pages with their sections, and what stands in the sidebar.

Each feature declares its pages in its `pages` module; `ledger.manifest` joins them.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from ledger.identity import MANAGE_PERMISSION

Config = Mapping[str, object]
SectionType = Literal[
    "data-table", "detail", "form", "action-bar", "stats-row", "callout", "markdown", "empty-state", "timeline"
]
Layout = Literal["default", "split", "reading", "wide", "full"]


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a page: what it is, where its data comes from, how it is shown."""

    type: SectionType
    endpoint: str
    config: Config


class Page(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A page of the Dashboard, below Ledger's own path."""

    path: str
    title: str
    layout: Layout
    sections: Sequence[Section]
    show_back: bool = False
    required_permission: str | None = None


class Link(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """An entry of the sidebar. Icons are Lucide names."""

    label: str
    path: str
    icon: str
    required_permission: str | None = None


def staff_page(
    path: str, title: str, sections: Sequence[Section], *, layout: Layout = "default", show_back: bool = False
) -> Page:
    """A page for who holds `ledger:manage`. Hiding is not protection: each operation decides for itself."""
    return Page(
        path=path,
        title=title,
        layout=layout,
        sections=sections,
        show_back=show_back,
        required_permission=MANAGE_PERMISSION,
    )


def user_page(path: str, title: str, sections: Sequence[Section], *, show_back: bool = False) -> Page:
    """A page for everybody who is logged in."""
    return Page(path=path, title=title, layout="default", sections=sections, show_back=show_back)


def staff_link(label: str, path: str, icon: str) -> Link:
    """A sidebar entry for staff."""
    return Link(label=label, path=path, icon=icon, required_permission=MANAGE_PERMISSION)


def table(
    endpoint: str,
    *,
    title: str | None = None,
    row_link: str | None = None,
    create_link: str | None = None,
    create_label: str | None = None,
    row_actions: Sequence[Config] = (),
    empty: tuple[str, str, str],
) -> Section:
    """A table. `empty` is the icon, title and sentence shown when there are no rows."""
    icon, empty_title, description = empty
    config: dict[str, object] = {"emptyState": {"icon": icon, "title": empty_title, "description": description}}
    config |= {"title": title} if title else {}
    config |= {"rowLink": row_link} if row_link else {"readOnly": True}
    config |= {"createLink": create_link, "createLabel": create_label} if create_link else {}
    config |= {"rowActions": list(row_actions)} if row_actions else {}
    return Section(type="data-table", endpoint=endpoint, config=config)


def detail(endpoint: str, *, title: str | None = None) -> Section:
    """A thing's fields."""
    return Section(type="detail", endpoint=endpoint, config={"title": title} if title else {})


def action_bar(endpoint: str) -> Section:
    """Buttons, as the endpoint offers them in the present state."""
    return Section(type="action-bar", endpoint=endpoint, config={})


def form(
    endpoint: str, *, submit: str, method: Literal["POST", "PUT"], label: str, title: str | None = None
) -> Section:
    """A form whose fields and true values come from `endpoint`, sent to `submit`."""
    config: dict[str, object] = {"submitEndpoint": submit, "method": method, "submitLabel": label}
    return Section(type="form", endpoint=endpoint, config=config | ({"title": title} if title else {}))


def stats(endpoint: str) -> Section:
    """A row of figures."""
    return Section(type="stats-row", endpoint=endpoint, config={})


def callout(title: str, body: str, *, variant: Literal["info", "warning"] = "info") -> Section:
    """A boxed remark that stands on the page itself."""
    return Section(type="callout", endpoint="", config={"variant": variant, "title": title, "body": body})
