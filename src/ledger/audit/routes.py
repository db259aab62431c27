"""`/api/audit`: who changed what, and whether the log is whole."""

from typing import Annotated

from msgspec import Meta

from ledger.audit.actions import Verified, verify_chain
from ledger.audit.store import Entry, list_entries
from ledger.database.persons import list_user_ids
from ledger.web.bodies import NoBody
from ledger.web.call import Call, NoQuery
from ledger.web.operation import STAFF, reads
from ledger.web.paging import PageQuery, is_row_number, read_cursor
from ledger.web.shapes import Column, Table, iso

FilterText = Annotated[str, Meta(min_length=1, max_length=100)]


class AuditQuery(PageQuery, frozen=True, kw_only=True, rename="camel"):
    """Filters of the audit log."""

    action: FilterText | None = None
    entity_type: FilterText | None = None
    entity_id: FilterText | None = None


_COLUMNS = (
    Column(key="action", label="Action"),
    Column(key="entityType", label="Type"),
    Column(key="entityId", label="Entity"),
    Column(key="userId", label="By"),
    Column(key="createdAt", label="Date", type="date"),
)
# What stands for a person whom retention freed from the log.
FORGOTTEN = "(erased)"


@reads("/api/audit", "List who changed what", callers=STAFF, answer=Table, query=AuditQuery, errors=(400,))
async def list_audit(call: Call[NoBody, AuditQuery]) -> Table:
    query = call.query
    async with call.database.connection() as connection:
        page = await list_entries(
            connection,
            after=read_cursor(query.cursor, is_row_id=is_row_number),
            limit=query.limit,
            action=query.action,
            entity_type=query.entity_type,
            entity_id=query.entity_id,
        )
        people = await list_user_ids(
            connection, person_ids={row.actor_person_id for row in page.rows if row.actor_person_id is not None}
        )
    names = await call.services.names.display_names(set(people.values()))
    return Table(
        columns=_COLUMNS,
        rows=[
            {
                "id": str(entry.id),
                "action": entry.action,
                "entityType": entry.entity_type,
                "entityId": entry.entity_id,
                "userId": _actor(entry, people, names),
                "createdAt": iso(entry.created_at),
            }
            for entry in page.rows
        ],
        total=page.total,
        total_is_more=page.total_is_more,
        next_cursor=page.next_cursor,
    )


def _actor(entry: Entry, people: dict[int, str], names: dict[str, str]) -> str:
    if entry.actor_kind != "person":
        return f"{entry.actor_kind}:{entry.actor_name}" if entry.actor_name else entry.actor_kind
    user_id = people.get(entry.actor_person_id) if entry.actor_person_id is not None else None
    return FORGOTTEN if user_id is None else names.get(user_id, user_id)


@reads(
    "/api/audit/verify",
    "Verify the chain of seals over the audit log",
    callers=STAFF,
    answer=Verified,
    description="`waiting` entries are sealed by the worker within a minute.",
)
async def verify_audit(call: Call[NoBody, NoQuery]) -> Verified:
    async with call.database.connection() as connection:
        return await verify_chain(connection)


operations = [list_audit, verify_audit]
