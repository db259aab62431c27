"""The QR code of a bank transfer, read back from its pictures by another program's reader."""

import io
import re
from decimal import Decimal
from xml.etree import ElementTree

import pytest
import segno.helpers
import zxingcpp
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ledger.payments.epc import (
    AMOUNT_MAX_MINOR,
    SEPA_COUNTRIES,
    NoTransferCode,
    epc_png,
    epc_svg,
    epc_text,
)
from ledger.payments.reference import creditor_reference
from ledger.providers.contract import BankAccount

ACCOUNT = BankAccount(holder="Sportverein Köln e. V.", iban="DE89370400440532013000")
REFERENCE = "RF16INV20260001"


def text_of(
    account: BankAccount = ACCOUNT, *, amount_minor: int = 5950, currency: str = "EUR", reference: str = REFERENCE
) -> str:
    return epc_text(account, amount_minor=amount_minor, currency=currency, reference=reference)


def read(picture: Image.Image) -> zxingcpp.Barcode:
    # In some patterns of modules the reader also sees a bar code of another kind.
    [code] = [each for each in zxingcpp.read_barcodes(picture) if each.format == zxingcpp.BarcodeFormat.QRCode]
    return code


def draw(svg: bytes) -> Image.Image:
    """Draws the two paths of segno's SVG, each module as a pixel, as any program that shows an SVG does."""
    namespace = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(svg)
    background, modules = root.iter(f"{namespace}path")
    width = int(re.fullmatch(r"M0 0h(\d+)v\1h-\1z", background.get("d", ""))[1])  # type: ignore[index]
    picture = Image.new("1", (width, width), background.get("fill") == "#fff")
    pen = ImageDraw.Draw(picture)
    x, y = 0.0, 0.0
    for command, numbers in re.findall(r"([Mmh])([-\d. ]+)", modules.get("d", "")):
        values = [float(each) for each in re.findall(r"-?[\d.]+", numbers)]
        if command == "h":
            pen.line([(x, int(y)), (x + values[0] - 1, int(y))], fill=0)
            x += values[0]
        else:
            x, y = (values[0], values[1]) if command == "M" else (x + values[0], y + values[1])
    return picture.resize((width * 4, width * 4))


def test_every_line_says_what_the_guidelines_ask_for() -> None:
    (tag, version, character_set, kind, bic, holder, iban, amount, purpose, reference) = text_of().split("\n")
    assert (tag, version, character_set, kind) == ("BCD", "002", "1", "SCT")
    assert bic == ""
    assert holder == "Sportverein Köln e. V."
    assert iban == "DE89370400440532013000"
    assert amount == "EUR59.50"
    assert purpose == ""
    assert reference == "RF16INV20260001"


def test_the_bic_stands_in_the_code_when_it_is_known() -> None:
    account = BankAccount(holder="Verein", iban="DE89370400440532013000", bic="COBADEFFXXX")
    assert text_of(account).split("\n")[4] == "COBADEFFXXX"


def test_a_reference_typed_with_spaces_has_none_in_the_code() -> None:
    assert text_of(reference="rf16 inv2 0260 001") == text_of()


@pytest.mark.parametrize(
    ("amount_minor", "shown"),
    [(1, "EUR0.01"), (10, "EUR0.10"), (5000, "EUR50.00"), (AMOUNT_MAX_MINOR, "EUR999999999.99")],
)
def test_amounts_are_euros_with_two_decimals(amount_minor: int, shown: str) -> None:
    assert text_of(amount_minor=amount_minor).split("\n")[7] == shown


def test_the_png_reads_back_as_the_text() -> None:
    picture = Image.open(io.BytesIO(epc_png(text_of())))
    assert picture.format == "PNG"
    assert picture.width == picture.height == 392
    code = read(picture)
    assert code.format == zxingcpp.BarcodeFormat.QRCode
    assert code.ec_level == "M"
    assert code.text == text_of()
    assert code.bytes == text_of().encode()


def test_the_svg_reads_back_as_the_text() -> None:
    svg = epc_svg(text_of())
    assert svg.startswith(b'<?xml version="1.0" encoding="utf-8"?>\n<svg xmlns="http://www.w3.org/2000/svg"')
    assert read(draw(svg)).text == text_of()


def test_a_white_margin_of_four_modules_is_around_the_code() -> None:
    picture = Image.open(io.BytesIO(epc_png(text_of()))).convert("L")
    inner = picture.point(lambda value: 255 - value).getbbox()
    assert inner == (32, 32, picture.width - 32, picture.height - 32)


