"""What staff has to be told of subscribers without looking for it."""

from ledger.database.connection import Connection


async def count_given_up(connection: Connection) -> int:
    """How many subscribers Ledger itself has disabled, and nobody has enabled since."""
    count: int = await connection.fetchval(
        "select count(*) from webhook_subscriber where not is_active and disabled_reason is not null"
    )
    return count
