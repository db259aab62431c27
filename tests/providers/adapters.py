"""What the contract test needs to know about each provider: settings, and how to make a payment happen there."""

from types import TracebackType
from typing import Protocol, Self

from ledger.providers.contract import Settings
from ledger.providers.manual import ManualType
from ledger.providers.provider import ProviderType
from ledger.providers.stripe import StripeType
from tests.fakes.stripe import SECRET_KEY, WEBHOOK_SECRET, FakeStripe
from tests.providers.example_provider import VoucherType


class ProviderAdapter(Protocol):
    """One provider under test, with the service behind it as long as it is entered."""

    provider_type: ProviderType
    good_settings: Settings
    bad_settings: tuple[tuple[Settings, str], ...]
    """Settings that are refused, each with the key of the field that is wrong."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def pay(self, checkout_remote_id: str) -> tuple[bytes, dict[str, str]]:
        """Somebody pays a checkout. Returns the event that the provider sends: body and headers."""
        ...

    async def go_away(self) -> None:
        """From now on the service behind the provider cannot be reached, if there is one."""
        ...


class WithoutService:
    """What providers have in common that ask nobody."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    async def pay(self, checkout_remote_id: str) -> tuple[bytes, dict[str, str]]:
        raise AssertionError("A provider without a service has no checkout")

    async def go_away(self) -> None:
        pass


class StripeAdapter:
    """Stripe, played by the project's own fake."""

    def __init__(self) -> None:
        self.good_settings: Settings = {"secretKey": SECRET_KEY, "publicKey": "", "webhookSecret": WEBHOOK_SECRET}
        self.bad_settings: tuple[tuple[Settings, str], ...] = (
            ({}, "secretKey"),
            ({"secretKey": "pk_test_51LedgerFakeStripe"}, "secretKey"),
            ({"secretKey": SECRET_KEY, "publicKey": "pk_live_51LedgerFakeStripe"}, "publicKey"),
            ({"secretKey": SECRET_KEY, "webhookSecret": "letmein"}, "webhookSecret"),
        )
        self._fake = FakeStripe()

    async def __aenter__(self) -> Self:
        await self._fake.start()
        self.provider_type: ProviderType = StripeType(self._fake.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._fake.stop()
        assert self._fake.violations == []

    async def pay(self, checkout_remote_id: str) -> tuple[bytes, dict[str, str]]:
        return self._fake.sign(self._fake.pay(checkout_remote_id))

    async def go_away(self) -> None:
        await self._fake.stop()


class ManualTransferAdapter(WithoutService):
    """The manual provider with a bank account."""

    def __init__(self) -> None:
        self.provider_type: ProviderType = ManualType()
        self.good_settings: Settings = {
            "paymentMethod": "iban",
            "ibanHolder": "Sportverein Köln e. V.",
            "ibanNumber": "DE89 3704 0044 0532 0130 00",
            "ibanBank": "Musterbank, COBADEFFXXX",
        }
        self.bad_settings: tuple[tuple[Settings, str], ...] = (
            ({}, "paymentMethod"),
            ({**self.good_settings, "paymentMethod": "paypal"}, "paymentMethod"),
            ({**self.good_settings, "ibanHolder": ""}, "ibanHolder"),
            ({**self.good_settings, "ibanNumber": "DE88 3704 0044 0532 0130 00"}, "ibanNumber"),
        )


class ManualCashAdapter(WithoutService):
    """The manual provider that asks for cash."""

    def __init__(self) -> None:
        self.provider_type: ProviderType = ManualType()
        self.good_settings: Settings = {"paymentMethod": "cash"}
        self.bad_settings: tuple[tuple[Settings, str], ...] = (({"paymentMethod": "Cash"}, "paymentMethod"),)


class ManualTextAdapter(WithoutService):
    """The manual provider with a text of the administrator's own, which forgets the reference."""

    def __init__(self) -> None:
        self.provider_type: ProviderType = ManualType()
        self.good_settings: Settings = {"paymentMethod": "custom", "customInstructions": "Pay {amount} at the bar."}
        self.bad_settings: tuple[tuple[Settings, str], ...] = (
            ({"paymentMethod": "custom"}, "customInstructions"),
            ({"paymentMethod": "custom", "customInstructions": "x" * 5001}, "customInstructions"),
        )


class VoucherAdapter(WithoutService):
    """The example provider."""

    def __init__(self) -> None:
        self.provider_type: ProviderType = VoucherType()
        self.good_settings: Settings = {"counter": "Clubhouse"}
        self.bad_settings: tuple[tuple[Settings, str], ...] = (({}, "counter"), ({"counter": "  "}, "counter"))


ADAPTERS: tuple[type[ProviderAdapter], ...] = (
    StripeAdapter,
    ManualTransferAdapter,
    ManualCashAdapter,
    ManualTextAdapter,
    VoucherAdapter,
)
"""Every provider goes through the contract test: a new one adds its adapter here."""
