"""The schema this version of Ledger needs. A test keeps it equal to the newest migration.

It stands apart from the migrations so that serving requests does not load the migration tool.
"""

HEAD_REVISION = "0004"
