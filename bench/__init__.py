"""`make bench`: measures the guarantees about speed against a real Ledger on a real, durable PostgreSQL.

Everything is a ratio within one run on one machine: Ledger against `pgbench`, a large database against a small one.
"""
