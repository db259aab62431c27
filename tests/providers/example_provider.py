"""An example: vouchers that people buy at the counter. This one file is all that a provider without a service needs."""

from collections.abc import Sequence
from typing import ClassVar

from ledger.errors import FieldError
from ledger.money import format_money
from ledger.providers.contract import Capability, Instructions, SettingField, Settings, WantedPayment
from ledger.providers.provider import ProviderDefaults


class VoucherType:
    """Payments with vouchers (implements `contract.ProviderType`)."""

    name: ClassVar[str] = "voucher"
    label: ClassVar[str] = "Voucher"
    syncs_products: ClassVar[bool] = False
    capabilities: ClassVar[frozenset[Capability]] = frozenset({Capability.INVOICES})

    def fields(self) -> Sequence[SettingField]:
        return (SettingField(key="counter", label="Where Vouchers Are Sold", is_required=True),)

    def check(self, settings: Settings) -> Sequence[FieldError]:
        if settings.get("counter", "").strip():
            return []
        return [FieldError("counter", "Enter where people can buy a voucher")]

    def check_change(self, before: Settings, after: Settings) -> Sequence[FieldError]:
        """Nothing: what was paid to an account before stays paid."""
        return ()

    def connect(self, settings: Settings) -> "VoucherProvider":
        return VoucherProvider(settings["counter"].strip())


class VoucherProvider(ProviderDefaults):
    """Sends payers to the counter (implements `contract.Provider`)."""

    def __init__(self, counter: str) -> None:
        self._counter = counter

    async def test(self) -> str:
        return f"Nothing to connect to: vouchers are sold at {self._counter}"

    async def start_payment(self, wanted: WantedPayment) -> Instructions:
        amount = format_money(wanted.amount_minor, wanted.currency)
        number = f"{wanted.invoice_number} ({wanted.payment_reference})"
        return Instructions(text=f"Buy a voucher of {amount} at {self._counter}.\nName the invoice: {number}")
