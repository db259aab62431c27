"""Events on their way to subscribers: deliveries, their attempts, when they are repeated, and who is given up."""
