"""Health, readiness, the API document and metrics: what other programs ask about Ledger itself."""
