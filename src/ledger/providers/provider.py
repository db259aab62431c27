"""What a provider implements: `ProviderType` says what kind it is, `Provider` is a connection with its settings."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Protocol

from ledger.errors import CapabilityMissing, FieldError
from ledger.providers.contract import (
    BankAccount,
    Capability,
    Checkout,
    CheckoutState,
    EventMeaning,
    EventPage,
    NothingToDo,
    ProviderEvent,
    RefundState,
    SettingField,
    Settings,
    SignatureWrong,
    StartedPayment,
    SyncedProduct,
    WantedPayment,
    WantedProduct,
    WantedRefund,
)
from ledger.providers.subscription_contract import (
    BilledPeriod,
    ChangePreview,
    SubscriptionState,
    WantedChange,
    WantedSubscription,
)


class Provider(Protocol):
    """A connection to a provider, with its settings. Each method may take 8 s at most."""

    async def close(self) -> None:
        """Gives connections back."""
        ...

    async def test(self) -> str:
        """Asks the provider whether the settings work; returns a sentence that says as whom.

        Raises `ProviderRefused` and `ProviderUnreachable`.
        """
        ...

    def bank_account(self) -> BankAccount | None:
        """The account that payers transfer money to, when that is how this connection takes payments. Asks nobody."""
        ...

    async def start_payment(self, wanted: WantedPayment) -> StartedPayment:
        """Opens a checkout, or says how to pay. The same `intent_id` gives the same checkout.

        Raises `ProviderRefused`, `ProviderUnreachable`, `OutcomeUnknown`.
        """
        ...

    async def look_up_checkout(self, *, intent_id: str, remote_id: str | None) -> CheckoutState:
        """Where a checkout stands. Without a `remote_id` it is found by the intent it was made for."""
        ...

    async def expire_checkout(self, *, remote_id: str) -> CheckoutState:
        """Closes a checkout and says where it stands then: it may have been paid in the same moment."""
        ...

    async def refund(self, wanted: WantedRefund) -> RefundState:
        """Sends money back. Raises like `start_payment`."""
        ...

    async def look_up_refund(self, wanted: WantedRefund, *, remote_id: str | None) -> RefundState:
        """Where a refund stands. Without a `remote_id` it is found by the intent it was made for."""
        ...

    async def sync_product(self, wanted: WantedProduct) -> SyncedProduct:
        """Brings the provider's product and price to this version. Raises like `start_payment`."""
        ...

    async def start_subscription(self, wanted: WantedSubscription) -> Checkout | SubscriptionState:
        """Opens a page where the subscription can be started, or starts it. The same intent gives the same.

        Raises like `start_payment`.
        """
        ...

    async def look_up_subscription(
        self, *, intent_id: str, remote_id: str | None, checkout_remote_id: str | None
    ) -> SubscriptionState:
        """Where a subscription stands. Without the other ids it is found by the intent it was made for."""
        ...

    async def preview_change(self, wanted: WantedChange) -> ChangePreview:
        """What a change would cost. Changes nothing. Raises `ProviderRefused`, `ProviderUnreachable`."""
        ...

    async def change_subscription(self, wanted: WantedChange) -> SubscriptionState:
        """Gives a subscription another price. The same intent has its effect once. Raises like `start_payment`."""
        ...

    async def cancel_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        """Ends a subscription at the end of its period. Raises like `start_payment`."""
        ...

    async def reactivate_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        """Takes a cancellation back, and tries to collect what is past due. Raises like `start_payment`."""
        ...

    async def look_up_period(self, *, remote_id: str) -> BilledPeriod | None:
        """A bill of a subscription as it stands; None when the provider knows of no such bill."""
        ...

    async def list_paid_periods(self, *, subscription_remote_id: str, since: datetime) -> Sequence[str]:
        """The remote ids of a subscription's paid bills that were made since then, oldest first."""
        ...

    async def list_events(self, *, since: datetime, after: str | None) -> EventPage:
        """The provider's own list of the events that Ledger has a use for, part by part."""
        ...

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        """Verifies a signed event on its raw bytes. Raises `SignatureWrong`. `headers` have lower-case names."""
        ...

    async def understand_event(self, body: bytes) -> EventMeaning:
        """What a stored event means, asking the provider for the present state where the event alone is not enough.

        Raises `ProviderUnreachable` when it cannot be asked, and `ProviderRefused` when the event makes no sense.
        """
        ...


