"""Invoices: issued once with a gapless number, never changed, paid or cancelled by facts."""
