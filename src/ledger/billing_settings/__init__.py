"""What staff can set while Ledger runs: currency, tax, retention, mail."""
