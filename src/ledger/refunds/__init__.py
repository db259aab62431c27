"""Refunds: money sent back by the provider that took it, kept as facts of their own."""
