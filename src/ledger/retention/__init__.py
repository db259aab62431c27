"""What happens to personal data in time and on request: retention, export, erasure."""
