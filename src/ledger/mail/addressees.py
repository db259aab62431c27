"""Who a mail goes to: name and address, asked from Lanyard when it is sent. Neither is stored or logged."""

import unicodedata

from ledger.billing_settings.mailboxes import Mailbox, find_address
from ledger.lanyard import LanyardClient

_NAME_CHARACTERS_MAX = 100


class NoAddress(Exception):
    """There is nobody to send a mail to; the text says why."""


class Addressees:
    """Asks Lanyard for people's addresses."""

    def __init__(self, lanyard: LanyardClient | None) -> None:
        """Standalone there is no Lanyard."""
        self._lanyard = lanyard

    async def get(self, *, user_id: str) -> Mailbox:
        """The person's name and address. Raises `NoAddress`, and `LanyardSilent` when Lanyard cannot say."""
        if self._lanyard is None:
            raise NoAddress("Ledger runs without Lanyard, which knows people's addresses")
        user = await self._lanyard.user(user_id)
        if user is None:
            raise NoAddress("Lanyard does not know this person any more")
        if not user.email:
            raise NoAddress("Lanyard has no e-mail address of this person")
        address = find_address(user.email)
        if address is None:
            raise NoAddress("The e-mail address that Lanyard has of this person cannot be used")
        return Mailbox(name=one_line(user.name or "")[:_NAME_CHARACTERS_MAX].strip() or None, address=address)


def one_line(text: str) -> str:
    """A text without line breaks, control characters and repeated blanks, as it may stand in a header."""
    kept = "".join(" " if unicodedata.category(character)[0] in "CZ" else character for character in text)
    return " ".join(kept.split())
