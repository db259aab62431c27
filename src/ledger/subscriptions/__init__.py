"""Subscriptions: what a person receives again and again, as the provider that charges for it says it stands."""
