"""Up to when what is kept, by the present settings."""

from datetime import datetime
from zoneinfo import ZoneInfo

from ledger.billing_settings.store import get_settings
from ledger.database.connection import Connection
from ledger.retention.rules import ANSWERS_KEPT, DELIVERIES_KEPT, PAYLOADS_KEPT, kept_since
from ledger.retention.walking import Limits


async def find_limits(connection: Connection, *, now: datetime, zone: ZoneInfo, is_dry: bool = False) -> Limits:
    """What is due at `now`."""
    settings = await get_settings(connection)
    return Limits(
        now=now,
        kept_since=kept_since(now, retention_days=settings.data_retention_days, zone=zone),
        payloads_before=now - PAYLOADS_KEPT,
        deliveries_before=now - DELIVERIES_KEPT,
        answers_before=now - ANSWERS_KEPT,
        is_dry=is_dry,
    )
