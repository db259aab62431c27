"""What services may do beyond the invoices they created."""
