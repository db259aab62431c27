"""Puts a mail together as RFC 5322 and MIME have it: text and HTML, headers that cannot be broken out of.

The headers are written here: Python's library (3.11 to 3.13) forgets the quotes of a name when it has to fold it, so a
comma in the name of an association would have made two addresses of one.
"""

import base64
import re
from collections.abc import Iterator
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

import msgspec

from ledger.billing_settings.mailboxes import Mailbox
from ledger.mail.addressees import one_line
from ledger.mail.words import Language

SUBJECT_CHARACTERS_MAX = 200
# What may stand in a header as it is; "=?" would begin an encoded word.
_PLAIN = re.compile(r"(?!.*=\?)[ -~]{1,60}")
_PLAIN_NAME = re.compile(r"(?!.*=\?)[A-Za-z0-9 !#$%&'*+/=?^_`{|}~-]{1,60}")
# An encoded word with them, and the header's name before it, fits a line of 76 characters (RFC 2047, section 2).
_BYTES_IN_WORD = 39
_FOLD = "\r\n "


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """What a mail says, rendered."""

    subject: str
    plain: str
    html: str


def compose(
    text: Text, *, mail_id: str, sender: Mailbox, recipient: Mailbox, language: Language, now: datetime
) -> bytes:
    """The message as it travels. Its Message-ID follows from the mail's id, so who gets it twice can tell.

    There is no Reply-To: answers go to the sender's address.
    """
    headers = {
        "From": _address(sender),
        "To": _address(recipient),
        "Subject": _unstructured(one_line(text.subject)[:SUBJECT_CHARACTERS_MAX]),
        "Date": format_datetime(now),
        "Message-ID": f"<{mail_id}@{sender.domain}>",
        "Content-Language": language,
        # No holiday notices, please (RFC 3834).
        "Auto-Submitted": "auto-generated",
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = EmailMessage(policy=SMTP)
    body.set_content(text.plain, cte="quoted-printable")
    body.add_alternative(text.html, subtype="html", cte="quoted-printable")
    return head.encode("ascii") + body.as_bytes()


def _address(mailbox: Mailbox) -> str:
    name = one_line(mailbox.name or "")
    if not name:
        return mailbox.address
    if _PLAIN_NAME.fullmatch(name):
        return f"{name} <{mailbox.address}>"
    return f"{_encoded(name)}{_FOLD}<{mailbox.address}>"


def _unstructured(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else _encoded(text)


def _encoded(text: str) -> str:
    """Encoded words (RFC 2047), each with whole characters."""
    return _FOLD.join(f"=?utf-8?b?{base64.b64encode(part).decode()}?=" for part in _parts(text))


def _parts(text: str) -> Iterator[bytes]:
    part = b""
    for character in text:
        # Half a character, which only broken programs write, becomes a question mark.
        encoded = character.encode("utf-8", "replace")
        if len(part) + len(encoded) > _BYTES_IN_WORD:
            yield part
            part = b""
        part += encoded
    yield part
