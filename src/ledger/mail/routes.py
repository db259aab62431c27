"""`/api/mails`: what was sent to people, for staff, and sending again; `/api/settings/…`: mail set up, and tried out.

No address is shown: Ledger has none.
"""

import asyncio

from ledger.billing_settings.mail_kinds import MAIL_PHRASES, MailKind
from ledger.billing_settings.store import get_settings
from ledger.database.transaction import Tx
from ledger.mail.rules import MailStatus
from ledger.mail.sending import MailSender, send_again
from ledger.mail.store import ListedMail, count_waiting, list_mails
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.idempotency import claim_resumable
from ledger.web.operation import STAFF, Reply, acts, completed, encode, reads, writes
from ledger.web.paging import PageQuery, counted, read_cursor
from ledger.web.shapes import NOTHING, Action, Actions, Column, Detail, Done, Field, Message, Row, Table, iso


class MailQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the list of mails."""

    status: MailStatus | None = None


_COLUMNS = (
    Column(key="createdAt", label="Time", type="date"),
    Column(key="kind", label="Kind"),
    Column(key="invoiceNumber", label="Invoice"),
    Column(key="status", label="Status"),
    Column(key="error", label="Error"),
)


@reads(
    "/api/mails",
    "List what was sent to people",
    callers=STAFF,
    answer=Table,
    query=MailQuery,
    errors=(400,),
    description="Texts and addresses are not among it: they are asked for when a mail is sent, and not kept.",
)
async def list_sent_mails(call: Call[NoBody, MailQuery]) -> Table:
    query = call.query
    async with call.database.connection() as connection:
        page = await list_mails(connection, status=query.status, after=read_cursor(query.cursor), limit=query.limit)
    return Table(
        columns=_COLUMNS,
        rows=[_row(mail) for mail in page.rows],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


def _row(mail: ListedMail) -> Row:
    return {
        "id": mail.id,
        "createdAt": iso(mail.created_at),
        "kind": MAIL_PHRASES[MailKind(mail.kind)],
        "invoiceNumber": mail.invoice_number or NOTHING,
        "status": mail.status,
        "error": mail.error or NOTHING,
    }


@writes(
    "POST",
    "/api/mails/{id}/send",
    "Send a mail again",
    callers=STAFF,
    answer=Done,
    errors=(400, 404, 409, 422),
    description="One that was given up, or that was not needed. It says what is true by then.",
)
async def send_mail_again(call: Call[NoBody, NoQuery], tx: Tx) -> Done:
    await send_again(tx, mail_id=call.id_of("Mail"))
    return Done()


@reads("/api/settings/mail", "Show whether mails are sent, and how", callers=STAFF, answer=Detail)
async def show_mail_setup(call: Call[NoBody, NoQuery]) -> Detail:
    templates = call.services.get(MailSender).templates
    async with call.database.connection() as connection:
        settings = await get_settings(connection)
        waiting, is_more = counted(await count_waiting(connection))
    # Files are read and tried.
    problems = await asyncio.to_thread(templates.problems)
    own = await asyncio.to_thread(lambda: len(templates.own_files))
    server = (
        f"Mails are sent through {settings.smtp_host}"
        if settings.has_mail_server
        else "No mails are sent: enter SMTP Host and SMTP From"
    )
    return Detail(
        fields=[
            Field(key="server", label="Mail Server", value=server),
            Field(key="waiting", label="Waiting", value=f"more than {waiting}" if is_more else str(waiting)),
            Field(
                key="templates",
                label="Templates",
                type="multiline",
                value="\n".join([f"{own} of your own" if own else "built in", *problems]),
            ),
        ]
    )


@reads("/api/settings/actions", "List what staff can do with the settings", callers=STAFF, answer=Actions)
async def list_settings_actions(call: Call[NoBody, NoQuery]) -> Actions:
    async with call.database.connection() as connection:
        settings = await get_settings(connection)
    test = Action(label="Send Test Mail", endpoint="/api/settings/test-mail", method="POST")
    return Actions(actions=[test] if settings.has_mail_server else [])


@acts(
    "POST",
    "/api/settings/test-mail",
    "Send a test mail to yourself",
    callers=STAFF,
    answer=Message,
    errors=(400, 409, 422, 503, 504),
    description="It is sent at once, and the answer says in a sentence what the mail server said.",
)
async def send_test_mail(call: Call[NoBody, NoQuery]) -> Reply:
    if call.claim is not None:
        async with call.database.transaction_of(call.caller) as tx:
            # A test that did not get to an answer may be repeated: a second test mail does no harm.
            await claim_resumable(tx.connection, actor=tx.actor, claim=call.claim, now=tx.now)
    message = await call.services.get(MailSender).send_test(user_id=call.person.user_id)
    answer = encode(Message(message=message))
    return await completed(call, answer)


operations = [list_sent_mails, send_mail_again, show_mail_setup, list_settings_actions, send_test_mail]
