"""The manual provider: what administrators are told about its settings, and what payers are told to do."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import msgspec
import pytest

from ledger.payments.reference import creditor_reference, format_reference
from ledger.providers.contract import BankAccount, Capability, Instructions, SettingsRefused, WantedPayment
from ledger.providers.manual import ManualProvider, ManualType
from ledger.providers.provider import Provider, ProviderType
from tests.providers.wanted import wanted_payment

TRANSFER = {
    "paymentMethod": "iban",
    "ibanHolder": "Sportverein Köln e. V.",
    "ibanNumber": "de89 3704 0044 0532 0130 00",
    "ibanBank": "Musterbank, COBADEFFXXX",
}
CASH = {"paymentMethod": "cash"}
WANTED = wanted_payment(
    invoice_id="019a7b2c-0000-7000-8000-000000000002",
    invoice_number="INV-2026-0001",
    payment_reference=creditor_reference("INV-2026-0001"),
    due_at=datetime(2026, 11, 30, tzinfo=UTC),
)


def custom(text: str) -> dict[str, str]:
    return {"paymentMethod": "custom", "customInstructions": text}


def faults(settings: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(fault.field, fault.message) for fault in ManualType().check(settings)]


async def instructions(settings: Mapping[str, str], wanted: WantedPayment = WANTED) -> str:
    assert faults(settings) == []
    started = await ManualType().connect(settings).start_payment(wanted)
    assert isinstance(started, Instructions)
    return started.text


def changed(**fields: object) -> WantedPayment:
    return msgspec.structs.replace(WANTED, **fields)


# What it is


def test_it_keeps_the_contract_and_takes_payments_of_invoices_only() -> None:
    kind: ProviderType = ManualType()
    provider: Provider = kind.connect(CASH)
    assert isinstance(provider, ManualProvider)
    assert (kind.name, kind.label) == ("manual", "Manual")
    assert kind.capabilities == {Capability.INVOICES}


def test_its_settings_are_the_published_ones_and_none_is_a_secret() -> None:
    fields = ManualType().fields()
    assert [field.key for field in fields] == [
        "paymentMethod",
        "ibanHolder",
        "ibanNumber",
        "ibanBank",
        "customInstructions",
    ]
    assert [value for value, _ in fields[0].options] == ["iban", "cash", "custom"]
    assert not any(field.is_secret for field in fields)


# Settings


@pytest.mark.parametrize("method", [None, "", "  ", "IBAN", "paypal"])
def test_a_method_has_to_be_chosen(method: str | None) -> None:
    settings = {} if method is None else {"paymentMethod": method}
    sentence = "Choose how people pay: iban (bank transfer), cash, or custom (a text of your own)"
    assert faults(settings) == [("paymentMethod", sentence)]


def test_a_bank_transfer_needs_a_holder_and_an_iban_and_says_both_at_once() -> None:
    assert faults({"paymentMethod": "iban", "ibanHolder": "  "}) == [
        ("ibanHolder", "Enter the account holder's name as the bank knows it"),
        ("ibanNumber", "Enter the IBAN of the account"),
    ]


def test_a_text_of_ones_own_needs_a_text() -> None:
    assert faults(custom(" \n ")) == [("customInstructions", "Enter the text that tells people how to pay")]


def test_settings_of_another_method_may_stay_unfinished() -> None:
    assert faults({"paymentMethod": "cash", "ibanNumber": "nonsense", "customInstructions": "x" * 9000}) == []


def test_a_bank_is_not_required() -> None:
    assert faults({key: value for key, value in TRANSFER.items() if key != "ibanBank"}) == []


@pytest.mark.parametrize(
    "iban",
    [
        "DE89370400440532013000",
        "de89 3704 0044 0532 0130 00",
        " DE89\u00a03704 0044 0532 0130 00\t",
        "AT611904300234573201",
        "BE68 5390 0754 7034",
        "CH9300762011623852957",
        "GB29NWBK60161331926819",
        "NO9386011117947",
        "MT84MALT011000012345MTLCAST001S",
        "BR9700360305000010009795493P1",
    ],
)
def test_published_ibans_are_accepted_however_they_are_typed(iban: str) -> None:
    assert faults({**TRANSFER, "ibanNumber": iban}) == []


@pytest.mark.parametrize(
    ("iban", "reason"),
    [
        (
            "DE88370400440532013000",
            "The check digits of the IBAN do not match: a character is wrong or two are swapped",
        ),
        (
            "DE89370400440532013001",
            "The check digits of the IBAN do not match: a character is wrong or two are swapped",
        ),
        (
            "DE89370400440532031000",
            "The check digits of the IBAN do not match: a character is wrong or two are swapped",
        ),
        ("DE8937040044053201300", "An IBAN that begins with DE has 22 characters, and this one 21"),
        ("DE893704004405320130000", "An IBAN that begins with DE has 22 characters, and this one 23"),
        ("DE89" + "0" * 100_000, "An IBAN that begins with DE has 22 characters, and this one 100004"),
        ("DE8937040044O532013000", "An IBAN that begins with DE has its letters and digits in other places"),
        ("XX89370400440532013000", "No country's IBANs begin with XX"),
        ("US12345678901234567890", "No country's IBANs begin with US"),
    ],
)
def test_a_wrong_iban_is_refused_with_the_reason(iban: str, reason: str) -> None:
    assert faults({**TRANSFER, "ibanNumber": iban}) == [
        ("ibanNumber", f"{reason}; compare it with your bank statement")
    ]


@pytest.mark.parametrize(
    ("iban", "stranger"),
    [
        ("DE89-3704-0044-0532-0130-00", "'-'"),
        ("DE8٩370400440532013000", "'٩'"),
        ("DE89370400440532013000\x00", r"'\x00'"),
    ],
)
def test_an_iban_has_letters_and_digits_only(iban: str, stranger: str) -> None:
    assert faults({**TRANSFER, "ibanNumber": iban}) == [
        ("ibanNumber", f"An IBAN has only letters A to Z and digits, and this one has {stranger} in it; remove it")
    ]


@pytest.mark.parametrize("iban", ["0532013000", "DE", "DEUTSCHE BANK", "IBAN DE89 3704 0044 0532 0130 00"])
def test_an_account_number_is_not_an_iban(iban: str) -> None:
    [(field, reason)] = faults({**TRANSFER, "ibanNumber": iban})
    assert field == "ibanNumber"
    assert reason.startswith("An IBAN begins with two letters for the country and two check digits, for example DE89")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("ibanHolder", "V" * 71, "has 71 characters, and banks accept 70"),
        ("ibanHolder", "Verein\nDE02", "must be on one line"),
        ("ibanHolder", "Verein\u2028DE02", "must be on one line"),
        ("ibanBank", "B" * 101, "has 101 characters; shorten it to 100"),
        ("ibanBank", "Bank\x07", "must be on one line"),
    ],
)
def test_names_fit_on_one_line_and_into_a_transfer(key: str, value: str, reason: str) -> None:
    [(field, message)] = faults({**TRANSFER, key: value})
    assert field == key
    assert reason in message


def test_several_faults_are_said_together() -> None:
    settings = {**TRANSFER, "ibanHolder": "", "ibanNumber": "DE88370400440532013000", "ibanBank": "a\nb"}
    assert [field for field, _ in faults(settings)] == ["ibanHolder", "ibanNumber", "ibanBank"]


def test_a_text_has_5000_characters_at_most() -> None:
    assert faults(custom("x" * 5000)) == []
    [(field, message)] = faults(custom("x" * 5001))
    assert field == "customInstructions"
    assert message == "The instructions have 5001 characters, and 5000 are allowed; shorten them"


def test_a_text_has_no_characters_the_database_refuses() -> None:
    [(field, message)] = faults(custom("pay\x00me"))
    assert field == "customInstructions"
    assert "control characters" in message
    assert faults(custom("line\r\n\tline")) == []


@pytest.mark.parametrize(
    "settings", [{}, {"paymentMethod": "iban"}, {"paymentMethod": "custom"}, {"paymentMethod": "x"}]
)
def test_unfinished_settings_cannot_be_connected(settings: dict[str, str]) -> None:
    with pytest.raises(SettingsRefused, match="Fill in the settings"):
        ManualType().connect(settings)


# What payers read


async def test_a_transfer_says_everything_the_bank_asks_for() -> None:
    assert await instructions(TRANSFER) == (
        "Please pay invoice INV-2026-0001 by bank transfer.\n"
        "\n"
        "Amount: 59.50 EUR\n"
        "Due date: 30 November 2026\n"
        "Account holder: Sportverein Köln e. V.\n"
        "IBAN: DE89 3704 0044 0532 0130 00\n"
        "Bank: Musterbank, COBADEFFXXX\n"
        "Payment reference: RF16 INV2 0260 001\n"
        "\n"
        "Please enter the payment reference as shown. It tells us which invoice your payment is for."
    )


async def test_what_is_not_known_has_no_line() -> None:
    text = await instructions(
        {"paymentMethod": "iban", "ibanHolder": "V", "ibanNumber": TRANSFER["ibanNumber"]}, changed(due_at=None)
    )
    labels = [line.partition(":")[0] for line in text.split("\n") if ":" in line]
    assert labels == ["Amount", "Account holder", "IBAN", "Payment reference"]


async def test_cash_is_asked_for_with_amount_and_reference() -> None:
    assert await instructions(CASH) == (
        "Please pay invoice INV-2026-0001 in cash.\n"
        "\n"
        "Amount: 59.50 EUR\n"
        "Due date: 30 November 2026\n"
        "Payment reference: RF16 INV2 0260 001\n"
        "\n"
        "Please name the payment reference when you pay. It tells us which invoice your payment is for."
    )


async def test_the_due_date_is_the_day_where_the_books_are_kept() -> None:
    late = datetime(2026, 12, 31, 23, 30, tzinfo=UTC).astimezone(ZoneInfo("Europe/Berlin"))
    assert "Due date: 1 January 2027\n" in await instructions(CASH, changed(due_at=late))


@pytest.mark.parametrize(
    ("amount_minor", "currency", "shown"),
    [(5000, "JPY", "5000 JPY"), (1234, "KWD", "1.234 KWD"), (5, "CHF", "0.05 CHF")],
)
async def test_amounts_are_shown_as_their_currency_has_them(amount_minor: int, currency: str, shown: str) -> None:
    text = await instructions(TRANSFER, changed(amount_minor=amount_minor, currency=currency))
    assert f"Amount: {shown}\n" in text


async def test_the_reference_is_grouped_as_everywhere_in_ledger() -> None:
    assert f"Payment reference: {format_reference(WANTED.payment_reference)}" in await instructions(CASH)


async def test_every_placeholder_of_a_text_is_filled_in() -> None:
    text = await instructions(custom("{amount} for {invoiceId}: {reference}.\r\nAgain: {reference}, {amount}"))
    assert text == (
        "59.50 EUR for 019a7b2c-0000-7000-8000-000000000002: RF16INV20260001.\nAgain: RF16INV20260001, 59.50 EUR"
    )


async def test_a_reference_can_be_part_of_an_address() -> None:
    text = await instructions(custom("https://pay.example/club?ref={reference}"))
    assert text == "https://pay.example/club?ref=RF16INV20260001"


@pytest.mark.parametrize(
    "braces",
    ["{", "}", "{}", "{0}", "{amount!r}", "{Amount}", "{ amount }", "{amount.__class__}", "%s", "{{x}}", r"\1"],
)
async def test_other_braces_stay_as_they_were_typed(braces: str) -> None:
    assert await instructions(custom(f"{braces} {{reference}}")) == f"{braces} RF16INV20260001"


async def test_doubled_braces_keep_the_outer_pair() -> None:
    assert await instructions(custom("{{reference}}")) == "{RF16INV20260001}"


async def test_a_text_that_does_not_name_the_reference_gets_it_as_a_last_line() -> None:
    assert await instructions(custom("Pay {amount} at the bar.")) == (
        "Pay 59.50 EUR at the bar.\n\nPayment reference: RF16 INV2 0260 001"
    )


async def test_asking_again_says_the_same() -> None:
    provider = ManualType().connect(TRANSFER)
    assert await provider.start_payment(WANTED) == await provider.start_payment(WANTED)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {**TRANSFER, "ibanHolder": "Verein"},
            "Nothing to connect to: payers are asked to transfer to DE89 3704 0044 0532 0130 00, Verein",
        ),
        (CASH, "Nothing to connect to: payers are asked to pay in cash"),
        (custom("x"), "Nothing to connect to: payers are shown your own text"),
    ],
)
async def test_testing_a_connection_asks_nobody_and_says_so(settings: dict[str, str], sentence: str) -> None:
    assert await ManualType().connect(settings).test() == sentence


# The account, for the QR code


def test_the_account_of_a_transfer_is_known_to_ledger() -> None:
    assert ManualType().connect(TRANSFER).bank_account() == BankAccount(
        holder="Sportverein Köln e. V.", iban="DE89370400440532013000", bic="COBADEFFXXX"
    )


@pytest.mark.parametrize("settings", [{**TRANSFER, "paymentMethod": "cash"}, {**TRANSFER, **custom("x")}])
def test_other_methods_have_no_account(settings: dict[str, str]) -> None:
    assert ManualType().connect(settings).bank_account() is None


@pytest.mark.parametrize(
    ("bank", "bic"),
    [
        ("", None),
        ("COBADEFF", "COBADEFF"),
        ("COBADEFFXXX", "COBADEFFXXX"),
        ("Sparkasse Köln (COLSDE33)", "COLSDE33"),
        ("BIC: COLSDE33XXX", "COLSDE33XXX"),
        # Names of banks that have the form of a BIC of another country.
        ("Postbank", None),
        ("POSTBANK", None),
        ("COMMERZBANK", None),
        ("Commerzbank", None),
        ("Deutsche Bank", None),
        ("cobadeffxxx", None),
        ("COBADEFFXXXX", None),
        ("POFICHBE", None),
    ],
)
def test_a_bic_is_found_in_what_is_said_about_the_bank(bank: str, bic: str | None) -> None:
    account = ManualType().connect({**TRANSFER, "ibanBank": bank}).bank_account()
    assert account is not None
    assert account.bic == bic


def test_payers_do_not_wait_for_the_libraries_that_check_an_account() -> None:
    program = (
        "import sys, ledger.payments.epc, ledger.providers.manual as manual;"
        "manual.ManualType().connect({'paymentMethod': 'iban', 'ibanHolder': 'V', 'ibanNumber': 'DE89'});"
        "print(sorted({'schwifty', 'segno', 'pycountry'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
