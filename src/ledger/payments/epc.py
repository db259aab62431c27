"""The QR code that fills in a bank transfer: the EPC's "SCT" code, also called GiroCode or "Zahlen mit Code".

A banking app reads payee, account, amount and reference from it. The reference stands in the field for structured
references, where the bank checks it and passes it on unchanged; the field for free text stays empty, since a code may
have only one of the two. Nothing here is read or stored.

Source: European Payments Council, EPC069-12, "Quick Response Code: Guidelines to Enable the Data Capture for the
Initiation of a SEPA Credit Transfer". It asks for error correction M, at most QR version 13 and at most 331 bytes.
Which countries take part: EPC409-09, "EPC List of SEPA Scheme Countries".
"""

import io
import unicodedata
from typing import TYPE_CHECKING

from ledger.errors import LedgerError
from ledger.money import format_decimal
from ledger.payments.reference import is_creditor_reference, normalise_reference
from ledger.providers.contract import HOLDER_CHARACTERS_MAX, BankAccount

if TYPE_CHECKING:
    import segno

# fmt: off
EEA_COUNTRIES = frozenset({
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IS", "IT", "LI", "LT",
    "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK",
})
"""Countries whose accounts need no BIC, by the letters their IBANs begin with."""
SEPA_COUNTRIES = EEA_COUNTRIES | {"AD", "AL", "CH", "GB", "GI", "MC", "MD", "ME", "MK", "RS", "SM", "VA"}
"""Countries a SEPA credit transfer reaches."""
# fmt: on

AMOUNT_MIN_MINOR = 1
AMOUNT_MAX_MINOR = 99_999_999_999
"""The code has room for 999999999.99 euros."""

_PAYLOAD_BYTES_MAX = 331
_QR_VERSION_MAX = 13
# At 8 pixels a module the usual code is about 400 pixels wide: a phone reads it from a screen at arm's length.
_MODULE_PIXELS = 8
# The quiet zone of ISO/IEC 18004; without it some readers do not find the code on a dark page.
_QUIET_MODULES = 4


class NoTransferCode(LedgerError):
    """There is no QR code for this transfer (404); the sentence says why, and what would help."""

    status = 404
    title = "No QR code"


def epc_text(account: BankAccount, *, amount_minor: int, currency: str, reference: str) -> str:
    """Returns what the code says: ten lines, from `BCD` to the creditor reference.

    `reference` is a creditor reference (`payments.reference`). Raises `NoTransferCode` when the transfer cannot be
    put into such a code, and ValueError when `reference` is not a creditor reference.
    """
    if not is_creditor_reference(reference):
        raise ValueError(f"{reference!r} is not a creditor reference")
    _check_amount(amount_minor, currency)
    _check_account(account)
    lines = [
        "BCD",
        "002",  # In this version the BIC may be left out.
        "1",  # UTF-8
        "SCT",
        account.bic or "",
        account.holder,
        account.iban,
        f"EUR{format_decimal(amount_minor, currency)}",
        "",  # The purpose code.
        normalise_reference(reference),
    ]
    # What follows, the free text and a note to the payer, is empty and may be left out.
    text = "\n".join(lines)
    if len(text.encode()) > _PAYLOAD_BYTES_MAX:
        raise NoTransferCode(
            "The account holder's name is too long for a QR code; shorten it in the provider's settings"
        )
    return text


def epc_png(text: str) -> bytes:
    """Returns the code as a PNG, black on white, about 400 pixels wide. `text` is `epc_text`'s.

    It takes about 15 ms of computing, so call it in a thread (`asyncio.to_thread`), not in the event loop.
    """
    picture = io.BytesIO()
    _code(text).save(picture, kind="png", scale=_MODULE_PIXELS, border=_QUIET_MODULES)
    return picture.getvalue()


def epc_svg(text: str) -> bytes:
    """Returns the code as an SVG document, black on white. `text` is `epc_text`'s. It takes as long as the PNG."""
    picture = io.BytesIO()
    # Without `light` the background would be transparent, and the code unreadable on a dark page.
    _code(text).save(picture, kind="svg", scale=_MODULE_PIXELS, border=_QUIET_MODULES, light="#fff")
    return picture.getvalue()


def _code(text: str) -> "segno.QRCode":
    # The import takes a tenth of a second, and most processes never draw a code.
    import segno

    # `boost_error` would raise the level of error correction where there is room; the guidelines want M.
    code = segno.make_qr(text.encode(), error="m", mode="byte", boost_error=False)
    if not isinstance(code.version, int) or code.version > _QR_VERSION_MAX:
        raise ValueError("the text does not fit into the QR code of a transfer")
    return code


def _check_amount(amount_minor: int, currency: str) -> None:
    if currency != "EUR":
        raise NoTransferCode(f"There are QR codes for transfers in EUR only, and this is in {currency}")
    if amount_minor < AMOUNT_MIN_MINOR:
        raise NoTransferCode("There is no QR code where nothing is to be paid")
    if amount_minor > AMOUNT_MAX_MINOR:
        raise NoTransferCode(f"A QR code has room for {format_decimal(AMOUNT_MAX_MINOR, 'EUR')} EUR at most")


def _check_account(account: BankAccount) -> None:
    country = account.iban[:2]
    if country not in SEPA_COUNTRIES:
        raise NoTransferCode(f"There are QR codes for SEPA accounts only, and {country} does not take part in SEPA")
    if account.bic is None and country not in EEA_COUNTRIES:
        raise NoTransferCode(
            f"For an account in {country} a QR code needs the BIC; add it to the bank in the provider's settings"
        )
    if not 0 < len(account.holder) <= HOLDER_CHARACTERS_MAX:
        raise NoTransferCode(f"A QR code has room for an account holder of 1 to {HOLDER_CHARACTERS_MAX} characters")
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in account.holder):
        # A line break would shift every line after it, the account among them.
        raise NoTransferCode("The account holder's name must be on one line; correct it in the provider's settings")
