"""When people are written to, and when a mail is tried again."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.billing_settings.mail_kinds import MAIL_KIND_OF, MAIL_PHRASES, MailKind, switched
from ledger.billing_settings.mailboxes import Mailbox, find_address, find_mailbox
from ledger.invoices.rules import InvoiceStatus
from ledger.mail.rules import (
    ATTEMPTS_MAX,
    MAIL_STATUS_PHRASES,
    MailCannotBeSentAgain,
    MailStatus,
    check_can_send_again,
    due_day,
    is_reminded,
    next_try,
    not_needed,
)

NOW = datetime(2026, 3, 15, 9, 30, tzinfo=UTC)
UTC_ZONE = ZoneInfo("UTC")


def test_a_mail_is_tried_again_after_half_a_minute_and_for_a_day_in_the_end() -> None:
    waits = []
    for attempts in range(1, ATTEMPTS_MAX):
        at = next_try(now=NOW, attempts=attempts)
        assert at is not None
        waits.append(at - NOW)
    assert waits == [
        timedelta(seconds=30),
        timedelta(minutes=2),
        timedelta(minutes=10),
        timedelta(hours=1),
        timedelta(hours=6),
        timedelta(hours=24),
    ]
    assert next_try(now=NOW, attempts=ATTEMPTS_MAX) is None
    assert next_try(now=NOW, attempts=ATTEMPTS_MAX + 5) is None


@pytest.mark.parametrize(
    ("due_at", "zone", "day"),
    [
        # Midnight in UTC is a date without a time, in whatever zone.
        (datetime(2026, 3, 20, tzinfo=UTC), "America/Los_Angeles", date(2026, 3, 20)),
        (datetime(2026, 3, 20, tzinfo=UTC), "Pacific/Kiritimati", date(2026, 3, 20)),
        (datetime(2026, 3, 20, 5, tzinfo=UTC), "America/Los_Angeles", date(2026, 3, 19)),
        (datetime(2026, 3, 20, 23, tzinfo=UTC), "Europe/Berlin", date(2026, 3, 21)),
        (datetime(2026, 3, 20, 23, tzinfo=UTC), "UTC", date(2026, 3, 20)),
    ],
)
def test_the_day_something_is_due_is_a_day_where_the_books_are_kept(due_at: datetime, zone: str, day: date) -> None:
    assert due_day(due_at, ZoneInfo(zone)) == day


@given(
    due=st.dates(date(2020, 1, 1), date(2030, 1, 1)),
    minutes=st.integers(0, 24 * 60 - 1),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Kiritimati", "Pacific/Niue"]),
)
def test_every_hour_of_exactly_two_days_is_right_for_each_reminder(due: date, minutes: int, zone: str) -> None:
    where = ZoneInfo(zone)
    due_at = datetime(due.year, due.month, due.day, tzinfo=UTC) + timedelta(minutes=minutes)
    day = due_day(due_at, where)
    for kind, after in ((MailKind.REMINDER_DUE, 0), (MailKind.REMINDER_OVERDUE, 7)):
        reminded = {
            now.astimezone(where).date()
            for hour in range(-24 * 3, 24 * 14)
            if is_reminded(
                kind,
                due_at=due_at,
                created_at=due_at - timedelta(days=30),
                total_minor=1,
                now=(now := due_at + timedelta(hours=hour)),
                zone=where,
            )
        }
        assert reminded == {day + timedelta(days=after), day + timedelta(days=after + 1)}


def test_whoever_was_told_of_an_invoice_on_that_very_day_is_not_reminded_of_it() -> None:
    def reminded(kind: MailKind, *, created: datetime, now: datetime, total_minor: int = 1) -> bool:
        due_at = datetime(2026, 3, 15, tzinfo=UTC)
        return is_reminded(kind, due_at=due_at, created_at=created, total_minor=total_minor, now=now, zone=UTC_ZONE)

    day_before = NOW - timedelta(days=1)
    assert reminded(MailKind.REMINDER_DUE, created=day_before, now=NOW)
    assert not reminded(MailKind.REMINDER_DUE, created=NOW - timedelta(hours=1), now=NOW)
    week_later = NOW + timedelta(days=7)
    assert reminded(MailKind.REMINDER_OVERDUE, created=NOW, now=week_later)
    assert not reminded(MailKind.REMINDER_OVERDUE, created=week_later, now=week_later)
    assert not reminded(MailKind.REMINDER_DUE, created=day_before, now=NOW, total_minor=0)


@pytest.mark.parametrize("kind", MailKind)
def test_mails_about_a_debt_are_not_needed_once_there_is_none(kind: MailKind) -> None:
    def reason(
        *, status: InvoiceStatus = InvoiceStatus.PENDING, still_open_minor: int = 100, is_under_way: bool = False
    ) -> str | None:
        return not_needed(kind, status=status, still_open_minor=still_open_minor, is_payment_under_way=is_under_way)

    about_debt = kind in (MailKind.REMINDER_DUE, MailKind.REMINDER_OVERDUE, MailKind.PAYMENT_FAILED)
    assert reason() is None
    assert reason(status=InvoiceStatus.FAILED) is None
    paid = reason(status=InvoiceStatus.PAID, still_open_minor=0)
    assert paid == ("The invoice was paid meanwhile" if about_debt else None)
    assert reason(is_under_way=True) == ("A payment of the invoice is on its way" if about_debt else None)
    cancelled = reason(status=InvoiceStatus.CANCELLED, still_open_minor=0)
    is_asking = about_debt or kind is MailKind.INVOICE_CREATED
    assert cancelled == ("The invoice was cancelled meanwhile" if is_asking else None)


def test_only_what_was_given_up_or_not_needed_is_sent_again() -> None:
    check_can_send_again(MailStatus.FAILED)
    check_can_send_again(MailStatus.SKIPPED)
    for status in (MailStatus.SENT, MailStatus.WAITING, MailStatus.HANDED_OVER):
        with pytest.raises(MailCannotBeSentAgain):
            check_can_send_again(status)


def test_every_kind_and_every_state_has_its_words_and_each_kind_a_switch() -> None:
    assert set(MAIL_PHRASES) == set(MAIL_KIND_OF.values()) == set(MailKind)
    assert set(MAIL_STATUS_PHRASES) == set(MailStatus)
    assert switched([], changes={MailKind.REFUND: False}) == ["refund"]
    assert switched(["refund"], changes={MailKind.REFUND: True}) == []
    assert switched(["refund", "gone"], changes={MailKind.INVOICE_CREATED: False}) == ["invoice_created", "refund"]


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("billing@example.org", None, "billing@example.org"),
        (" Ruderclub <billing@example.org> ", "Ruderclub", "billing@example.org"),
        ('"Ruderclub, e. V." <a+b@example.org>', "Ruderclub, e. V.", "a+b@example.org"),
        ("<a@example.org>", None, "a@example.org"),
        ("a@münchen.example", None, "a@xn--mnchen-3ya.example"),
        ("root@localhost", None, "root@localhost"),
    ],
)
def test_a_mailbox_is_an_address_perhaps_with_a_name(text: str, name: str | None, address: str) -> None:
    assert find_mailbox(text) == Mailbox(name=name, address=address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ben",
        "@example.org",
        "ben@",
        "ben@example..org",
        "ben@-example.org",
        "ben@exam ple.org",
        "be n@example.org",
        "bän@example.org",
        "ben@example.org\r\nRCPT TO:<x@example.org>",
        "a@example.org, b@example.org",
        "a@example.org b@example.org",
        "<a@example.org> <b@example.org>",
        '"a b"@example.org',
        "ben@[127.0.0.1]",
        "ben@example.org>",
        f"{'a' * 65}@example.org",
        f"ben@{'a' * 64}.org",
        f"ben@{'.'.join(['a' * 60] * 5)}",
        "a\x00b@example.org",
    ],
)
def test_what_is_no_single_address_is_none(text: str) -> None:
    assert find_address(text) is None
    assert find_mailbox(text) is None


@given(st.text(max_size=80))
def test_no_text_makes_an_address_that_could_break_a_command(text: str) -> None:
    for found in (find_address(text), find_address(f"{text}@example.org"), find_address(f"ben@{text}")):
        assert found is None or (found.isascii() and found.isprintable() and not set(found) & set(' <>,;:"\\()[]'))
