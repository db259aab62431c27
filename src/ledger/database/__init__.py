"""PostgreSQL: the schema on one page, the pool, and the transaction every change runs in."""