def test_the_code_is_the_one_segno_makes_of_the_same_transfer() -> None:
    """Another reading of the guidelines; it leaves the last 0 of an amount out, hence one without."""
    theirs = segno.helpers.make_epc_qr(
        name=ACCOUNT.holder, iban=ACCOUNT.iban, amount=Decimal("59.55"), reference=REFERENCE, encoding="utf-8"
    )
    picture = io.BytesIO()
    theirs.save(picture, kind="png", scale=8, border=4)
    assert epc_png(text_of(amount_minor=5955)) == picture.getvalue()


@settings(max_examples=25, deadline=None)
@given(
    amount_minor=st.integers(min_value=1, max_value=AMOUNT_MAX_MINOR),
    holder=st.text(st.characters(categories=["L", "N", "P", "Zs"], max_codepoint=0x7FF), min_size=1, max_size=70),
    count=st.integers(min_value=1, max_value=10**9),
)
def test_whatever_the_transfer_its_code_can_be_read(amount_minor: int, holder: str, count: int) -> None:
    text = text_of(
        BankAccount(holder=holder, iban=ACCOUNT.iban, bic="COBADEFFXXX"),
        amount_minor=amount_minor,
        reference=creditor_reference(f"INV-2026-{count:04d}"),
    )
    assert read(Image.open(io.BytesIO(epc_png(text)))).bytes == text.encode()


@pytest.mark.parametrize(
    ("amount_minor", "currency", "reason"),
    [
        (5950, "CHF", "There are QR codes for transfers in EUR only, and this is in CHF"),
        (0, "EUR", "There is no QR code where nothing is to be paid"),
        (-1, "EUR", "There is no QR code where nothing is to be paid"),
        (AMOUNT_MAX_MINOR + 1, "EUR", "A QR code has room for 999999999.99 EUR at most"),
    ],
)
def test_other_currencies_and_amounts_have_no_code(amount_minor: int, currency: str, reason: str) -> None:
    with pytest.raises(NoTransferCode) as refused:
        text_of(amount_minor=amount_minor, currency=currency)
    assert refused.value.sentence == reason
    assert refused.value.status == 404


def test_an_account_outside_sepa_has_no_code() -> None:
    account = BankAccount(holder="Dernek", iban="TR330006100519786457841326", bic="ISBKTRIS")
    with pytest.raises(NoTransferCode, match="TR does not take part in SEPA"):
        text_of(account)


def test_an_account_outside_the_eea_needs_its_bic() -> None:
    swiss = BankAccount(holder="Verein", iban="CH9300762011623852957")
    with pytest.raises(NoTransferCode, match="in CH a QR code needs the BIC"):
        text_of(swiss)
    with_bic = BankAccount(holder="Verein", iban="CH9300762011623852957", bic="POFICHBE")
    assert text_of(with_bic).split("\n")[4] == "POFICHBE"


@pytest.mark.parametrize("line_break", ["\n", "\r", "\x0b", "\x85", "\u2028"])
def test_a_holder_cannot_add_lines_to_the_code(line_break: str) -> None:
    account = BankAccount(holder=f"Verein{line_break}NL91ABNA0417164300", iban=ACCOUNT.iban)
    with pytest.raises(NoTransferCode, match="on one line"):
        text_of(account)


@pytest.mark.parametrize("holder", ["", "V" * 71])
def test_a_holder_has_1_to_70_characters(holder: str) -> None:
    with pytest.raises(NoTransferCode, match="1 to 70 characters"):
        text_of(BankAccount(holder=holder, iban=ACCOUNT.iban))


def test_a_holder_in_rare_letters_may_be_too_long_for_a_code() -> None:
    with pytest.raises(NoTransferCode, match="shorten it"):
        text_of(BankAccount(holder="𝒱" * 70, iban=ACCOUNT.iban))


def test_the_longest_text_still_fits() -> None:
    account = BankAccount(holder="€" * 70, iban="MT84MALT011000012345MTLCAST001S", bic="MALTMTMTXXX")
    text = text_of(account, amount_minor=AMOUNT_MAX_MINOR, reference=creditor_reference("A" * 21))
    assert len(text.encode()) <= 331
    picture = Image.open(io.BytesIO(epc_png(text)))
    assert picture.width <= (69 + 8) * 8
    assert read(picture).text == text


def test_an_invoice_number_is_no_reference() -> None:
    with pytest.raises(ValueError, match="not a creditor reference"):
        text_of(reference="INV-2026-0001")


def test_every_sepa_country_has_ibans() -> None:
    from schwifty.registry import get_iban_spec

    assert [country for country in SEPA_COUNTRIES if not get_iban_spec(country).iban_length] == []
