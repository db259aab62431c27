"""An administrator's own texts: they stand in for the built-in ones, and a broken one keeps nobody from their mail."""

from pathlib import Path

import pytest

from ledger.billing_settings.mail_kinds import MailKind
from ledger.check import check
from ledger.mail.examples import VARIABLES, examples
from ledger.mail.rendering import BUILT_IN, ENDINGS, TEST_MAIL, Templates
from ledger.mail.words import LANGUAGES
from tests.conftest import StartLedger
from tests.fakes.smtp import FakeMailServer
from tests.mail.mailing import Mailing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A directory of an administrator's own."""
    directory = tmp_path / "mail"
    for language in LANGUAGES:
        (directory / language).mkdir(parents=True)
    return directory


@pytest.fixture
async def mailing(start_ledger: StartLedger, post: FakeMailServer, own: Path) -> Mailing:
    mailing = Mailing(await start_ledger(LEDGER_MAIL_TEMPLATES=str(own)), post)
    await mailing.configure()
    return mailing


async def setup(mailing: Mailing) -> dict[str, object]:
    return (await mailing.ledger.staff.get("/api/settings/mail")).fields()


async def test_an_own_text_is_used_from_the_next_mail_on_and_the_rest_stays(mailing: Mailing, own: Path) -> None:
    await mailing.invoice()
    (before,) = await mailing.send()
    (own / "en" / "invoice_created.txt").write_text("Ahoi {{ name }}, {{ number }}: {{ total }} für Ölzeug <b>.\n")
    await mailing.invoice()

    (after,) = await mailing.send()

    assert after.plain == "Ahoi Ben Buyer, INV-2026-0002: 59.50 EUR für Ölzeug <b>.\n"
    assert after.subject == "Invoice INV-2026-0002 over 59.50 EUR"
    assert after.html.replace("0002", "0001").split("<a")[0] == before.html.split("<a")[0]
    assert (await setup(mailing))["templates"] == "1 of your own"


async def test_own_subjects_stay_on_one_line_and_own_html_is_escaped(mailing: Mailing, own: Path) -> None:
    (own / "en" / "invoice_created.subject").write_text("Line one\nBcc: all@example.org\n\n{{ number }}")
    (own / "en" / "invoice_created.html").write_text("<p>{{ company }}</p>")
    await mailing.ledger.staff.put("/api/settings", {"companyName": "<script>alert(1)</script>"})
    await mailing.invoice()

    (received,) = await mailing.send()

    assert received.subject == "Line one Bcc: all@example.org INV-2026-0001"
    assert received.message["Bcc"] is None
    assert received.html == "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"


async def test_an_own_frame_stands_around_every_mail(mailing: Mailing, own: Path) -> None:
    (own / "en" / "_frame.txt").write_text("{% block text %}{% endblock %}\nFooter of ours\n")
    await mailing.pay(await mailing.invoice())
    for received in await mailing.send():
        assert received.plain.endswith("Footer of ours\n")
        assert "Hello" not in received.plain


BROKEN = {
    "a mistake in the syntax": ("{% if number %}no end", "line 1: Unexpected end of template"),
    "a name that does not exist": ("Hello {{ nmae }}", "'nmae' is undefined"),
    "something that cannot be computed": ("{{ 1 / 0 }}", "division by zero"),
    "a part that does not exist": ('{% include "en/_foot.txt" %}', "en/_foot.txt"),
    "what the sandbox forbids": (
        "{{ ''.__class__.__mro__ }}",
        "access to attribute '__class__' of 'str' object is unsafe",
    ),
    "a loop without an end": ("{% for i in range(10 ** 9) %}x{% endfor %}", "Range too big"),
}


@pytest.mark.parametrize("fault", BROKEN)
async def test_a_broken_own_text_is_said_so_and_the_built_in_one_is_sent(
    mailing: Mailing, own: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text, reason = BROKEN[fault]
    (own / "en" / "invoice_created.txt").write_text(text)
    await mailing.invoice()

    (received,) = await mailing.send()

    assert received.plain.startswith("Hello Ben Buyer,\n\nHere is your invoice INV-2026-0001")
    logged = capsys.readouterr().out
    assert "own mail template cannot be used" in logged
    assert "en/invoice_created.txt" in logged
    (sentence,) = Templates(own).problems()
    assert sentence.startswith(
        "The mail template en/invoice_created.txt cannot be used, the built-in one takes its place: "
    )
    assert reason in sentence
    assert sentence in str((await setup(mailing))["templates"])
    assert sentence in await check(mailing.ledger.settings)


async def test_a_file_that_is_not_text_is_said_so(mailing: Mailing, own: Path) -> None:
    (own / "de" / "refund.html").write_bytes(b"\xff\xfe\x00")
    (own / "de" / "refund.txt").mkdir()
    sentences = Templates(own).problems()
    assert len(sentences) == 2
    assert sentences[0] == "The mail template de/refund.txt is not used: it is not a file."
    assert sentences[1].startswith("The mail template de/refund.html cannot be used")


async def test_a_broken_part_breaks_the_mails_it_is_a_part_of(own: Path) -> None:
    (own / "de" / "_paying.html").write_text("{{ acount.iban }}")
    names = [sentence.split()[3] for sentence in Templates(own).problems()]
    assert names == ["de/invoice_created.html", "de/reminder_due.html", "de/reminder_overdue.html"]


def test_a_file_that_no_mail_is_called_is_said_so(own: Path) -> None:
    (own / "en" / "invoice-created.txt").write_text("Hello")
    (own / "en" / ".DS_Store").write_text("x")
    assert Templates(own).problems() == [
        "The mail template en/invoice-created.txt is not used: no mail is called so; docs/mail.md lists the names."
    ]


def test_a_directory_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    assert Templates(missing).problems() == [
        f"The mail templates in {missing} are not used: there is no such directory."
    ]
    assert Templates(missing).render(TEST_MAIL, "en", {"language": "en"}).subject.strip() == "Test mail from Ledger"


def test_nothing_is_wrong_with_the_built_in_templates() -> None:
    assert Templates(None).problems() == []
    assert Templates(BUILT_IN).problems() == []
    assert len(Templates(BUILT_IN).own_files) == len(LANGUAGES) * ((len(MailKind) + 1) * len(ENDINGS) + 4)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", [*MailKind, TEST_MAIL])
def test_every_mail_can_be_rendered_with_all_and_with_nothing(language: str, name: str) -> None:
    for values in examples(name, "de" if language == "de" else "en"):
        text = Templates(None).render(name, "de" if language == "de" else "en", values)
        for part in (text.subject, text.plain, text.html):
            assert "None" not in part
            assert "{{" not in part
        assert "\n\n\n" not in text.plain
        assert "59.50" not in text.plain or language == "en"


def test_the_document_lists_every_template_and_variable() -> None:
    document = (ROOT / "docs" / "mail.md").read_text()
    for name in (*MailKind, TEST_MAIL, "_frame", "_paying", *VARIABLES):
        assert f"`{name}`" in document, name
