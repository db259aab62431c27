"""Payments: money that arrived for an invoice, and money that went back."""
