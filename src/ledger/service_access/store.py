"""SQL for what services may do beyond their own invoices."""

from datetime import datetime
from typing import Literal

import msgspec

from ledger.database.connection import Connection
from ledger.web.paging import COUNTED_MAX, Page, Position, counted, write_cursor

Access = Literal["own", "read", "manage"]
ACCESS_PHRASES: dict[Access, str] = {
    "own": "Own invoices only",
    "read": "Read the status of all invoices",
    "manage": "Read and mark all invoices as paid",
}


class ServiceAccess(msgspec.Struct, frozen=True):
    """What one service may do."""

    service_id: str
    access: Access
    updated_at: datetime


async def get_access(connection: Connection, *, service_id: str) -> Access:
    """What a service may do; a service nobody granted anything has its own invoices."""
    access: Access | None = await connection.fetchval(
        "select access from service_access where service_id = $1", service_id
    )
    return access or "own"


async def list_access(connection: Connection, *, after: Position | None, limit: int) -> Page[ServiceAccess]:
    """The services that were granted more, the newest grant first."""
    found = await connection.fetchval(
        f"select count(*) from (select from service_access limit {COUNTED_MAX + 1}) counted"
    )
    rows = await connection.fetch(
        """
        select service_id, access, updated_at from service_access
        where $1::timestamptz is null or (updated_at, service_id) < ($1, $2)
        order by updated_at desc, service_id desc limit $3
        """,
        after.at if after else None,
        after.id if after else None,
        limit + 1,
    )
    granted = [ServiceAccess(*row.values()) for row in rows[:limit]]
    total, is_more = counted(found)
    last = granted[-1] if len(rows) > limit else None
    cursor = write_cursor(Position(last.updated_at, last.service_id)) if last else None
    return Page(rows=granted, total=total, total_is_more=is_more, next_cursor=cursor)


async def update_access(connection: Connection, *, service_id: str, access: Access, now: datetime) -> bool:
    """Stores a grant, or takes it away (`own`). Returns whether anything changed."""
    if access == "own":
        status = await connection.execute("delete from service_access where service_id = $1", service_id)
        return status != "DELETE 0"
    status = await connection.execute(
        """
        insert into service_access (service_id, access, updated_at) values ($1, $2, $3)
        on conflict (service_id) do update set access = excluded.access, updated_at = excluded.updated_at
        where service_access.access <> excluded.access
        """,
        service_id,
        access,
        now,
    )
    return status != "INSERT 0 0"
