"""The rules by which Lanyard takes a manifest, written down again from its contract, by hand.

A manifest that breaks one is dropped without a word, so they are kept here apart from the schema that Ledger checks
its manifest with, and from the checker.
"""

import re
from collections.abc import Iterator, Set
from typing import Any

PAGES_MAX = WIDGETS_MAX = 50
SECTIONS_MAX = 20
LINKS_MAX = 30
CHILDREN_MAX = 10
LINK_PATH = re.compile(r"/[a-z0-9\-/]*")
LAYOUTS = {"default", "split", "reading", "wide", "full", "full-width"}
SECTION_TYPES = {
    *("data-table", "form", "detail", "widget-grid", "action-bar", "two-factor", "passkey-manager", "markdown"),
    *("markdown-editor", "search", "cards", "tabs", "stats-row", "callout", "empty-state", "hero", "timeline"),
    *("calendar-month", "calendar-day", "calendar-grid", "agenda", "upcoming-strip", "approval-queue", "kanban"),
    "custom",
}
TOP = {"name", "icon", "version", "navigation", "widgets", "pages", "permissions"}


def faults_in_manifest(manifest: dict[str, Any]) -> list[str]:
    """What Lanyard would drop this manifest for. Empty when it would take it."""
    return list(_faults(manifest))


def _faults(manifest: dict[str, Any]) -> Iterator[str]:
    yield from _keys("manifest", manifest, required=TOP, optional={"accentColor", "sidebar"})
    yield from _text("name", manifest.get("name"), most=100)
    yield from _text("icon", manifest.get("icon"), most=50)
    yield from _text("version", manifest.get("version"), most=20)
    links = {"navigation": manifest.get("navigation", [])}
    sidebar = manifest.get("sidebar", {})
    yield from _keys("sidebar", sidebar, optional={"primaryAction", "items", "tree", "footerItems"})
    links |= {name: sidebar[name] for name in ("items", "footerItems") if name in sidebar}
    for name, entries in links.items():
        if len(entries) > LINKS_MAX:
            yield f"{name}: more than {LINKS_MAX}"
        for entry in entries:
            yield from _link(name, entry)
    if len(manifest.get("pages", [])) > PAGES_MAX or len(manifest.get("widgets", [])) > WIDGETS_MAX:
        yield "too many pages or widgets"
    for page in manifest.get("pages", []):
        yield from _page(page)
    if len(manifest.get("permissions", [])) > 100:
        yield "too many permissions"
    for permission in manifest.get("permissions", []):
        yield from _text("permission", permission, most=100, least=0)


def _link(where: str, link: dict[str, Any]) -> Iterator[str]:
    optional = {"badge", "children", "requiredPermission", "showWhen"}
    yield from _keys(where, link, required={"label", "path", "icon"}, optional=optional)
    yield from _text(f"{where}.label", link.get("label"), most=50)
    yield from _text(f"{where}.icon", link.get("icon"), most=50)
    yield from _text(f"{where}.path", link.get("path"), most=200)
    if not LINK_PATH.fullmatch(str(link.get("path"))):
        yield f"{where}: {link.get('path')} is no path of a link"
    if len(link.get("children", [])) > CHILDREN_MAX:
        yield f"{where}: too many children"


def _page(page: dict[str, Any]) -> Iterator[str]:
    where = f"page {page.get('path')}"
    yield from _keys(
        where, page, required={"path", "title", "layout", "sections"}, optional={"showBack", "requiredPermission"}
    )
    yield from _text(where, page.get("path"), most=200)
    yield from _text(where, page.get("title"), most=100)
    if page.get("layout") not in LAYOUTS:
        yield f"{where}: layout {page.get('layout')}"
    if len(page.get("sections", [])) > SECTIONS_MAX:
        yield f"{where}: too many sections"
    for section in page.get("sections", []):
        yield from _keys(where, section, required={"type", "endpoint", "config"})
        if section.get("type") not in SECTION_TYPES:
            yield f"{where}: section type {section.get('type')}"
        yield from _text(f"{where}: endpoint", section.get("endpoint"), most=500, least=0)
        if not isinstance(section.get("config"), dict):
            yield f"{where}: config is no object"


def _keys(
    where: str, given: dict[str, Any], *, required: Set[str] = frozenset(), optional: Set[str] = frozenset()
) -> Iterator[str]:
    for missing in required - given.keys():
        yield f"{where}: {missing} is missing"
    for unknown in given.keys() - required - optional:
        yield f"{where}: {unknown} is unknown"


def _text(where: str, value: object, *, most: int, least: int = 1) -> Iterator[str]:
    if not isinstance(value, str) or not least <= len(value) <= most:
        yield f"{where}: not a text of {least} to {most} characters"
