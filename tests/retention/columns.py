"""Looks into every column of every table that can hold a text, whatever its type."""

import asyncpg
import msgspec


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column that can hold a text, as `table.column`, and its type."""

    table: str
    column: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.table}.{self.column}"


async def columns_that_hold_anything(database_url: str) -> list[Column]:
    """Every column of text, JSON, bytes, ids or lists of these."""
    rows = await _ask(
        database_url,
        """
        select c.table_name, c.column_name, c.udt_name from information_schema.columns c
        join information_schema.tables t using (table_schema, table_name)
        where c.table_schema = 'public' and t.table_type = 'BASE TABLE'
            and c.udt_name in ('text', 'varchar', 'bpchar', 'json', 'jsonb', 'bytea', 'uuid', '_text', '_varchar',
                'xml', 'citext', 'name')
        order by 1, 2
        """,
    )
    return [Column(table=row[0], column=row[1], kind=row[2]) for row in rows]


async def columns_pointing_at_persons(database_url: str) -> list[str]:
    """Every column with a foreign key to a person."""
    rows = await _ask(
        database_url,
        """
        select r.relname || '.' || a.attname from pg_constraint c
        join pg_class r on r.oid = c.conrelid
        join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any(c.conkey)
        where c.contype = 'f' and c.confrelid = 'person'::regclass
        """,
    )
    return [row[0] for row in rows]


async def columns_with(database_url: str, text: str) -> list[str]:
    """The columns in which `text` stands anywhere, in any case."""
    found = []
    for each in await columns_that_hold_anything(database_url):
        if each.kind == "bytea":
            condition = f"position(convert_to($1, 'UTF8') in {each.column}) > 0"
        else:
            condition = f"position(lower($1) in lower({each.column}::text)) > 0"
        rows = await _ask(database_url, f"select count(*) from {each.table} where {condition}", text)
        if rows[0][0]:
            found.append(each.name)
    return found


async def _ask(database_url: str, query: str, *values: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(database_url)
    try:
        rows: list[asyncpg.Record] = await connection.fetch(query, *values)
        return rows
    finally:
        await connection.close()
