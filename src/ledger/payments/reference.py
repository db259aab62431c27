"""Payment references that a bank accepts and software can find again: ISO 11649 creditor references.

`INV-2026-0001` is paid under `RF16INV20260001`: `RF`, two check digits, and the invoice number without punctuation.
Banks check the digits (a mistyped one is refused before money moves) and carry the reference unchanged to the payee's
statement. Nothing here is read or stored. Why this and not the number itself:
`docs/decisions/0007-payment-reference.md`.

Source: ISO 11649:2009; the check digits are those of ISO 7064, MOD 97-10, as in an IBAN.
"""

import re
from typing import NamedTuple

REFERENCE_CHARACTERS_MAX = 25
"""The longest creditor reference, `RF` and the check digits included."""

_PREFIX = "RF"
_FORM = re.compile(r"RF[0-9]{2}[A-Z0-9]{1,21}")
_PUNCTUATION = re.compile(r"[^A-Za-z0-9]+")


def creditor_reference(invoice_number: str) -> str:
    """Returns the reference an invoice is paid under: `INV-2026-0001` gives `RF16INV20260001`.

    Two numbers have the same reference only when they differ in punctuation or case alone, which numbers made by
    `invoices.rules.invoice_number` never do.
    Raises ValueError for a number without letters and digits, with others than ASCII's, or with more than 21 of them.
    """
    if not invoice_number.isascii():
        # Leaving such letters out as if they were punctuation could give two numbers one reference.
        raise ValueError(f"a payment reference has ASCII letters and digits only, not those of {invoice_number!r}")
    body = _PUNCTUATION.sub("", invoice_number).upper()
    reference = f"{_PREFIX}{_check_digits(body)}{body}"
    if not body or len(reference) > REFERENCE_CHARACTERS_MAX:
        raise ValueError(f"a payment reference needs 1 to 21 letters and digits, which {invoice_number!r} has not")
    return reference


class ReferencePrefix(NamedTuple):
    """The part of a reference that all invoices of a series share, for making many references in one statement."""

    body: str
    """Without punctuation: `INV2026`."""
    digits: str
    """The same as the check digits are computed of it, each letter as two digits: `1823312026`."""


def reference_prefix(series: str) -> ReferencePrefix:
    """Returns what the references of a series of invoice numbers (`INV-2026`) have in common."""
    body = _PUNCTUATION.sub("", series).upper()
    return ReferencePrefix(body, "".join(str(int(character, 36)) for character in body))


def is_creditor_reference(text: str) -> bool:
    """Tells whether `text` is a creditor reference with the right check digits; spaces and case do not matter."""
    reference = normalise_reference(text)
    # Computing the digits is stricter than testing for the remainder 1, which 00, 01 and 99 can give too.
    return _FORM.fullmatch(reference) is not None and reference[2:4] == _check_digits(reference[4:])


def normalise_reference(text: str) -> str:
    """Returns a reference as it is stored and searched: without spaces, in upper case. Whatever else stays."""
    compact = "".join(text.split())
    # `upper` turns some foreign letters into ASCII ones (a dotless i into I), which nobody meant.
    return compact.upper() if compact.isascii() else compact


def format_reference(reference: str) -> str:
    """Returns a reference as people read and type it, in groups of four: `RF16 INV2 0260 001`."""
    compact = normalise_reference(reference)
    return " ".join(compact[start : start + 4] for start in range(0, len(compact), 4))


def _check_digits(body: str) -> str:
    """The two digits that make the remainder of the whole 1: letters count as two digits, A is 10 and Z is 35."""
    number = int("".join(str(int(character, 36)) for character in f"{body}{_PREFIX}00"))
    return f"{98 - number % 97:02d}"
