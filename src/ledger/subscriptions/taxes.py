"""The tax of subscriptions: the provider adds it to every period, so it has to know the rate."""

from ledger.billing_settings.store import get_settings
from ledger.database.transaction import Tx
from ledger.providers.connections import Connected
from ledger.providers.store import find_remote_id, upsert_remote_id
from ledger.providers.subscription_contract import WantedTax


async def wanted_tax(tx: Tx, connected: Connected, *, tax_rate_bp: int | None) -> WantedTax | None:
    """The tax of a product (without a rate of its own, the configured one); None when there is none."""
    billing = await get_settings(tx.connection)
    rate_bp = billing.tax_rate_bp if tax_rate_bp is None else tax_rate_bp
    return await tax_at(tx, connected, rate_bp=rate_bp, label=billing.tax_label)


async def tax_at(tx: Tx, connected: Connected, *, rate_bp: int, label: str) -> WantedTax | None:
    """A tax with what the provider calls it, if it was asked for it before."""
    if rate_bp == 0:
        return None
    remote_id = await find_remote_id(
        tx.connection, connection_id=connected.stored.id, kind="tax_rate", local_id=f"{rate_bp}:{label}"
    )
    return WantedTax(rate_bp=rate_bp, label=label, remote_id=remote_id)


async def keep_tax(tx: Tx, *, connection_id: str, tax: WantedTax | None, remote_id: str | None) -> None:
    """Remembers what the provider calls a tax, when it was just told, or told anew because the rate was archived."""
    if tax is not None and remote_id is not None and remote_id != tax.remote_id:
        await upsert_remote_id(
            tx.connection,
            connection_id=connection_id,
            kind="tax_rate",
            local_id=f"{tax.rate_bp}:{tax.label}",
            remote_id=remote_id,
            now=tx.now,
        )