class ProviderType(Protocol):
    """A kind of provider: what it can do and what it needs to know."""

    name: ClassVar[str]
    """`stripe`, `manual`: stored with connections and payments, and part of no URL."""
    label: ClassVar[str]
    capabilities: ClassVar[frozenset[Capability]]
    syncs_products: ClassVar[bool]
    """Whether the provider has a catalogue of its own that is to follow ours."""

    def fields(self) -> Sequence[SettingField]:
        """The settings, in the order of the form."""
        ...

    def check(self, settings: Settings) -> Sequence[FieldError]:
        """What is wrong with settings, in words for a treasurer; nothing is sent anywhere."""
        ...

    def check_change(self, before: Settings, after: Settings) -> Sequence[FieldError]:
        """What speaks against changing the settings of a connection that payments came through already.

        Another account knows nothing of them: that is a connection of its own.
        """
        ...

    def connect(self, settings: Settings) -> Provider:
        """A connection with settings that passed `check`."""
        ...


_NO_SUBSCRIPTIONS = "This provider does not keep subscriptions"


class ProviderDefaults:
    """Says no to everything a small provider cannot do; such a provider overrides the little it can."""

    async def close(self) -> None:
        """Has nothing to give back."""

    def bank_account(self) -> BankAccount | None:
        return None

    async def look_up_checkout(self, *, intent_id: str, remote_id: str | None) -> CheckoutState:
        return CheckoutState(status="unknown")

    async def expire_checkout(self, *, remote_id: str) -> CheckoutState:
        return CheckoutState(status="unknown")

    async def refund(self, wanted: WantedRefund) -> RefundState:
        raise CapabilityMissing("This provider cannot send money back; return it the way it came")

    async def look_up_refund(self, wanted: WantedRefund, *, remote_id: str | None) -> RefundState:
        return RefundState(status="unknown")

    async def sync_product(self, wanted: WantedProduct) -> SyncedProduct:
        return SyncedProduct(product_remote_id=wanted.product_id, price_remote_id=wanted.price_id)

    async def start_subscription(self, wanted: WantedSubscription) -> Checkout | SubscriptionState:
        raise CapabilityMissing(_NO_SUBSCRIPTIONS)

    async def look_up_subscription(
        self, *, intent_id: str, remote_id: str | None, checkout_remote_id: str | None
    ) -> SubscriptionState:
        return SubscriptionState(status="unknown")

    async def preview_change(self, wanted: WantedChange) -> ChangePreview:
        raise CapabilityMissing(_NO_SUBSCRIPTIONS)

    async def change_subscription(self, wanted: WantedChange) -> SubscriptionState:
        raise CapabilityMissing(_NO_SUBSCRIPTIONS)

    async def cancel_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        raise CapabilityMissing(_NO_SUBSCRIPTIONS)

    async def reactivate_subscription(self, *, intent_id: str, remote_id: str) -> SubscriptionState:
        raise CapabilityMissing(_NO_SUBSCRIPTIONS)

    async def look_up_period(self, *, remote_id: str) -> BilledPeriod | None:
        return None

    async def list_paid_periods(self, *, subscription_remote_id: str, since: datetime) -> Sequence[str]:
        return ()

    async def list_events(self, *, since: datetime, after: str | None) -> EventPage:
        return EventPage(events=())

    def read_event(self, body: bytes, headers: Mapping[str, str]) -> ProviderEvent:
        raise SignatureWrong("This provider sends no events")

    async def understand_event(self, body: bytes) -> EventMeaning:
        return NothingToDo()
