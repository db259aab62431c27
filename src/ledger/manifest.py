"""The UI manifest: the features' pages, joined for the present capabilities and checked before it is sent.

Lanyard drops a manifest that breaks its schema without saying so; hence it is validated here first.
"""

from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import cast

import jsonschema_rs
import msgspec

from ledger.audit import pages as audit
from ledger.billing_settings import pages as billing_settings
from ledger.deliveries import pages as deliveries
from ledger.identity import MANAGE_PERMISSION
from ledger.inbound import pages as inbound
from ledger.invoices import pages as invoices
from ledger.payments import pages as payments
from ledger.products import pages as products
from ledger.providers import pages as providers
from ledger.providers.contract import Capability
from ledger.retention import pages as retention
from ledger.service_access import pages as service_access
from ledger.subscriptions import pages as subscriptions
from ledger.system import pages as system
from ledger.webhooks import pages as webhooks

SCHEMA = Path(__file__).with_name("manifest.schema.json")


class ManifestInvalid(Exception):
    """The manifest breaks Lanyard's schema; it would be dropped silently."""


@cache
def _validator() -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(msgspec.json.decode(SCHEMA.read_bytes()))


def build_manifest(*, app_version: str, capabilities: Collection[Capability] = ()) -> dict[str, object]:
    """The manifest for the Dashboard. Raises `ManifestInvalid` when it breaks Lanyard's schema."""
    features = (
        payments,
        products,
        providers,
        webhooks,
        deliveries,
        audit,
        billing_settings,
        retention,
        service_access,
        system,
    )
    links = [
        *invoices.staff_links,
        *subscriptions.staff_links_for(capabilities),
        *(link for feature in features for link in feature.staff_links),
    ]
    items = [*invoices.user_links, *links[:1], *subscriptions.user_links_for(capabilities)]
    links += inbound.links_for(capabilities)
    manifest = {
        "name": "Ledger",
        "icon": "receipt",
        "version": app_version,
        "navigation": items,
        "sidebar": {"items": items, "footerItems": links[1:]},
        "widgets": [],
        "pages": [
            *invoices.pages_for(capabilities),
            *subscriptions.pages_for(capabilities),
            *(page for feature in features for page in feature.pages),
            *inbound.pages_for(capabilities),
        ],
        "permissions": [MANAGE_PERMISSION],
    }
    built = cast("dict[str, object]", msgspec.to_builtins(manifest))
    for fault in _validator().iter_errors(built):
        raise ManifestInvalid(f"the manifest breaks its schema at {fault.instance_path}: {fault.message}")
    return built
