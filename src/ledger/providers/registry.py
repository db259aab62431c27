"""Which kinds of providers there are. A new one is added here, and nowhere else but in its own file."""

from collections.abc import Mapping, Sequence

from ledger.errors import BadRequest, FieldError
from ledger.providers.provider import ProviderType


class UnknownProviderType(BadRequest):
    """There is no such kind of provider."""


class ProviderRegistry:
    """The kinds of providers by name, in the order they are offered."""

    def __init__(self, types: Sequence[ProviderType]) -> None:
        self._types: Mapping[str, ProviderType] = {each.name: each for each in types}

    def names(self) -> list[str]:
        return list(self._types)

    def all(self) -> list[ProviderType]:
        return list(self._types.values())

    def get(self, name: str) -> ProviderType:
        """The kind of that name. Raises `UnknownProviderType`."""
        found = self._types.get(name)
        if found is None:
            sentence = f"Unknown provider type: {name[:50]}"
            known = f"must be one of {', '.join(self._types)}"
            raise UnknownProviderType(sentence, fields=[FieldError("type", known)])
        return found

    def find(self, name: str) -> ProviderType | None:
        """The kind of that name, or None: a stored connection may outlive its code."""
        return self._types.get(name)
